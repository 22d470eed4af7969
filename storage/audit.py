"""The audit: who did what when, gathered from the rows that record each act. Nothing writes to it."""

from __future__ import annotations

from dataclasses import dataclass

from storage.database import Database


@dataclass(frozen=True, slots=True)
class AuditEntry:
    at: str
    who: str | None
    """The name of the person or rule that acted; None for the program itself."""
    act: str
    subject: str
    subject_id: str
    detail: str


def entries(store: Database, *, before: str | None = None, limit: int = 100) -> list[AuditEntry]:
    """The last acts, newest first, from before the time `before` (ISO 8601 UTC)."""
    rows = store.rows(
        "SELECT audit.at, a.name AS who, audit.act, audit.subject, audit.subject_id, audit.detail "
        "FROM audit LEFT JOIN annotators a ON a.id = audit.by_id "
        "WHERE ?1 IS NULL OR audit.at < ?1 ORDER BY audit.at DESC LIMIT ?2",
        [before, limit],
    )
    return [AuditEntry(*row) for row in rows]
