"""Undoes imports: their prompts and comparisons are retired and their votes excluded, and nothing is deleted.

An undo takes effect at once and is done in slices, by the process that began it or the next start or import.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from storage.core import unfinished_imports
from storage.core.database import Database, StoreError, now, to_json
from storage.exchange import publications
from storage.exchange.files import RowProgress
from storage.exchange.import_records import Import, all_imports, from_row, get
from storage.judging import exclusions

log = logging.getLogger("rankloop.store")

UNDONE = "import undone"
"""The rule of the exclusion that an undo adds."""


@dataclass(frozen=True, slots=True)
class Undone:
    """Counts of an undo: excluded judgments, retired comparisons and prompts, and labels that no longer stand."""

    judgments: int
    comparisons: int
    prompts: int
    labels: int = 0


def undo(store: Database, import_id: int, *, by: int | None = None, progress: RowProgress | None = None) -> Undone:
    """Undoes an import. Its rows remain in the store, but nothing uses them, and the file may be imported again.

    Its votes and all votes on its retired comparisons are excluded. Its comparisons are retired, except those with votes of
    another import; its prompts are retired, except those that something else uses. None of its votes counts from the first moment on; the
    rest is done in slices, and by the next start or import if this process ends meanwhile.

    Args:
        progress: gets the rows that are done, and how many there are.

    Raises:
        StoreError: there is no such import, or it was undone before.
        StoreLocked: another import, or the undo of one, is under way.
    """
    with unfinished_imports.import_lock(store):
        publications.finish_all(store)
        finish_all(store)
        with store.atomic() as connection:
            undone = get(store, import_id)
            if undone.undone_at is not None:
                raise StoreError(f"Import {import_id} was undone before, at {undone.undone_at}: there is nothing left to do.")
            connection.conn.execute(
                "UPDATE imports SET undone_by_id = ?, undone_at = ?, undoing = ? WHERE id = ?",
                [by, now(), _exclusion(store, undone, by), import_id],
            )
        return _finish_undo(store, undone, by, progress)


def is_unfinished(store: Database) -> bool:
    """Whether a part of an undo is still to be done."""
    return store.value("SELECT 1 FROM imports WHERE undoing IS NOT NULL") is not None


def finish_all(store: Database) -> None:
    """Finishes every undo that was interrupted. The caller holds the lock of imports."""
    for row in store.rows("SELECT * FROM imports WHERE undoing IS NOT NULL").fetchall():
        log.warning("the undo of import %s was interrupted; it is finished now", row["id"])
        _finish_undo(store, from_row(row), row["undone_by_id"], None)


_COMPARISONS = "SELECT id FROM comparisons WHERE import_id = :import AND id > :after ORDER BY id LIMIT :most"
_JUDGMENTS = "SELECT id FROM judgments WHERE import_id = :import AND id > :after ORDER BY id LIMIT :most"
_OF_SLICE = "(SELECT value FROM json_each(:ids))"

_RETIRE = f"""
UPDATE comparisons SET retired = 1 WHERE id IN {_OF_SLICE} AND retired = 0 AND NOT EXISTS (
    SELECT 1 FROM judgments j WHERE j.comparison_id = comparisons.id AND j.counts = 1 AND j.import_id != :import)
