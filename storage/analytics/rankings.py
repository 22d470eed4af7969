"""Reads all rankings as NumPy columns, for statistics: a few bytes per vote instead of an object.

The statistics are computed in `rlhf.analysis.agreement` and `rlhf.analysis.leaderboard`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int64

from storage.content import comparisons as comparison_table
from storage.content import prompts as prompt_table
from storage.core.database import Database, to_json
from storage.core.records import AnnotatorKind, Purpose

BATCH_ROWS = 50_000

PURPOSES: tuple[Purpose, ...] = ("vote", "gold", "repeat")
"""`Rankings.purpose` holds indexes into this tuple."""

BRACKETS_TO_BLANKS = str.maketrans("[]", "  ")

UNFINISHED = "(SELECT id FROM comparisons WHERE import_id IN unfinished_imports)"
"""Comparisons of an import that is being written."""

COMPLETIONS = f"""
SELECT comparison_id, position, completion_id FROM comparison_completions
WHERE comparison_id NOT IN {UNFINISHED} ORDER BY comparison_id, position
"""

POLICY_VERSIONS = f"""
SELECT cc.comparison_id, cc.position, c.policy_version_id
FROM comparison_completions cc JOIN completions c ON c.id = cc.completion_id
WHERE cc.comparison_id NOT IN {UNFINISHED} ORDER BY cc.comparison_id, cc.position
"""

JUDGED_TEXTS = f"""
SELECT cc.comparison_id, cc.position, {{column}}
FROM comparison_completions cc JOIN completions c ON c.id = cc.completion_id
WHERE cc.comparison_id NOT IN {UNFINISHED} AND EXISTS (SELECT 1 FROM judgments j WHERE j.comparison_id = cc.comparison_id)
"""

RANKINGS = f"""
SELECT j.id, j.comparison_id, j.annotator_id, j.purpose, coalesce(j.active_ms, -1),
    CASE p.sides_known WHEN 1 THEN CAST(substr(p.slots, 2) AS INTEGER) ELSE -1 END, coalesce(p.sides_known, 1), j.tiers
