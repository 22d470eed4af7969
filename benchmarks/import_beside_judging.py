"""Latency of judging while another process imports a file.

    python benchmarks/import_beside_judging.py [--rows 200000] [--annotators 4] [--round 500]

One process imports `--rows` preference pairs through the command line. Annotators, a thread each, judge in this process meanwhile
with a pause of `--think` seconds: each fetches a comparison and saves a ranking. Printed are the latencies before, during and
after the import, the rate and the peak memory of the import, and the number of its rows that are visible before its end, which
must be 0. With `--round`, a worker trains a tiny model for this many PPO steps meanwhile, and must finish too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import machine
from rlhf.runs.jobs import Jobs
from storage.content import comparisons, completions, policies, prompts
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.core.records import Sampling
from storage.judging import judgments, queue
from storage.people import annotators
from storage.project import runs
from tests.support import tiny
from tests.support.learning import Judged

LIMIT_MS = 300
"""Limit of the 99th percentile of the latency."""

QUIET_S = 5.0

PROMPTS = 20
"""Number of prompts of the comparisons; a round of `--round` scores answers to all of them."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--annotators", type=int, default=4)
    parser.add_argument("--think", type=float, default=0.2, help="seconds between two acts of one annotator")
    parser.add_argument("--round", type=int, default=0, metavar="STEPS", help="PPO steps of a round that runs meanwhile; 0 for no round")
    args = parser.parse_args()
    print(machine())
    folder = Path(tempfile.mkdtemp(prefix="import-beside-judging-"))
    try:
        return measure(folder, args.rows, args.annotators, args.think, args.round)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, rows: int, people: int, think_s: float, ppo_steps: int) -> int:
    store = Database(folder / "rankloop.db")
    fill(store, 20_000)
    file = folder / "pairs.jsonl"
    write(file, rows)
    judging = Judging(store, people, think_s)
    judging.during(lambda: time.sleep(QUIET_S), "before")
    importing = Importing(folder, file)
    training = Training(folder, store, ppo_steps) if ppo_steps else None
    judging.during(lambda: importing.run(store), "beside")
    judging.during(lambda: time.sleep(QUIET_S), "after")
    trained = training is None or training.ended_well()
    print(f"{rows:,} rows in {importing.seconds:.0f} s ({rows / importing.seconds:,.0f}/s), peak {importing.peak_mib:.0f} MiB")
    print(f"visible before its end: {importing.seen_early} judgments; after: {importing.seen:,}")
    for name, waits in judging.waits.items():
        p50, p99 = (percentile_of(waits, percent) for percent in (50, 99))
        print(f"{name:7} {len(waits):6,} acts  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms  max {max(waits):6.1f} ms")
    good = (
        percentile_of(judging.waits["beside"], 99) <= LIMIT_MS
        and importing.seen_early == 0
        and importing.seen == rows
        and not judging.failed
    )
    good = good and trained
    print(machine())
    print(
        "ok"
        if good
        else f"MISSED: p99 beside must be at most {LIMIT_MS} ms, nothing seen early, no act failed ({judging.failed}), round well"
    )
    return 0 if good else 1


def percentile_of(waits: list[float], percent: int) -> float:
    return statistics.quantiles(waits, n=100, method="inclusive")[percent - 1]


def fill(store: Database, number: int) -> None:
    """Comparisons that wait for judgments."""
    policy = policies.ensure_base(store, "hub/tiny")
    asked = [prompts.NewPrompt(({"role": "user", "content": f"Waiting {n}?"},), split="train") for n in range(PROMPTS)]
    prompts.add(store, asked, source="benchmark")
    with store.atomic():
        for n in range(number):
            prompt_id = 1 + n % PROMPTS
            ids = [
                completions.add(
                    store, prompt_id=prompt_id, policy_version_id=policy.id, text=text, sampling=Sampling(), seed=0,
                    finish_reason="stop", latency_s=0.1,
                )
                for text in ("yes", "no")
            ]  # fmt: skip
            comparisons.add(store, prompt_id, ids, purpose="collect")


