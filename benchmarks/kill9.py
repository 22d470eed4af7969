"""`kill -9` of the web process at random moments, while fifty annotators judge: `python benchmarks/kill9.py`.

After each kill the database is checked before the program opens it again: its pages, its references and the invariants of
leases, votes and queue (`benchmarks/invariants.py`). Then the program starts again on the same folder, and the annotators
continue: an act that was not acknowledged is sent again, as the page's Retry does. At each kill some annotators leave for
good while they hold a lease; the leases must expire and the comparisons return to the queue. At the end the others judge
until the queue is empty, and every comparison must have exactly as many votes as it wants.
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

from benchmarks.annotating import Annotator, LoadTest, Reconciliation, Tally
from benchmarks.figures import machine, verdict
from benchmarks.invariants import problems

LEASE_MINUTES = 1


class AnnotatorThread:
    """Runs the annotators in a thread, while the program is killed and started again."""

    def __init__(self, annotators: Sequence[Annotator]):
        self.tally = Tally()
        self._gone = {annotator: threading.Event() for annotator in annotators}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()))
        self._thread.start()

    async def _work(self) -> None:
        await asyncio.gather(*(annotator.work(self.tally, gone=gone) for annotator, gone in self._gone.items()))

    def leave(self, count: int, rng: random.Random) -> None:
        """Stops `count` random annotators for good, also those who hold a lease."""
        here = [gone for gone in self._gone.values() if not gone.is_set()]
        for gone in rng.sample(here, count):
            gone.set()

    def unsent(self) -> int:
        """Number of acts that were sent and not acknowledged yet."""
        return sum(annotator.unsent is not None for annotator in self._gone)

    def stop(self) -> None:
        for gone in self._gone.values():
            gone.set()
        self._thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how often")
    parser.add_argument("--people", type=int, default=50, help="number of concurrent annotators")
    parser.add_argument("--comparisons", type=int, default=6000, help="comparisons prepared")
    parser.add_argument("--overlap", type=int, default=3, help="judgments wanted for each comparison")
    parser.add_argument("--within", type=float, default=900, help="longest wait for the last judgment at the end, in seconds")
    parser.add_argument("--leaving", type=int, default=1, help="annotators who leave for good with each kill")
    parser.add_argument("--longest", type=float, default=6.0, help="longest time between start and kill, in seconds")
    parser.add_argument("--seed", type=int, help="seed of the random moments; random by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        room = LoadTest(Path(name), people=args.people, comparisons=args.comparisons, overlap=args.overlap, lease_minutes=LEASE_MINUTES)
        try:
            return measure(args, room)
        finally:
            room.end()


def measure(args: argparse.Namespace, room: LoadTest) -> int:
    rng = random.Random(args.seed)
    store = room.program.store
    room.start()
    room.start_training()
    print(machine())
    print("kill  after s  acknowledged  of them wrong  saved, not acknowledged  leases held  up again s  broken")
    judging, broken = AnnotatorThread(room.annotators), []
    try:
        for kill in range(1, args.kills + 1):
            worked = rng.uniform(0.1, args.longest)
            time.sleep(worked)
            judging.leave(args.leaving, rng)
            room.program.kill()
            violations, result = check_database(room, judging)
            broken += violations
            held = store.value("SELECT count(*) FROM leases WHERE ended_at IS NULL")
            began = time.monotonic()
            room.start()
            print(
                f"{kill:4}  {worked:7.1f}  {len(judging.tally.acknowledged):12,}  {len(result.wrong):13}  "
                f"{result.unacknowledged:23}  {held:11}  {time.monotonic() - began:10.1f}  {'; '.join(violations) or 'no'}", flush=True,
            )  # fmt: skip
        waited = until_all_is_judged(room, args.within)
    finally:
        judging.stop()
    violations, result = check_database(room, judging)
    broken += violations
    expired = store.value("SELECT count(*) FROM leases WHERE outcome = 'expired'")
    unfinished = store.value("SELECT count(*) FROM comparisons WHERE human_ranks != wanted")
    print(
        f"after the last: {waited:.0f} s until the queue was empty; {expired} leases expired; "
        f"{len(judging.tally.acknowledged):,} acknowledged, {len(result.wrong)} of them wrong; "
        f"{result.unacknowledged} saved and not acknowledged; "
        f"{judging.tally.unanswered:,} requests without an answer; {unfinished} comparisons without their {args.overlap} votes"
    )
    for problem, times in judging.tally.problems.most_common(5):
        print(f"  {times} times: {problem}")
    whole = not broken and not unfinished
    print(f"{args.kills} kills, nothing lost, broken or over-assigned, and every lease recovered: {verdict(whole)}")
    print(machine())
    return 0 if whole else 1


def check_database(room: LoadTest, judging: AnnotatorThread) -> tuple[list[str], Reconciliation]:
    """Returns the violated invariants of the database, a line each, and the comparison of its judgments with the acknowledged ones."""
    # Responses that the process sent before its end have arrived by then.
    time.sleep(0.3)
    result = room.reconcile(list(judging.tally.acknowledged))
    broken = result.wrong + problems(room.database)
    if result.unacknowledged > judging.unsent():
        broken.append(f"{result.unacknowledged} saved and not acknowledged, {judging.unsent()} unsent")
    return broken, result


def until_all_is_judged(room: LoadTest, within_s: float) -> float:
    """Waits until no lease is active and the queue is empty. Returns the seconds waited."""
    began = time.monotonic()
    while room.program.store.value("SELECT EXISTS (SELECT 1 FROM queue) OR EXISTS (SELECT 1 FROM leases WHERE ended_at IS NULL)"):
        if time.monotonic() - began > within_s:
            break
        time.sleep(1.0)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