FROM judgments j JOIN annotators a ON a.id = j.annotator_id LEFT JOIN presentations p ON p.id = j.presentation_id
WHERE j.verdict = 'rank' AND a.kind IN (SELECT value FROM json_each(?)) AND coalesce(j.import_id, 0) NOT IN hidden_imports
    AND j.comparison_id NOT IN (
        SELECT id FROM comparisons WHERE prompt_id IN ({prompt_table.UNUSED_STARTERS}) OR purpose = '{comparison_table.DEMO}'
    ) AND (
    j.counts = 1
    OR j.purpose != 'vote'
        AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = j.id)
        AND NOT EXISTS (
            SELECT 1 FROM excluded_judgments e
            WHERE e.judgment_id = j.id AND e.exclusion_id NOT IN (SELECT exclusion_id FROM exclusion_lifts)
        )
)
ORDER BY j.id
"""
"""The cast reads the first number of the slots, `[12,15]`: the completion that was shown first. SQLite ignores the rest of the text."""


@dataclass(frozen=True, slots=True)
class Rankings:
    """The active rankings that are not excluded, a row each: n rankings of c comparisons of up to k completions.

    Rows are in the order in which they were written; those of one annotator on one comparison are in the order of their times.

    A completion is identified by its position in the comparison, which is the same for every annotator.
    """

    judgment: Int64[np.ndarray, " n"]
    comparison: Int64[np.ndarray, " n"]
    """Row of `comparisons`."""
    annotator: Int64[np.ndarray, " n"]
    purpose: Int8[np.ndarray, " n"]
    """Index into `PURPOSES`. Only votes that count are read."""
    active_s: Float32[np.ndarray, " n"]
    """Seconds of active time; NaN where none was measured."""
    first_shown: Int8[np.ndarray, " n"]
    """Position of the completion that this annotator saw first (left); -1 where that was not recorded, as in many imports."""
    sides_known: Bool[np.ndarray, " n"]
    """False for a vote of a file that does not record what was shown where: the order of its completions may depend on the vote."""
    ranks: Int8[np.ndarray, "n k"]
    """Tier of the completion at each position, 0 the best; -1 where it is not ranked, or there is no completion."""
    comparisons: Int64[np.ndarray, " c"]
    """Ids of all comparisons, ascending, also of those without a ranking."""
    sizes: Int8[np.ndarray, " c"]
    """Number of completions in each comparison."""

    def where(self, rows: Bool[np.ndarray, " n"] | Int64[np.ndarray, " m"]) -> Rankings:
        """The selected rankings, with the same comparisons."""
        per_ranking = [f.name for f in fields(self) if f.name not in ("comparisons", "sizes")]
        return replace(self, **{name: getattr(self, name)[rows] for name in per_ranking})


def read(store: Database, *, kinds: Sequence[AnnotatorKind] = ("human",)) -> Rankings:
    """All rankings by these kinds of annotators, from one snapshot of the store: about 60 bytes for a ranking of two completions.

    Left out are those of starter prompts that do not serve, which `storage.content.prompts.unused_starter_votes` counts, and those of the
    Demo page, which `storage.judging.demo_votes.count` counts.
    """
    with store.snapshot():
        ids, completions = _by_position(store, COMPLETIONS)
        batches = [_columns(rows, ids, completions) for rows in _batches(store, kinds)]
        columns = [np.concatenate(parts) for parts in zip(*batches, strict=True)] if batches else _empty_columns(completions.shape[1])
        columns += [ids, (completions >= 0).sum(axis=1).astype(np.int8)]
        return _by_time(store, Rankings(*columns))


def policy_versions(store: Database) -> Int64[np.ndarray, "c k"]:
    """Policy version by comparison and position, in the order of `Rankings.comparisons`; -1 where there is no completion."""
    return _by_position(store, POLICY_VERSIONS)[1]


def judged_texts(store: Database) -> Iterator[tuple[int, int, str]]:
    """Comparison id, position and text of the completions of all judged comparisons, one at a time."""
    cursor = store.rows(JUDGED_TEXTS.format(column="c.text"))
    cursor.row_factory = None
    return cursor


def judged_lengths(store: Database) -> Iterator[tuple[int, int, int]]:
    """As `judged_texts`, with the characters of each text in its place."""
    cursor = store.rows(JUDGED_TEXTS.format(column="length(c.text)"))
    cursor.row_factory = None
    return cursor


def prompts(store: Database) -> Int64[np.ndarray, " c"]:
    """Prompt by comparison, in the order of `Rankings.comparisons`."""
    rows = store.rows(
        "SELECT prompt_id FROM comparisons c WHERE coalesce(c.import_id, 0) NOT IN unfinished_imports "
        "AND EXISTS (SELECT 1 FROM comparison_completions cc WHERE cc.comparison_id = c.id) ORDER BY id"
    )
    return np.fromiter(chain.from_iterable(rows), dtype=np.int64)


def excluded(store: Database) -> dict[int, int]:
    """Number of excluded judgments by annotator id; annotators without one are left out."""
    rows = store.rows(
        "SELECT j.annotator_id, count(DISTINCT j.id) FROM excluded_judgments e JOIN judgments j ON j.id = e.judgment_id "
        "WHERE e.exclusion_id NOT IN (SELECT exclusion_id FROM exclusion_lifts) GROUP BY j.annotator_id"
    )
    return {row[0]: row[1] for row in rows}


def by_day(store: Database, annotator_id: int, *, minutes_east: int = 0) -> dict[str, int]:
    """Number of active judgments, skips included, of this annotator on each day (`2026-11-23`), newest day first.

    Days begin at midnight of a time zone that is `minutes_east` ahead of UTC.
    """
    rows = store.rows(
        "SELECT date(created_at, ? || ' minutes') AS day, count(*) FROM active_judgments "
        "WHERE annotator_id = ? GROUP BY day ORDER BY day DESC",
        [minutes_east, annotator_id],
    )
    return {row[0]: row[1] for row in rows}


def _by_time(store: Database, rankings: Rankings) -> Rankings:
    """Sorts the rankings that one annotator gave one comparison by their times. A file may list them in any order."""
    key = rankings.comparison * (int(rankings.annotator.max(initial=0)) + 1) + rankings.annotator
    _, group, number = np.unique(key, return_inverse=True, return_counts=True)
    several = np.flatnonzero(number[group] > 1)
    if not len(several):
        return rankings
    judgments = rankings.judgment[several].tolist()
    times = store.rows("SELECT id, created_at FROM judgments WHERE id IN (SELECT value FROM json_each(?))", [to_json(judgments)])
    time_of = {judgment_id: created_at for judgment_id, created_at in times}
    _, time = np.unique([time_of[judgment_id] for judgment_id in judgments], return_inverse=True)
    rows = np.arange(len(rankings.judgment))
    # Both sorts keep the order of rows with equal keys.
    rows[several[np.argsort(group[several], kind="stable")]] = several[np.lexsort((time, group[several]))]
    return rankings.where(rows)


def _by_position(store: Database, sql: str) -> tuple[Int64[np.ndarray, " c"], Int64[np.ndarray, "c k"]]:
    """Comparison ids, and the query's third column by comparison and position; -1 where a comparison has no such position."""
    cursor = store.rows(sql)
    cursor.row_factory = None
    table = np.fromiter(chain.from_iterable(cursor), dtype=np.int64).reshape(-1, 3)
    ids, row = np.unique(table[:, 0], return_inverse=True)
    filled = np.full((len(ids), int(table[:, 1].max(initial=1)) + 1), -1, dtype=np.int64)
    filled[row, table[:, 1]] = table[:, 2]
    return ids, filled


