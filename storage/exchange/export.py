"""Exports: reads the votes comparison by comparison, has a format's writer make rows of them, and counts what the rows do not hold.

Two ordered queries are merged, without loading the whole store. A prompt's messages remain the JSON text that is stored.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from storage.content import comparisons
from storage.core.database import Database, StoreError
from storage.core.records import AnnotatorKind, Strength, Tiers
from storage.exchange import sinks, things
from storage.exchange.files import RowProgress
from storage.exchange.rows import Left
from storage.exchange.sinks import Row, Sink
from storage.exchange.things import THINGS
from storage.exchange.tracking import count, left_behind
from storage.judging import completion_labels, demo_votes

PROGRESS_VOTES = 5_000

# CROSS JOIN fixes the join order: all queries read an index in the order of the comparisons, so that SQLite need not sort.
_COMPARISONS = """
SELECT c.id, p.messages, p.kind, p.split, k.id, k.text, v.name
FROM comparisons c
CROSS JOIN prompts p ON p.id = c.prompt_id
CROSS JOIN comparison_completions link ON link.comparison_id = c.id
CROSS JOIN completions k ON k.id = link.completion_id
CROSS JOIN policy_versions v ON v.id = k.policy_version_id
ORDER BY c.id, link.position
"""

_VOTES = f"""
SELECT j.comparison_id, j.id, j.tiers, {{name}}, a.kind, a.rule, j.created_at, j.all_bad, j.strength, j.partial, j.rationale,
    CASE s.sides_known WHEN 1 THEN s.slots END, j.active_ms, j.idle_ms, j.client_ms, j.server_ms,
    (SELECT json_group_array(json_array(r.completion_id, r.aspect, r.rating)) FROM aspect_ratings r WHERE r.judgment_id = j.id),
    (SELECT text FROM ideal_answers i WHERE i.judgment_id = j.id)
FROM judgments j
CROSS JOIN annotators a ON a.id = j.annotator_id
LEFT JOIN presentations s ON s.id = j.presentation_id
WHERE j.counts = 1 AND (a.kind = 'human' OR :simulated) AND coalesce(j.import_id, 0) NOT IN unfinished_imports
    AND {comparisons.NOT_DEMO.format("j.comparison_id")}
ORDER BY j.comparison_id
"""


class ExportedCompletion(NamedTuple):
    id: int
    text: str
    model: str


class ExportedComparison(NamedTuple):
    """A judged comparison with its completions."""

    id: int
    messages: str
    """JSON text, as stored."""
    kind: str
    split: str
    completions: tuple[ExportedCompletion, ...]


class ExportedVote(NamedTuple):
    """A vote with its details. Tiers and slots hold completion ids."""

    id: int
    tiers: Tiers
    annotator: str
    annotator_kind: AnnotatorKind
    rule: str | None
    created_at: str
    all_bad: bool
    strength: Strength | None
    partial: bool
    rationale: str
    slots: tuple[int, ...]
    """In the order of the comparison if nobody recorded what was shown."""
    sides_known: bool
    active_ms: int | None
    idle_ms: int | None
    client_ms: int | None
    server_ms: int | None
    aspects: tuple[tuple[int, str, int], ...]
    ideal: str | None

    @property
    def timed(self) -> bool:
        return (self.active_ms, self.idle_ms, self.client_ms, self.server_ms) != (None, None, None, None)


@dataclass(slots=True)
class Exported:
    """The counts of an export."""

    written: int = 0
    """Rows of the file."""
    judgments: int = 0
    """Judgments that count and were asked for."""
    left_out: int = 0
    """Of those, judgments that no row holds."""
    lost: dict[str, int] = field(default_factory=dict)
    """What the store holds of them, and beside them, that the format cannot hold: by name, in how many judgments."""
    reshaped: dict[str, int] = field(default_factory=dict)
    """What is there in another form, by name, in how many judgments."""
    aside: dict[str, int] = field(default_factory=dict)
    """Judgments that no export holds because they do not count, or that were not asked for."""


Omits = Callable[[frozenset[str], ExportedVote], str | None]
"""Why a format cannot hold a judgment with these things at all, as a name for the summary; None if it can."""


def omits_none(held: frozenset[str], vote: ExportedVote) -> str | None:
    """Leaves out nothing."""
    return None


def without(*names: str) -> Omits:
    """Leaves out judgments with any of these things."""

    def omits(held: frozenset[str], vote: ExportedVote) -> str | None:
        return next((THINGS[name] for name in names if name in held), None)

    return omits


def omits_ties(held: frozenset[str], vote: ExportedVote) -> str | None:
    """Leaves out judgments that put no answer before another."""
    return THINGS["ties"] if len(vote.tiers) < 2 else None


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the votes of a store in one format. Call it with a store and a path."""

    rows: Callable[[ExportedComparison, Sequence[ExportedVote]], Iterable[Row | Left]]
    """The rows of a comparison with its votes, and what they lack that `keeps` cannot tell."""
    keeps: tuple[str, ...] = ()
    """What the rows hold beside the prompt and which of two answers is better, in the words of `THINGS`."""
    omits: Omits = omits_none
    sink: Sink = sinks.lines
    as_pairs: bool = False
    """Whether a ranking of more than two answers is written as all its ordered pairs."""
    labels: Callable[[Database, bool, bool], Iterable[Row]] | None = None
    """The rows of the labels of single answers in a store, with those of rules or not, by name or not; None if the format has no place."""

    def __call__(
        self,
        store: Database,
        path: Path | str,
        *,
        include_simulated: bool = False,
        names: bool = False,
        strict: bool = False,
        progress: RowProgress | None = None,
    ) -> Exported:
        """Writes the votes and returns the counts. The file appears whole or not at all.

        Annotators appear by pseudonym, or with `names` by their names.

        Raises:
            StoreError: the file cannot be written, or something would be lost and `strict` is set.
        """
        exported = Exported()
        with self.sink(path) as write_row, store.snapshot():
            for label in self.labels(store, include_simulated, names) if self.labels else ():
                write_row(label)
                exported.written += 1
            for comparison, votes in grouped(store, simulated=include_simulated, names=names, progress=progress):
                for row in self.rows(comparison, self._counted(comparison, votes, exported)):
                    if isinstance(row, Left):
                        count(exported.lost, row.what, row.count)
                    else:
                        write_row(row)
                        exported.written += 1
            _count_beside(store, exported, include_simulated)
            if not self.labels and (number := sum(completion_labels.counts(store).values())):
                count(exported.lost, "labels of single answers", number)
            if strict and exported.lost:
                raise StoreError(
                    f"{path}: this format cannot hold {left_behind(exported.lost)}: nothing written (--strict). "
                    "jsonl holds all of a judgment, native the whole store."
                )
        return exported

    def _counted(self, comparison: ExportedComparison, votes: Sequence[ExportedVote], exported: Exported) -> list[ExportedVote]:
        """The votes that the format can hold. What it cannot is counted."""
        about = things.of_comparison(comparison)
        kept = []
        for vote in votes:
            held = about.union(things.of_vote(vote))
            exported.judgments += 1
            reason = self.omits(held, vote)
            if reason is None:
                kept.append(vote)
            else:
                exported.left_out += 1
                count(exported.lost, reason)
            for thing in held.difference(self.keeps):
                if THINGS[thing] == reason:
                    continue
                reshaped = thing == "several" and self.as_pairs
                count(exported.reshaped if reshaped else exported.lost, THINGS[thing] + (", as their pairs" if reshaped else ""))
        return kept


