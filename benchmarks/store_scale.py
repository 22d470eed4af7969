"""Compares the store's latencies at a million comparisons with those at ten thousand: `python benchmarks/store_scale.py`.

Two stores are filled (`benchmarks/filling.py`; the large one takes some minutes and 4 GB of disk) and checked, then used in
turns, so that other load on the machine affects both alike: `queue.next_presentation` and the `judgments.save` that
answers it, by new annotators and by those with the most judgments. Gold comparisons and repeats are
switched on. Every act is synced to the disk; the cost of a bare commit is printed first.

The export is measured against a bare `sqlite3` loop that writes the same rows, in turns too.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import itertools
import json
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import machine, percentile, spread, verdict
from benchmarks.filling import fill, old_people
from benchmarks.invariants import problems
from storage.core.database import Database
from storage.core.records import Annotator
from storage.exchange import trl
from storage.judging import judgments, queue
from storage.people import annotators

NEXT_P99_MS, SAVE_P99_MS, GROWTH = 5.0, 10.0, 1.5
PAIRS_PER_S, OF_BARE = 100_000, 2.0

FRESH = 40
"""Number of new annotators."""

TURNS = 10
"""Number of turns of each store."""

BARE = """
SELECT j.id, j.tiers, a.pseudonym, a.kind, p.messages, p.kind, p.split, j.created_at, c.id, c.text, v.name
FROM judgments j JOIN annotators a ON a.id = j.annotator_id JOIN comparisons k ON k.id = j.comparison_id
JOIN prompts p ON p.id = k.prompt_id JOIN comparison_completions l ON l.comparison_id = k.id
JOIN completions c ON c.id = l.completion_id JOIN policy_versions v ON v.id = c.policy_version_id
WHERE j.counts = 1 AND a.kind = 'human' ORDER BY j.id
"""


@dataclass
class MeasuredStore:
    """One store and its measured latencies, in milliseconds."""

    name: str
    store: Database
    fresh: list[Annotator]
    old: list[Annotator]
    took: dict[str, list[float]] = field(default_factory=lambda: {"next, new": [], "next, old": [], "save": []})

    def turn(self, acts: int, rng: random.Random) -> None:
        """Fetches and judges `acts` comparisons, half of them by new annotators."""
        for n in range(acts):
            kind, person = ("new", rng.choice(self.fresh)) if n % 2 else ("old", rng.choice(self.old))
            began = time.perf_counter()
            shown = queue.next_presentation(self.store, person.id)
            shown_at = time.perf_counter()
            if shown is None:
                raise SystemExit(f"{self.name}: no comparison is left for {person.name}: lower --acts")
            order = shown[1].order
            saving = time.perf_counter()
            judgments.save(self.store, shown[1].id, person.id, verdict="rank", tiers=tuple((c,) for c in order))
            saved = time.perf_counter()
            self.took[f"next, {kind}"].append(1000 * (shown_at - began))
            self.took["save"].append(1000 * (saved - saving))

    @property
    def asked(self) -> list[float]:
        return self.took["next, new"] + self.took["next, old"]


def ready(path: Path, comparisons: int) -> MeasuredStore:
    """A store of this size; filled and checked unless an earlier run has done so."""
    if not path.exists():
        path.parent.mkdir(parents=True)
        seconds = fill(path, comparisons)
        print(f"{path}: filled in {seconds:.0f} s; checking the invariants", flush=True)
        if broken := problems(path):
            raise SystemExit(f"{path}: " + "; ".join(broken))
    store = Database(path)
    fresh = [annotators.ensure(store, f"new {n:02}") for n in range(FRESH)]
    old = [a for a in annotators.all_annotators(store) if a.judged and a.name in old_people()]
    old.sort(key=lambda annotator: -annotator.judged)
    written = store.value("SELECT count(*) FROM judgments")
    print(
        f"{comparisons:,} comparisons, {written:,} judgments, busiest annotator {old[0].judged:,}, "
        f"{path.stat().st_size / 1e6:,.0f} MB", flush=True,
    )  # fmt: skip
    return MeasuredStore(f"{comparisons:,}", store, fresh, old)


def bare_commits(folder: Path, count: int = 300) -> list[float]:
    """Milliseconds of a transaction that writes one row, as durable as the store's own."""
    path = folder / "bare.db"
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
    took = []
    for _ in range(count):
        began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t (text) VALUES (?)", ["x" * 300])
        connection.execute("COMMIT")
        took.append(1000 * (time.perf_counter() - began))
    connection.close()
    return took


