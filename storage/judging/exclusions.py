"""Exclusions: rows with a rule and a reason for which judgments do not count as votes. Lifting an exclusion adds a row as well.

The judgment's own row is not changed except for `counts`, which triggers set to 0. That puts its comparison back in the queue.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from storage.core.database import Database, StoreError, now, to_json
from storage.core.records import Exclusion

_SELECT = """
SELECT e.*, l.created_at AS lifted_at,
    (SELECT count(*) FROM excluded_judgments x WHERE x.exclusion_id = e.id) AS judgments,
    (SELECT json_group_array(DISTINCT j.annotator_id) FROM excluded_judgments x JOIN judgments j ON j.id = x.judgment_id
        WHERE x.exclusion_id = e.id) AS annotator_ids
FROM exclusions e LEFT JOIN exclusion_lifts l ON l.exclusion_id = e.id
"""


def exclude(store: Database, judgment_ids: Iterable[int], *, rule: str, reason: str, by: int | None) -> Exclusion:
    """Excludes these judgments: they no longer count as votes.

    Args:
        rule: the kind of exclusion, always in the same words: `gold accuracy`, `too fast`, `asked by the annotator`.
        reason: the explanation that the annotator reads.

    Raises:
        StoreError: there is no judgment, one of the ids is unknown, or the rule or the reason is empty.
    """
    ids = sorted(set(judgment_ids))
    rule, reason = rule.strip(), reason.strip()
    if not ids:
        raise StoreError("There is no judgment to exclude: choose at least one.")
    if not rule or not reason:
        raise StoreError("An exclusion needs a rule and a reason: the annotator is shown both.")
    with store.atomic() as connection:
        superseded = store.value(
            "SELECT min(supersedes) FROM judgments WHERE supersedes IN (SELECT value FROM json_each(?))", [to_json(ids)]
        )
        if superseded is not None:
            raise StoreError(f"Judgment {superseded} was corrected or undone meanwhile: reload the page and choose again.")
        exclusion_id = store.insert("exclusions", {"rule": rule, "reason": reason, "by_id": by, "created_at": now()})
        try:
            connection.conn.execute(
                "INSERT INTO excluded_judgments (judgment_id, exclusion_id) SELECT value, ? FROM json_each(?)",
                [exclusion_id, to_json(ids)],
            )
        except sqlite3.IntegrityError as error:
            raise StoreError("One of the judgments to exclude is not in the store: reload the page.") from error
        return get(store, exclusion_id)


def active(store: Database, judgment_ids: Iterable[int]) -> set[int]:
    """Those of the judgments that were not corrected or undone."""
    ids = set(judgment_ids)
    superseded = store.rows("SELECT supersedes FROM judgments WHERE supersedes IN (SELECT value FROM json_each(?))", [to_json(sorted(ids))])
    return ids - {row["supersedes"] for row in superseded}


def begin(store: Database, *, rule: str, reason: str, by: int | None) -> int:
    """Adds an exclusion without judgments and returns its id: `add` names them, a slice at a time."""
    return store.insert("exclusions", {"rule": rule, "reason": reason, "by_id": by, "created_at": now()})


def add(store: Database, exclusion_id: int, judgment_ids: Sequence[int]) -> None:
    """Adds judgments to an exclusion, unless they are in it or were corrected or undone. Call it inside `atomic`."""
    store.connection.conn.execute(
        "INSERT OR IGNORE INTO excluded_judgments (judgment_id, exclusion_id) SELECT value, ? FROM json_each(?) "
        "WHERE NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = value)",
        [exclusion_id, to_json(judgment_ids)],
    )


def exclude_annotator(store: Database, annotator_id: int, *, rule: str, reason: str, by: int | None, since: str = "") -> Exclusion:
    """Excludes every vote of one annotator that counts now and was made at `since` or later (ISO 8601 UTC).

    The annotator's rankings of gold comparisons and repeats are excluded too, although they never count: the annotator can
    see which judgments are excluded, and a judgment missing from that list would be recognised as gold or a repeat.

    Raises:
        StoreError: none of their judgments counts.
    """
    with store.atomic():
        return exclude(store, ids_of_annotator(store, annotator_id, since), rule=rule, reason=reason, by=by)


def ids_of_annotator(store: Database, annotator_id: int, since: str = "") -> list[int]:
    """The judgments that `exclude_annotator` excludes; none if no vote among them counts."""
    rows = store.rows(
        "SELECT id, counts FROM active_judgments WHERE annotator_id = :annotator AND created_at >= :since AND (counts = 1 OR "
        "purpose != 'vote' AND verdict = 'rank' AND NOT EXISTS (SELECT 1 FROM excluded_judgments x WHERE x.judgment_id = "
        "active_judgments.id AND x.exclusion_id NOT IN (SELECT exclusion_id FROM exclusion_lifts)))",
        {"annotator": annotator_id, "since": since},
    ).fetchall()
    return [row["id"] for row in rows] if any(row["counts"] for row in rows) else []


@dataclass(frozen=True, slots=True)
class Effect:
    """What an exclusion would change."""

    votes: int
    """Votes that would stop counting."""
    all_votes: int
    """Votes that count now, of everybody."""
    reopened: int
    """Comparisons that would need another vote and go back to the queue."""


def effect(store: Database, judgment_ids: Iterable[int]) -> Effect:
    """What excluding these judgments would change; nothing is changed."""
    ids = to_json(sorted(set(judgment_ids)))
    named = "id IN (SELECT value FROM json_each(?)) AND id IN (SELECT id FROM votes)"
    reopened = f"""
        SELECT count(*) FROM comparisons c JOIN (
            SELECT comparison_id, count(*) AS number FROM judgments j WHERE {named}
                AND (SELECT kind FROM annotators WHERE annotators.id = j.annotator_id) = 'human' GROUP BY comparison_id
        ) gone ON gone.comparison_id = c.id
        WHERE c.retired = 0 AND c.gold = 0 AND c.human_ranks - gone.number + c.leased < c.wanted"""
    with store.snapshot():
        return Effect(
            int(store.value(f"SELECT count(*) FROM judgments WHERE {named}", [ids])),
            int(store.value("SELECT count(*) FROM votes")),
            int(store.value(reopened, [ids])),
        )


def lift(store: Database, exclusion_id: int, *, reason: str, by: int | None) -> Exclusion:
    """Makes the judgments count again, unless another exclusion names them too.

    Raises:
        StoreError: there is no such exclusion, it was lifted before, or the reason is empty.
    """
    if not reason.strip():
        raise StoreError("Lifting an exclusion needs a reason.")
    with store.atomic():
        if get(store, exclusion_id).lifted_at is not None:
            raise StoreError(f"Exclusion {exclusion_id} was lifted before: there is nothing left to do.")
        store.insert(
            "exclusion_lifts",
            {"exclusion_id": exclusion_id, "reason": reason.strip(), "by_id": by, "created_at": now()},
        )
        return get(store, exclusion_id)


def get(store: Database, exclusion_id: int) -> Exclusion:
    """One exclusion.

    Raises:
        StoreError: there is none with this id.
    """
    row = store.row(f"{_SELECT} WHERE e.id = ?", [exclusion_id])
    if row is None:
        raise StoreError(f"There is no exclusion {exclusion_id}: reload the page.")
    return _from_row(row)


def of_judgment(store: Database, judgment_id: int) -> list[Exclusion]:
    """The exclusions of this judgment that are not lifted, oldest first."""
    return of_judgments(store, [judgment_id]).get(judgment_id, [])


def of_judgments(store: Database, judgment_ids: Iterable[int]) -> dict[int, list[Exclusion]]:
    """As `of_judgment`, for many judgments at once. Judgments without an exclusion have no entry."""
    by_judgment: dict[int, list[Exclusion]] = {}
    links = store.rows(
        "SELECT x.judgment_id, x.exclusion_id FROM excluded_judgments x WHERE x.judgment_id IN (SELECT value FROM json_each(?)) "
        "AND x.exclusion_id NOT IN (SELECT exclusion_id FROM exclusion_lifts) ORDER BY x.exclusion_id",
        [to_json(list(judgment_ids))],
    ).fetchall()
    exclusion_of = {exclusion_id: get(store, exclusion_id) for exclusion_id in {link["exclusion_id"] for link in links}}
    for link in links:
        by_judgment.setdefault(link["judgment_id"], []).append(exclusion_of[link["exclusion_id"]])
    return by_judgment


def of_presentation(store: Database, presentation_id: int) -> list[int]:
    """Ids of the exclusions, not lifted, of any judgment ever made of a presentation, superseded ones included."""
    rows = store.rows(
        "SELECT DISTINCT x.exclusion_id FROM judgments j JOIN excluded_judgments x ON x.judgment_id = j.id "
        "WHERE j.presentation_id = ? AND x.exclusion_id NOT IN (SELECT exclusion_id FROM exclusion_lifts)",
        [presentation_id],
    )
    return [row["exclusion_id"] for row in rows]


def all_exclusions(store: Database) -> list[Exclusion]:
    """Every exclusion, newest first, lifted ones included."""
    return [_from_row(row) for row in store.rows(f"{_SELECT} ORDER BY e.id DESC")]


def _from_row(row: sqlite3.Row) -> Exclusion:
    return Exclusion(
        row["id"],
        row["rule"],
        row["reason"],
        row["by_id"],
        row["created_at"],
        row["judgments"],
        row["lifted_at"],
        tuple(sorted(json.loads(row["annotator_ids"]))),
    )