_BESIDE = {
    "skipped comparisons": "SELECT count(*) FROM active_judgments j WHERE verdict = 'skip'",
    "judgments that were corrected or taken back": "SELECT count(*) FROM judgments j JOIN judgments later ON later.supersedes = j.id",
    "judgments of known answers and repeats": "SELECT count(*) FROM active_judgments j WHERE verdict = 'rank' AND purpose != 'vote'",
    "flags": "SELECT count(*) FROM flags",
}
"""What people did beside the votes: no format but native holds it."""

_EXCLUDED = "SELECT count(*) FROM active_judgments j WHERE verdict = 'rank' AND purpose = 'vote' AND counts = 0"
_SIMULATED = "SELECT count(*) FROM votes WHERE annotator_kind = 'simulated'"


def _count_beside(store: Database, exported: Exported, simulated: bool) -> None:
    for counts, name, sql in (
        *((exported.lost, name, sql) for name, sql in _BESIDE.items()),
        (exported.aside, "excluded judgments", _EXCLUDED),
        (exported.aside, "votes of the Demo page", demo_votes.COUNT),
        (exported.aside, "simulated judgments (--include-simulated)", "SELECT 0" if simulated else _SIMULATED),
    ):
        if number := int(store.value(sql)):
            count(counts, name, number)


def grouped(
    store: Database, *, simulated: bool = False, names: bool = False, progress: RowProgress | None = None
) -> Iterator[tuple[ExportedComparison, list[ExportedVote]]]:
    """Each comparison that has votes, with its votes, oldest first. Call it inside `store.snapshot()`."""
    total = store.value("SELECT count(*) FROM votes") if progress else 0
    done = 0
    comparisons = _comparisons(store)
    comparison = None
    name = "a.name" if names else "a.pseudonym"
    for comparison_id, rows in groupby(_plain(store, _VOTES.format(name=name), {"simulated": simulated}), key=itemgetter(0)):
        while comparison is None or comparison.id != comparison_id:
            comparison = next(comparisons)
        # Sorting the few votes of one comparison here is faster than a sort in SQLite.
        votes = [_vote(row, comparison) for row in sorted(rows, key=itemgetter(1))]
        yield comparison, votes
        before, done = done, done + len(votes)
        if progress and before // PROGRESS_VOTES != done // PROGRESS_VOTES:
            progress(done, total)
    if progress:
        progress(total, total)


def _comparisons(store: Database) -> Iterator[ExportedComparison]:
    for comparison_id, rows in groupby(_plain(store, _COMPARISONS, {}), key=itemgetter(0)):
        group = list(rows)
        _, messages, kind, split, *_ = group[0]
        yield ExportedComparison(comparison_id, messages, kind, split, tuple(ExportedCompletion(*row[4:]) for row in group))


def _plain(store: Database, sql: str, parameters: dict[str, Any]) -> sqlite3.Cursor:
    """A cursor that yields plain tuples, which take half the time of `sqlite3.Row`."""
    cursor = store.connection.conn.cursor()
    cursor.row_factory = None
    return cursor.execute(sql, parameters)


def _vote(row: tuple[Any, ...], comparison: ExportedComparison) -> ExportedVote:
    _, judgment_id, tiers, name, kind, rule, created_at, all_bad, strength, partial, rationale, *others = row
    slots, active_ms, idle_ms, client_ms, server_ms, aspects, ideal = others
    return ExportedVote(
        judgment_id,
        tuple(tuple(tier) for tier in json.loads(tiers)),
        name,
        kind,
        rule,
        created_at,
        bool(all_bad),
        strength,
        bool(partial),
        rationale,
        tuple(json.loads(slots)) if slots else tuple(item.id for item in comparison.completions),
        slots is not None,
        active_ms,
        idle_ms,
        client_ms,
        server_ms,
        tuple(tuple(rating) for rating in json.loads(aspects)),
        ideal,
    )
