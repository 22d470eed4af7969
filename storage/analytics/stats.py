"""Counts of prompts, comparisons, judgments, runs and the other rows of the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, NamedTuple

from storage.content import prompts
from storage.core.database import Database
from storage.judging import completion_labels, demo_votes, queue


def stats(store: Database) -> dict[str, Any]:
    """Counts from one snapshot of the store. Judgments and labels are the active ones, skips included; runs are counted by status."""
    with store.snapshot():
        judgments = _by(store, "SELECT kind, sum(judged) FROM annotators GROUP BY kind")
        annotators = _by(
            store, "SELECT kind, count(*) FROM annotators WHERE coalesce(import_id, 0) NOT IN unfinished_imports GROUP BY kind"
        )
        return {
            "prompts": _finished(store, "prompts"),
            "prompts_in_use": store.value(f"SELECT count(*) FROM prompts WHERE {prompts.IN_USE}"),
            "unused_starter_votes": prompts.unused_starter_votes(store),
            "completions": _finished(store, "completions", _COMPLETIONS),
            "comparisons": _finished(store, "comparisons"),
            "judgments": {"human": 0, "simulated": 0} | judgments,
            "demo_votes": demo_votes.count(store),
            "labels_not_used_in_training": completion_labels.counts(store),
            "annotators": {"human": 0, "simulated": 0} | annotators,
            "runs": _by(store, "SELECT status, count(*) FROM runs GROUP BY status"),
            "policy_versions": _finished(store, "policy_versions"),
            "queue_depth": queue.depth(store),
        }


@dataclass(frozen=True, slots=True)
class DayOfJudging:
    """Numbers of active judgments of one day."""

    date: str
    """ISO 8601, in UTC."""
    people: int
    simulated: int


def judgments_by_day(store: Database, *, last: date, days: int) -> list[DayOfJudging]:
    """The `days` days up to `last`, oldest first, also those without a judgment. Imported judgments count on the day they were made."""
    dates = [(last - timedelta(days=ago)).isoformat() for ago in range(days - 1, -1, -1)]
    rows = store.rows(
        "SELECT substr(created_at, 1, 10) AS day, annotator_kind, count(*) FROM active_judgments"
        " WHERE created_at >= ? GROUP BY day, annotator_kind",
        [dates[0]],
    )
    counts = {(day, kind): number for day, kind, number in rows}
    return [DayOfJudging(day, counts.get((day, "human"), 0), counts.get((day, "simulated"), 0)) for day in dates]


class Pace(NamedTuple):
    """The votes that people have made here, imported ones left out."""

    votes: int
    """All that count."""
    recent: int
    """Of those, since a day."""
    people: int
    """Annotators who made the recent ones."""
    first: date | None
    """The day of the first vote; None before there is one."""


def pace(store: Database, *, since: date) -> Pace:
    """How many votes there are, and how many of them were made on this day or later, in UTC."""
    row = store.row(
        "SELECT count(*) AS votes, coalesce(sum(created_at >= ?1), 0) AS recent,"
        " count(DISTINCT CASE WHEN created_at >= ?1 THEN annotator_id END) AS people, min(created_at) AS first"
        " FROM votes WHERE annotator_kind = 'human' AND import_id IS NULL",
        [since.isoformat()],
    )
    assert row is not None, "a count has a row"
    return Pace(row["votes"], row["recent"], row["people"], date.fromisoformat(row["first"][:10]) if row["first"] else None)


_COMPLETIONS = """
(SELECT completion_id FROM comparison_completions WHERE comparison_id IN (SELECT id FROM comparisons WHERE import_id IN unfinished_imports)
UNION ALL SELECT completion_id FROM completion_labels WHERE import_id IN unfinished_imports)
"""


def _finished(store: Database, table: str, unfinished: str = "") -> int:
    """Rows of a table without those of an unfinished import. Counting all rows and subtracting reads the fewest pages."""
    of_imports = unfinished or f"{table} WHERE import_id IN unfinished_imports"
    return int(store.value(f"SELECT (SELECT count(*) FROM {table}) - (SELECT count(*) FROM {of_imports})"))


def _by(store: Database, sql: str) -> dict[str, int]:
    return {row[0]: row[1] for row in store.rows(sql)}
