"""Fifty concurrent annotators, each judging as fast as the app responds: `python benchmarks/annotators_http.py --label-studio VENV`.

The real `launch.py serve` with accounts on, over a store of prepared comparisons that want three judgments each, while a
process writes a training run's heartbeats and metrics into the same store. Each annotator has a session cookie and a
connection of their own and calls the route that the page's script calls; one judgment is one round trip, which saves it and
returns the next comparison. Afterwards the acknowledged judgments are compared with the database: none may be lost, stored twice,
unacknowledged or beyond the overlap.

With `--label-studio` the same load goes to Label Studio community in turns with ours: as many clients, tasks and judgments
wanted, on the same machine, both servers up all the time. There one judgment is two requests, the next task and the
annotation, timed together. To install it: `python -m venv VENV && VENV/bin/pip install label-studio==1.23.2`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.annotating import LoadTest, Tally
from benchmarks.figures import machine, percentile, spread, verdict
from benchmarks.invariants import problems
from benchmarks.label_studio import LabelStudio

PER_S, P95_MS = 100.0, 300.0


def print_tally(name: str, tally: Tally) -> None:
    print(f"{name:<13} {tally.per_s:7.1f} judgments/s  {spread(tally.took_ms)}")
    for problem, times in tally.problems.most_common(5):
        print(f"{'':<13} {times} times: {problem}")
    if tally.unanswered:
        print(f"{'':<13} {tally.unanswered} requests without an answer")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=50, help="number of concurrent annotators")
    parser.add_argument("--comparisons", type=int, default=8000, help="comparisons prepared on each side")
    parser.add_argument("--overlap", type=int, default=3, help="judgments wanted for each comparison")
    parser.add_argument("--seconds", type=float, default=20, help="length of one turn")
    parser.add_argument("--turns", type=int, default=3, help="turns of each side")
    parser.add_argument("--label-studio", type=Path, metavar="VENV", help="virtual environment with Label Studio; without, ours only")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        room = LoadTest(Path(name), people=args.people, comparisons=args.comparisons, overlap=args.overlap)
        other = args.label_studio and LabelStudio(
            Path(name) / "label-studio", args.label_studio, people=args.people, tasks=args.comparisons, overlap=args.overlap
        )
        try:
            return measure(args, room, other)
        finally:
            room.end()
            if other:
                other.end()


def measure(args: argparse.Namespace, room: LoadTest, other: LabelStudio | None) -> int:
    room.start()
    room.start_training()
    if other:
        other.start()
    print(machine())
    ours, theirs = Tally(), Tally()
    for _ in range(args.turns):
        print_tally("rankloop", turn := room.judge(args.seconds))
        ours.add(turn)
        if other:
            print_tally("Label Studio", turn := other.judge(args.seconds))
            theirs.add(turn)
    print("together:")
    print_tally("rankloop", ours)
    if other:
        print_tally("Label Studio", theirs)
    reconciled = room.reconcile(ours.acknowledged)
    wrong = reconciled.wrong + problems(room.database)
    print(
        f"rankloop: {len(ours.acknowledged):,} acknowledged; lost, duplicated or over-assigned: {len(wrong)}; "
        f"saved and not acknowledged: {reconciled.unacknowledged}"
    )
    for line in wrong[:10]:
        print(f"  {line}")
    if other:
        found = ", ".join(f"{what} {count:,}" for what, count in other.assigned_badly().items())
        print(f"Label Studio {other.version()}: {len(theirs.acknowledged):,} acknowledged; {found}")
        slower = percentile(theirs.took_ms, 95) / percentile(ours.took_ms, 95)
        print(f"ratio: {ours.per_s / theirs.per_s:.1f} times the judgments/s, p95 {slower:.1f} times shorter")
    p95 = percentile(ours.took_ms, 95)
    met = [not wrong and not reconciled.unacknowledged and not ours.problems, ours.per_s >= PER_S, p95 <= P95_MS]
    print(f"nothing lost, duplicated, over-assigned or refused: {verdict(met[0])}")
    print(f"{ours.per_s:.0f} judgments/s; target >= {PER_S:.0f}: {verdict(met[1])}")
    print(f"p95 {p95:.0f} ms; target <= {P95_MS:.0f} ms: {verdict(met[2])}")
    print(machine())
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
