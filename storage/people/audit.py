"""The audit: acts of people, rules and the program, read from the rows that record them. There is no table of its own."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import islice

from storage.core.database import Database
from storage.people import annotators


@dataclass(frozen=True, slots=True)
class AuditEntry:
    at: str
    who: str | None
    """The name of the person or rule that acted; None for the program itself."""
    act: str
    subject: str
    subject_id: str
    detail: str


ACTS = (
    "judged", "skipped", "corrected", "undid", "excluded", "lifted", "set gold answer", "changed settings", "published", "imported",
    "asked for", "assigned", "cancelled", "retired", "restored", "edited", "created", "roles", "password", "disabled",
    "enabled", "started", "queued", "took out", "promoted", "rejected", "rolled back", "named",
)  # fmt: skip
"""Every act that an entry can have."""


def entries(
    store: Database, *, before: str | None = None, by: int | None = None, act: str | None = None, skip: int = 0, limit: int = 100
) -> list[AuditEntry]:
    """The newest `limit` acts before the time `before` (ISO 8601 UTC), newest first, after the first `skip` of them.

    An import is one act, whatever its size.

    Args:
        by: only acts of this annotator.
        act: only acts of this kind, one of `ACTS`.
    """
    # One view over all acts would be sorted in full for each page. Judgments are read in the order of their ids, without a sort.
    parameters = {"before": before or "9999", "most": skip + limit, "by": by, "act": act}
    columns = "at, by_id, act, subject, subject_id, detail"
    wanted = "at < :before AND (:by IS NULL OR by_id = :by) AND (:act IS NULL OR act = :act)"
    judged = store.rows(f"SELECT {columns} FROM judging_acts WHERE {wanted} ORDER BY judgment_id DESC LIMIT :most", parameters)
    # Acts of the same millisecond have the same order on every page, the later row first.
    order = "at DESC, subject, CAST(subject_id AS INTEGER) DESC"
    others = store.rows(f"SELECT {columns} FROM acts WHERE {wanted} ORDER BY {order} LIMIT :most", parameters)
    names = {annotator.id: annotator.name for annotator in annotators.all_annotators(store)}
    newest_first = heapq.merge(map(tuple, judged), map(tuple, others), key=lambda row: row[0], reverse=True)
    return [AuditEntry(row[0], names.get(row[1]), *row[2:]) for row in islice(newest_first, skip, skip + limit)]
