"""Reads the votes for exports, comparison by comparison, by merging two ordered queries without loading the whole store.

Values that an export may not need are not decoded: a prompt's messages remain the JSON text that is stored.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from storage.core.database import Database
from storage.core.records import AnnotatorKind, Strength, Tiers
from storage.exchange.files import Progress

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

_RANKINGS = """
SELECT j.comparison_id, j.id, j.tiers, {name}, a.kind
FROM judgments j CROSS JOIN annotators a ON a.id = j.annotator_id
WHERE j.counts = 1 AND (a.kind = 'human' OR :simulated) AND coalesce(j.import_id, 0) NOT IN unfinished_imports
ORDER BY j.comparison_id
"""

_VOTES = """
SELECT j.comparison_id, j.id, j.tiers, {name}, a.kind, a.rule, j.created_at, j.all_bad, j.strength, j.partial, j.rationale,
    CASE s.sides_known WHEN 1 THEN s.slots END, j.active_ms, j.idle_ms, j.client_ms, j.server_ms,
    (SELECT json_group_array(json_array(r.completion_id, r.aspect, r.rating)) FROM aspect_ratings r WHERE r.judgment_id = j.id),
    (SELECT text FROM ideal_answers i WHERE i.judgment_id = j.id)
FROM judgments j
CROSS JOIN annotators a ON a.id = j.annotator_id
LEFT JOIN presentations s ON s.id = j.presentation_id
WHERE j.counts = 1 AND (a.kind = 'human' OR :simulated) AND coalesce(j.import_id, 0) NOT IN unfinished_imports
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


def grouped(
    store: Database, *, simulated: bool = False, names: bool = False, progress: Progress | None = None
) -> Iterator[tuple[ExportedComparison, list[ExportedVote]]]:
    """Each comparison that has votes, with its votes, oldest first. Call it inside `store.snapshot()`.

    Annotators are named by pseudonym, or with `names` by their names.
    """
    for comparison, rows in merged(store, _VOTES, simulated=simulated, names=names, progress=progress):
        yield comparison, [_vote(row, comparison) for row in rows]


def merged(
    store: Database, sql: str = _RANKINGS, *, simulated: bool = False, names: bool = False, progress: Progress | None = None
) -> Iterator[tuple[ExportedComparison, list[tuple[Any, ...]]]]:
    """As `grouped`, with votes as tuples: (comparison id, judgment id, tiers as JSON, annotator, kind of annotator)."""
    total = store.value("SELECT count(*) FROM votes") if progress else 0
    done = 0
    comparisons = _comparisons(store)
    comparison = None
    name = "a.name" if names else "a.pseudonym"
    for comparison_id, rows in groupby(_plain(store, sql.format(name=name), {"simulated": simulated}), key=itemgetter(0)):
        while comparison is None or comparison.id != comparison_id:
            comparison = next(comparisons)
        # Sorting the few votes of one comparison here is faster than a sort in SQLite.
        votes = sorted(rows, key=itemgetter(1))
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