def write(file: Path, rows: int) -> None:
    """Pairs of the length of a short chat."""
    with open(file, "w", encoding="utf-8") as out:
        for n in range(rows):
            row = {"prompt": f"Question {n}: " + "why " * 40, "chosen": f"Because {n} " + "so " * 80, "rejected": f"No {n} " + "no " * 80}
            out.write(json.dumps(row | {"annotator": f"annotator {n % 20}"}) + "\n")


class Importing:
    """The import, in a process of its own."""

    def __init__(self, folder: Path, file: Path):
        self.command = [sys.executable, "launch.py", "import", str(file), "--format", "trl", "--data", str(folder)]
        self.seconds = self.peak_mib = 0.0
        self.seen_early = self.seen = 0

    def run(self, store: Database) -> None:
        before = self._judgments(store)
        started = time.monotonic()
        process = subprocess.Popen(self.command, cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL)
        while True:
            early = self._judgments(store) - before
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            # The import becomes visible just before its process ends, so that the process is checked after the count.
            self.seen_early = max(self.seen_early, early if early else 0) if not self._whole(store) else self.seen_early
            time.sleep(0.2)
        self.seconds = time.monotonic() - started
        self.peak_mib = usage.ru_maxrss / 1024
        assert os.waitstatus_to_exitcode(status) == 0, "the import failed"
        self.seen = self._judgments(store) - before

    def _judgments(self, store: Database) -> int:
        return int(store.value("SELECT count(*) FROM votes WHERE import_id IS NOT NULL"))

    def _whole(self, store: Database) -> bool:
        return bool(store.value("SELECT 1 FROM imports WHERE state = 'whole'"))


class Training:
    """A round on a tiny model, in its worker, with thirty pairs of its own."""

    def __init__(self, folder: Path, store: Database, steps: int):
        self.store = store
        world = Judged(store, DataFolder(folder), tiny.write(folder / "tiny")).fill(train=24, heldout=6)
        config = world.config(seed=4, ppo_steps=steps, ppo_batch_size=16, sampling_max_new_tokens=24)
        self.run_id = Jobs(store, world.folder).start(config).id
        while not self.steps():
            time.sleep(0.2)

    def steps(self) -> int:
        return max((metric.step for metric in runs.metrics(self.store, self.run_id) if metric.name == "objective/kl"), default=0)

    def ended_well(self) -> bool:
        print(f"round: {self.steps()} steps when the import had ended")
        while (run := runs.get(self.store, self.run_id)).status in ("queued", "running"):
            time.sleep(1)
        print(f"round: {run.status}, {self.steps()} steps {run.error or ''}")
        return run.status == "done"


class Judging:
    """Annotators who judge in threads, and the latency of each act."""

    def __init__(self, store: Database, people: int, think_s: float):
        self.store, self.think_s = store, think_s
        self.people = [annotators.ensure(store, f"person {n}").id for n in range(people)]
        self.waits: dict[str, list[float]] = {}
        self.failed: list[str] = []

    def during(self, act: Callable[[], object], name: str) -> None:
        """Judges while `act` runs."""
        waits = self.waits[name] = []
        ended = threading.Event()
        threads = [threading.Thread(target=self._judge, args=(person, waits, ended)) for person in self.people]
        for thread in threads:
            thread.start()
        try:
            act()
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def _judge(self, annotator_id: int, waits: list[float], ended: threading.Event) -> None:
        while not ended.wait(self.think_s):
            started = time.monotonic()
            try:
                _, shown = queue.next_presentation(self.store, annotator_id)
                waits.append(1000 * (time.monotonic() - started))
                started = time.monotonic()
                judgments.save(self.store, shown.id, annotator_id, verdict="rank", tiers=tuple((item,) for item in shown.order))
            except Exception as error:
                self.failed.append(str(error))
            waits.append(1000 * (time.monotonic() - started))


if __name__ == "__main__":
    raise SystemExit(main())