def _batches(store: Database, kinds: Sequence[AnnotatorKind]) -> Iterator[list[tuple[Any, ...]]]:
    cursor = store.rows(RANKINGS, [to_json(list(kinds))])
    cursor.row_factory = None
    while rows := cursor.fetchmany(BATCH_ROWS):
        yield rows


def _columns(rows: list[tuple[Any, ...]], ids: Int64[np.ndarray, " c"], completions: Int64[np.ndarray, "c k"]) -> tuple[np.ndarray, ...]:
    """The columns of `Rankings` for some rows, in the order of its fields."""
    judgment, comparison_id, annotator, purpose, active_ms, first_id, sides_known, tiers = zip(*rows, strict=True)
    comparison = np.searchsorted(ids, np.array(comparison_id, dtype=np.int64))
    shown = completions[comparison]
    active = np.array(active_ms, dtype=np.float32)
    return (
        np.array(judgment, dtype=np.int64),
        comparison,
        np.array(annotator, dtype=np.int64),
        np.array([PURPOSES.index(p) for p in purpose], dtype=np.int8),
        np.where(active < 0, np.float32(np.nan), active / 1000),
        _position(shown, np.array(first_id, dtype=np.int64)),
        np.array(sides_known, dtype=bool),
        _ranks(tiers, shown),
    )


def _ranks(tiers: Sequence[str], shown: Int64[np.ndarray, "n k"]) -> Int8[np.ndarray, "n k"]:
    """The tier of each position, from JSON tiers of completion ids such as `[[12],[15,11]]`.

    All texts are joined and parsed with array operations: creating a million Python lists would take seconds in the garbage collector.
    """
    text = ",".join(tiers)
    letters = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    opens = letters == ord("[")
    depth = np.cumsum(opens.view(np.int8) - (letters == ord("]")).view(np.int8), dtype=np.int8)
    digit = (letters >= ord("0")) & (letters <= ord("9"))
    starts = np.flatnonzero(digit & ~np.concatenate([[False], digit[:-1]]))
    ranking = (np.cumsum(opens & (depth == 1), dtype=np.int64) - 1)[starts]
    tier = np.cumsum(opens & (depth == 2), dtype=np.int64)[starts]
    # Tiers are numbered over all rankings: the tier of a ranking's first completion is subtracted.
    tier -= tier[np.searchsorted(ranking, ranking)]
    completion = np.fromstring(text.translate(BRACKETS_TO_BLANKS), dtype=np.int64, sep=",")
    ranks = np.full(shown.shape, -1, dtype=np.int8)
    ranks[ranking, _position(shown[ranking], completion)] = tier
    return ranks


def _position(shown: Int64[np.ndarray, "n k"], completion: Int64[np.ndarray, " n"]) -> Int8[np.ndarray, " n"]:
    """The position of each completion in its row; -1 where the row does not have it."""
    same = shown == completion[:, None]
    return np.where((completion >= 0) & same.any(axis=1), same.argmax(axis=1), -1).astype(np.int8)


def _empty_columns(k: int) -> list[np.ndarray]:
    integers, small = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int8)
    return [
        integers,
        integers,
        integers,
        small,
        np.empty(0, dtype=np.float32),
        small,
        np.empty(0, dtype=bool),
        np.empty((0, k), dtype=np.int8),
    ]
