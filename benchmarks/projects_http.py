"""Judgments/s of four projects at one address beside one project's: `python benchmarks/projects_http.py`.

The real `launch.py serve --projects` with four projects, and the real `launch.py serve` with one, on the same machine, both up all the
time. Three sides take turns, each with the same number of annotators, who judge as fast as the app responds:

- `four projects`: the annotators share out over the four projects, all at once;
- `one of them`: all annotators judge in one of the four, through the same front;
- `served alone`: all annotators judge in the one project of the other program, which has no front.

The ratios are those of the first side to the others. Afterwards each store is compared with what was acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.annotating import PASSWORD, Annotator, LoadTest, Tally, find_component, judge_together, prepare
from benchmarks.annotators_http import print_tally
from benchmarks.figures import machine, verdict
from feedback_ui.server.auth import Auth
from storage.core.database import Database
from storage.core.projects_folder import ProjectsFolder
from storage.people import accounts, members
from storage.project import settings
from tests.browser.program import HOST, ROOT, Endpoint, as_if_started_by_hand, eventually, free_port
from tests.support import tiny

NAMES = ("one", "two", "three", "four")


@dataclass
class ProjectRoom:
    """One project behind the front."""

    store: Database
    path: str
    port: int
    component_id: int = 0

    @property
    def judged(self) -> int:
        return int(self.store.value("SELECT count(*) FROM active_judgments WHERE annotator_kind = 'human'"))


class Projects:
    """The served projects, with every annotator in each of them."""

    def __init__(self, folder: Path, *, people: int, comparisons: int, overlap: int):
        self.folder = ProjectsFolder(folder / "projects")
        self.endpoint = Endpoint()
        self.shared = Database(self.folder.accounts.database)
        port = free_port()
        self.rooms = [ProjectRoom(Database(self.folder.project(name).database), f"/p/{name}", port) for name in NAMES]
        people_names = [f"annotator {n:02}" for n in range(people)]
        for name in people_names:
            members.add_account(self.shared, name, PASSWORD)
        for room in self.rooms:
            settings.change(room.store, replace(settings.current(room.store), overlap=overlap), None)
            prepare(room.store, comparisons)
            for n, name in enumerate(people_names):
                members.add(room.store, self.shared, name, ["annotator", "lead"] if n == 0 else ["annotator"])
        cookie = Auth(self.shared).cookie
        self.cookies = [f"{cookie}={accounts.sign_in(self.shared, name, PASSWORD)}" for name in people_names]
        self.log = folder / "front.log"
        command = [
            sys.executable, "launch.py", "serve", "--projects", str(self.folder.root), "--port", str(port),
            "--model", str(tiny.write(folder / "model")), *self.endpoint.options,
        ]  # fmt: skip
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"}, preexec_fn=as_if_started_by_hand,
            )  # fmt: skip

    def until_ready(self) -> None:
        """Waits until every project answers, and until its policy server, which that started, is idle."""
        eventually(lambda: all(self._answers(room) for room in self.rooms), f"the projects are served: {self.log}", within_s=300)
        for name, room in zip(NAMES, self.rooms, strict=True):
            log = self.folder.project(name).logs / "policy-server.log"
            eventually(lambda log=log: log.exists() and "policy server ready" in log.read_text(errors="replace"), "its model", within_s=300)
            room.component_id = asyncio.run(find_component(room, self.cookies[0]))

    def _answers(self, room: ProjectRoom) -> bool:
        assert self.process.poll() is None, self.log.read_text(errors="replace")
        try:
            url = f"http://{HOST}:{room.port}{room.path}/gradio_api/info"
            return httpx2.get(url, headers={"cookie": self.cookies[0]}, timeout=5.0).is_success
        except httpx2.HTTPError:
            return False

    def annotators(self, rooms: int, seed: int) -> list[Annotator]:
        """Every annotator once, shared out over the first projects."""
        found = []
        for n, cookie in enumerate(self.cookies):
            room = self.rooms[n % rooms]
            id_ = accounts.named(room.store, f"annotator {n:02}").annotator.id
            found.append(Annotator(room, id_, cookie, 1000 * seed + n))
        return found

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.endpoint.close()
        for store in (self.shared, *(room.store for room in self.rooms)):
            store.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=40, help="number of concurrent annotators")
    parser.add_argument("--comparisons", type=int, default=3000, help="comparisons prepared in each project")
    parser.add_argument("--overlap", type=int, default=5, help="judgments wanted for each comparison")
    parser.add_argument("--seconds", type=float, default=10, help="length of one turn")
    parser.add_argument("--turns", type=int, default=3, help="turns of each side")
    args = parser.parse_args()
    amounts = {"people": args.people, "comparisons": args.comparisons, "overlap": args.overlap}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone = LoadTest(folder / "alone", **amounts)
        projects = Projects(folder, **amounts)
        try:
            alone.start()
            projects.until_ready()
            return measure(args, projects, alone)
        finally:
            projects.end()
            alone.end()


def measure(args: argparse.Namespace, projects: Projects, alone: LoadTest) -> int:
    print(machine())
    sides = {"four projects": Tally(), "one of them": Tally(), "served alone": Tally()}
    for turn in range(args.turns):
        for n, (name, tally) in enumerate(sides.items()):
            if name == "served alone":
                took = alone.judge(args.seconds)
            else:
                annotators = projects.annotators(len(NAMES) if name == "four projects" else 1, 10 * turn + n)
                took = asyncio.run(judge_together(annotators, args.seconds))
            print_tally(name, took)
            tally.add(took)
    print("together:")
    for name, tally in sides.items():
        print_tally(name, tally)
    four, one, plain = sides.values()
    acknowledged, stored = len(four.acknowledged) + len(one.acknowledged), sum(room.judged for room in projects.rooms)
    print(f"four projects: {four.per_s / one.per_s:.2f} times one of them, {four.per_s / plain.per_s:.2f} times the one served alone")
    print(f"one of them: {one.per_s / plain.per_s:.2f} times the one served alone: what the front costs")
    print(f"acknowledged {acknowledged:,}, stored {stored:,}: {verdict(acknowledged == stored)}")
    met = four.per_s >= one.per_s
    print(f"four at once, at least one's judgments/s: {verdict(met)}")
    print(machine())
    return 0 if met and acknowledged == stored else 1


if __name__ == "__main__":
    sys.exit(main())