def bare_export(database: Path, target: Path) -> int:
    """Writes the same file as `storage.exchange.trl`, in a minimal loop."""
    connection = sqlite3.connect(database)
    written = 0
    with target.open("w", encoding="utf-8", newline="\n") as file:
        for (_, tiers, annotator, annotator_kind, messages, kind, split, created_at), rows in itertools.groupby(
            connection.execute(BARE), key=lambda row: row[:8]
        ):
            answers = {row[8]: row[9:] for row in rows}
            prompt = json.loads(messages)
            for better, worse in judgments.ordered_pairs(json.loads(tiers)):
                (chosen, chosen_model), (rejected, rejected_model) = answers[better], answers[worse]
                row = {
                    "prompt": prompt,
                    "chosen": [{"role": "assistant", "content": chosen}],
                    "rejected": [{"role": "assistant", "content": rejected}],
                    "chosen_model": chosen_model,
                    "rejected_model": rejected_model,
                    "annotator": annotator,
                    "annotator_kind": annotator_kind,
                    "created_at": created_at,
                    "kind": kind,
                    "split": split,
                }
                file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
                written += 1
        file.flush()
        os.fsync(file.fileno())
    connection.close()
    return written


def rate(export: Callable[[], int]) -> tuple[float, int]:
    """Pairs per second, and the number of pairs."""
    gc.collect()
    began = time.perf_counter()
    written = export()
    return written / (time.perf_counter() - began), written


def fingerprint(path: Path) -> int:
    """A hash of the lines that does not depend on their order."""
    with path.open("rb") as file:
        return sum(int.from_bytes(hashlib.sha256(line).digest()[:8]) for line in file) % 2**64


def compare_exports(store: Database, folder: Path, times: int) -> bool:
    """Prints both rates; returns whether the target is met."""
    ours, bare = folder / "ours.jsonl", folder / "bare.jsonl"
    rates: dict[str, list[float]] = {"rankloop": [], "bare sqlite3": []}
    for _ in range(times):
        ours.unlink(missing_ok=True)
        per_s, pairs = rate(lambda: trl.write(store, ours).written)
        rates["rankloop"].append(per_s)
        bare.unlink(missing_ok=True)
        per_s, bare_pairs = rate(lambda: bare_export(store.path, bare))
        rates["bare sqlite3"].append(per_s)
    if pairs != bare_pairs or fingerprint(ours) != fingerprint(bare):
        raise SystemExit(f"the two exports differ ({pairs} and {bare_pairs} pairs): not a measurement")
    ours.unlink()
    bare.unlink()
    best = {name: max(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"export, {name:<13} {' '.join(f'{value:9,.0f}' for value in values)} pairs/s ({pairs:,} pairs, the same lines)")
    ratio = best["bare sqlite3"] / best["rankloop"]
    met = best["rankloop"] >= PAIRS_PER_S or ratio <= OF_BARE
    print(f"export: the bare loop is {ratio:.2f} times as fast; target >= {PAIRS_PER_S:,} pairs/s or <= {OF_BARE}: {verdict(met)}")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=10_000, help="comparisons in the small store")
    parser.add_argument("--large", type=int, default=1_000_000, help="comparisons in the large store")
    parser.add_argument("--acts", type=int, default=2_000, help="comparisons fetched and judged in each store")
    parser.add_argument("--exports", type=int, default=2, help="exports by each side; 0 leaves them out")
    parser.add_argument("--folder", type=Path, help="folder of the stores, which a second run uses again; a temporary one by default")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="rankloop-scale-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        met = measure(args, folder)
    finally:
        if args.folder is None:
            shutil.rmtree(folder)
    return 0 if met else 1


def measure(args: argparse.Namespace, folder: Path) -> bool:
    print(machine())
    print(f"one bare commit:     {spread(bare_commits(folder))}")
    used = [ready(folder / str(comparisons) / "rankloop.db", comparisons) for comparisons in (args.small, args.large)]
    rng = random.Random(0)
    for _ in range(TURNS):
        for one in used:
            one.turn(args.acts // TURNS, rng)
    for one in used:
        for act, took in one.took.items():
            print(f"{one.name:>9} {act:<10} {spread(took)}")
    small, large = used
    next_p99, save_p99 = percentile(large.asked, 99), percentile(large.took["save"], 99)
    growth = next_p99 / percentile(small.asked, 99)
    met = [next_p99 <= NEXT_P99_MS, growth <= GROWTH, save_p99 <= SAVE_P99_MS]
    print(f"next comparison p99 at {large.name}: {next_p99:.2f} ms; target <= {NEXT_P99_MS} ms: {verdict(met[0])}")
    print(f"  and {growth:.2f} times its figure at {small.name}; target <= {GROWTH}: {verdict(met[1])}")
    print(f"save p99 at {large.name}: {save_p99:.2f} ms; target <= {SAVE_P99_MS} ms: {verdict(met[2])}")
    for one in used:
        if broken := problems(one.store.path, deep=False):
            raise SystemExit(f"{one.store.path} after the acts: " + "; ".join(broken))
    if args.exports:
        met.append(compare_exports(large.store, folder, args.exports))
    for one in used:
        one.store.close()
    print(machine())
    return all(met)


if __name__ == "__main__":
    sys.exit(main())
