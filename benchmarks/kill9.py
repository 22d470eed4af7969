"""`kill -9` of the web process at random moments, with fifty annotators at work: `python benchmarks/kill9.py`.

After each kill the database is looked through before anybody repairs it: its pages, its references and what must hold of
leases, votes and the line (`benchmarks/invariants.py`). Then the program starts again over the same folder, and the annotators
go on: an act that was not acknowledged is sent again, as the page's Retry does. With each kill some annotators leave for
good, with a comparison on the screen; their leases must lapse and the comparisons come back. At the end the others judge
until nothing is left, and every comparison must have exactly as many votes as were wanted.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.annotating import Annotator, Kept, Room, Tally
from benchmarks.figures import machine, verdict
from benchmarks.invariants import problems

LEASE_MINUTES = 1


class Crowd:
    """The annotators, in a thread of their own, so that the program can be killed and started under them."""

    def __init__(self, annotators: Sequence[Annotator]):
        self.tally = Tally()
        self._gone = {annotator: threading.Event() for annotator in annotators}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()))
        self._thread.start()

    async def _work(self) -> None:
        await asyncio.gather(*(annotator.work(self.tally, gone=gone) for annotator, gone in self._gone.items()))

    def leave(self, count: int, rng: random.Random) -> None:
        """So many close their browsers, whatever is on the screen."""
        here = [gone for gone in self._gone.values() if not gone.is_set()]
        for gone in rng.sample(here, count):
            gone.set()

    def unsent(self) -> int:
        """Acts of which their annotators do not know whether they were saved."""
        return sum(annotator.unsent is not None for annotator in self._gone)

    def go_home(self) -> None:
        for gone in self._gone.values():
            gone.set()
        self._thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how often")
    parser.add_argument("--people", type=int, default=50, help="annotators at once")
    parser.add_argument("--comparisons", type=int, default=6000, help="comparisons prepared")
    parser.add_argument("--overlap", type=int, default=3, help="judgments wanted for each comparison")
    parser.add_argument("--within", type=float, default=900, help="longest wait for the last judgment at the end, in seconds")
    parser.add_argument("--leaving", type=int, default=1, help="annotators who leave for good with each kill")
    parser.add_argument("--longest", type=float, default=6.0, help="longest time between start and kill, in seconds")
    parser.add_argument("--seed", type=int, help="of the moments; another each time without")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        room = Room(Path(name), people=given.people, comparisons=given.comparisons, overlap=given.overlap, lease_minutes=LEASE_MINUTES)
        try:
            return measure(given, room)
        finally:
            room.end()


def measure(given: argparse.Namespace, room: Room) -> int:
    rng = random.Random(given.seed)
    store = room.program.store
    room.start()
    room.start_training()
    print(machine())
    print("kill  after s  acknowledged  of them wrong  saved, not acknowledged  leases held  up again s  broken")
    crowd, broken = Crowd(room.annotators), []
    try:
        for kill in range(1, given.kills + 1):
            worked = rng.uniform(0.1, given.longest)
            time.sleep(worked)
            crowd.leave(given.leaving, rng)
            room.program.kill()
            found, kept = look(room, crowd)
            broken += found
            held = store.value("SELECT count(*) FROM leases WHERE ended_at IS NULL")
            began = time.monotonic()
            room.start()
            print(
                f"{kill:4}  {worked:7.1f}  {len(crowd.tally.acknowledged):12,}  {len(kept.wrong):13}  {kept.unacknowledged:23}  {held:11}"
                f"  {time.monotonic() - began:10.1f}  {'; '.join(found) or 'no'}", flush=True,
            )  # fmt: skip
        waited = until_all_is_judged(room, given.within)
    finally:
        crowd.go_home()
    found, kept = look(room, crowd)
    broken += found
    expired = store.value("SELECT count(*) FROM leases WHERE outcome = 'expired'")
    unfinished = store.value("SELECT count(*) FROM comparisons WHERE human_ranks != wanted")
    print(
        f"after the last: {waited:.0f} s until nothing was left; {expired} leases expired; {len(crowd.tally.acknowledged):,} acknowledged, "
        f"{len(kept.wrong)} of them wrong; {kept.unacknowledged} saved without anybody knowing; "
        f"{crowd.tally.unanswered:,} requests without an answer; {unfinished} comparisons without their {given.overlap} votes"
    )
    for problem, times in crowd.tally.problems.most_common(5):
        print(f"  {times} times: {problem}")
    whole = not broken and not unfinished
    print(f"{given.kills} kills, nothing lost, broken or over-assigned, and every lease recovered: {verdict(whole)}")
    print(machine())
    return 0 if whole else 1


def look(room: Room, crowd: Crowd) -> tuple[list[str], Kept]:
    """What is broken in the database, a line each, and what came of the judgments."""
    # Replies that were on their way when the process died have arrived by then.
    time.sleep(0.3)
    kept = room.compare(list(crowd.tally.acknowledged))
    broken = kept.wrong + problems(room.database)
    if kept.unacknowledged > crowd.unsent():
        broken.append(f"{kept.unacknowledged} saved and not acknowledged, {crowd.unsent()} unsent")
    return broken, kept


def until_all_is_judged(room: Room, within_s: float) -> float:
    """Seconds until nobody holds a lease and nothing waits."""
    began = time.monotonic()
    while room.program.store.value("SELECT EXISTS (SELECT 1 FROM queue) OR EXISTS (SELECT 1 FROM leases WHERE ended_at IS NULL)"):
        if time.monotonic() - began > within_s:
            break
        time.sleep(1.0)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