"""
_EXCLUDE_RETIRED = f"""
INSERT OR IGNORE INTO excluded_judgments (judgment_id, exclusion_id)
SELECT j.id, :exclusion FROM judgments j JOIN comparisons c ON c.id = j.comparison_id
WHERE c.id IN {_OF_SLICE} AND c.retired = 1 AND j.counts = 1
"""
_EXCLUDE = "INSERT OR IGNORE INTO excluded_judgments (judgment_id, exclusion_id) SELECT value, :exclusion FROM json_each(:ids)"


def _finish_undo(store: Database, undone: Import, by: int | None, progress: RowProgress | None) -> Undone:
    """Does what is left of an undo. The caller holds the lock of imports."""
    exclusion_id = store.value("SELECT undoing FROM imports WHERE id = ?", [undone.id])
    total = int(store.value("SELECT (SELECT count(*) FROM comparisons WHERE import_id = ?1) + "
                            "(SELECT count(*) FROM judgments WHERE import_id = ?1)", [undone.id]))  # fmt: skip
    done = retired = 0
    pace = unfinished_imports.Pace(store)
    # Retired before the votes are excluded: a comparison without its votes would enter the queue again.
    with unfinished_imports.synced_at_the_end(store):
        for find, changes in ((_COMPARISONS, (_RETIRE, _EXCLUDE_RETIRED)), (_JUDGMENTS, (_EXCLUDE,))):
            after, ids = 0, [0]
            while ids:
                with pace.slice():
                    ids = [row["id"] for row in store.rows(find, {"import": undone.id, "after": after, "most": pace.rows})]
                    # Somebody may judge the first of its comparisons after the undo has begun.
                    exclusion_id = exclusion_id or _exclusion(store, undone, by)
                    values = {"ids": to_json(ids), "import": undone.id, "exclusion": exclusion_id}
                    for sql in changes:
                        changed = store.connection.conn.execute(sql, values).rowcount
                        retired += changed if sql is _RETIRE else 0
                after, done = max(ids, default=after), done + len(ids)
                if progress:
                    progress(done, total)
    with store.atomic() as connection:
        execute = connection.conn.execute
        if undone.report.outdated_exclusion:
            _recount(store, undone, by)
        execute("UPDATE comparisons SET wanted = human_ranks WHERE import_id = ? AND retired = 0 AND wanted > human_ranks", [undone.id])
        for comparison_id in undone.report.golden:
            execute("UPDATE comparisons SET gold = 0 WHERE id = ?", [comparison_id])
        retired_prompts = _retire_prompts(store, undone)
        _give_back_starters(store)
        execute("UPDATE imports SET undoing = NULL WHERE id = ?", [undone.id])
        excluded = int(store.value("SELECT count(*) FROM excluded_judgments WHERE exclusion_id = ?", [exclusion_id]))
    return Undone(excluded, retired, retired_prompts, undone.report.labels)


def _exclusion(store: Database, undone: Import, by: int | None) -> int:
    """The id of a new exclusion for an undo; 0 if there is no vote to exclude."""
    votes = (
        "SELECT 1 FROM judgments WHERE import_id = ?1 UNION ALL SELECT 1 FROM judgments j JOIN comparisons c ON c.id = j.comparison_id "
        "WHERE c.import_id = ?1 AND j.counts = 1"
    )
    if store.value(votes, [undone.id]) is None:
        return 0
    reason = f"The import {undone.id} of {undone.source}, which this belongs to, was undone."
    return store.insert("exclusions", {"rule": UNDONE, "reason": reason, "by_id": by, "created_at": now()})


def _recount(store: Database, undone: Import, by: int | None) -> None:
    """Lets the earlier votes of the same annotators, which the import had outdated, count again."""
    if exclusions.get(store, undone.report.outdated_exclusion).lifted_at is None:
        exclusions.lift(store, undone.report.outdated_exclusion, reason=f"The import {undone.id} was undone.", by=by)


def _retire_prompts(store: Database, undone: Import) -> int:
    """Retires the prompts that the import added or restored, unless an active comparison or another import uses them."""
    execute = store.connection.conn.execute
    execute("CREATE TEMP TABLE IF NOT EXISTS import_reused (first INTEGER, last INTEGER, own INTEGER)")
    execute("DELETE FROM import_reused")
    for other in all_imports(store):
        if other.undone_at is None or other.id == undone.id:
            spans = [(first, last, int(other.id == undone.id)) for first, last in other.report.reused]
            store.connection.conn.executemany("INSERT INTO import_reused VALUES (?, ?, ?)", spans)
    return execute(
        """
        UPDATE prompts SET retired = 1
        WHERE retired = 0
            AND (import_id = :id
                OR id IN (SELECT prompt_id FROM comparisons WHERE import_id = :id)
                OR id IN (SELECT p.id FROM import_reused r JOIN prompts p ON p.id BETWEEN r.first AND r.last WHERE r.own = 1))
            AND (import_id = :id OR EXISTS (SELECT 1 FROM imports i WHERE i.id = prompts.import_id AND i.undone_at IS NOT NULL))
            AND NOT EXISTS (SELECT 1 FROM comparisons c WHERE c.prompt_id = prompts.id AND c.retired = 0)
            AND NOT EXISTS (SELECT 1 FROM import_reused r WHERE r.own = 0 AND prompts.id BETWEEN r.first AND r.last)
        """,
        {"id": undone.id},
    ).rowcount


def _give_back_starters(store: Database) -> None:
    """Makes the starter prompts that no import names any more mere starter prompts again. Call it after `_retire_prompts`."""
    store.connection.conn.execute(
        """
        UPDATE prompts SET starter = 1
        WHERE source = 'starter' AND starter = 0
            AND NOT EXISTS (SELECT 1 FROM comparisons c WHERE c.prompt_id = prompts.id AND c.import_id IS NOT NULL AND c.retired = 0)
            AND NOT EXISTS (SELECT 1 FROM import_reused r WHERE r.own = 0 AND prompts.id BETWEEN r.first AND r.last)
        """
    )
