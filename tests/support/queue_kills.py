"""Kills a process at each SQL statement and before and after each worker's start of an act on the queue, and lets another one go on.

`python queue_kills.py ACT FOLDER CONFIG`: FOLDER has a store with enough votes; its copies are played with. Prints a JSON list with an
object for each kill. Forks, so that it runs in a process of its own, without threads.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from rlhf.config import RoundConfig
from rlhf.runs import jobs as jobs_module
from rlhf.runs.jobs import Jobs
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.project import queued_rounds, rounds, runs


class Workerless(Jobs):
    """Writes a line in the place of each worker that it would start. Dies at step `dies_at`."""

    def __init__(self, store, folder, dies_at=None):
        super().__init__(store, folder)
        self.left = dies_at
        if dies_at is not None:
            store.connection.conn.set_trace_callback(lambda statement: self.step())

    def step(self):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def spawn(self, run_id, reward=None):
        self.step()
        with (self.folder.root / "workers").open("a") as file:
            file.write(f"{run_id}\n")
        self.step()


def open_jobs(root: Path, dies_at=None) -> Workerless:
    return Workerless(Database(root / "rankloop.db"), DataFolder(root), dies_at)


def killed(act, root: Path, dies_at: int) -> bool:
    """Whether the act was killed before it was over."""
    if (child := os.fork()) == 0:
        act(open_jobs(root, dies_at))
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


def what_came_of_it(root: Path) -> dict:
    """Another process goes on, twice; then each worker that was started tries to get its run."""
    jobs = open_jobs(root)
    for _ in range(2):
        jobs.start_next()
    lines = root / "workers"
    workers = lines.read_text().split() if lines.exists() else []
    found = {
        "states": [row["state"] for row in jobs.store.rows("SELECT state FROM queued_rounds ORDER BY id")],
        "runs": len(runs.all_runs(jobs.store)),
        "rounds": len(rounds.all_rounds(jobs.store)),
        "workers": len(workers),
        "begun": sum(runs.claim(jobs.store, run_id, 1) for run_id in workers),
    }
    jobs.store.close()
    return found


def main() -> None:
    act_name, template, config = sys.argv[1], Path(sys.argv[2]), RoundConfig.from_dict(json.loads(sys.argv[3]))
    # A run without a worker is given one at once: the clock of this test has nothing to wait for.
    jobs_module.ORPHAN_S = -1.0
    acts = {"ask": lambda jobs: jobs.start(config), "next": lambda jobs: jobs.start_next()}
    told = []
    for dies_at in range(1000):
        root = template.with_name(f"killed-{dies_at}")
        shutil.copytree(template, root)
        if act_name == "next":
            prepared = open_jobs(root)
            for _ in range(2):
                queued_rounds.add(prepared.store, config.to_dict(), trigger="schedule")
            prepared.store.close()
        died = killed(acts[act_name], root, dies_at)
        told.append({"died": died} | what_came_of_it(root))
        shutil.rmtree(root)
        if not died:
            break
    print(json.dumps(told))


if __name__ == "__main__":
    main()
