"""What an import still changes of older rows once it is visible: prompts come back into use, votes are counted and outdated ones excluded,
and its comparisons enter the queue.

It is done in slices, so that people judge meanwhile. The report of the import holds what is left, and each slice may be done twice: a
process that ends in between leaves the rest to the next start or import.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from storage.content import comparisons, prompts
from storage.core import unfinished_imports
from storage.core.database import Database, StoreError
from storage.exchange.import_records import Import, from_row
from storage.exchange.import_writer import EXCLUDE, QUEUE, RECOUNT, RESTORE
from storage.exchange.spans import ids_in
from storage.judging import exclusions, queue

log = logging.getLogger("rankloop.store")

_PENDING = "SELECT * FROM imports WHERE state = 'whole' AND report LIKE '%\"unfinished\":{\"_%'"


def is_unfinished(store: Database) -> bool:
    """Whether an import that is visible has something left to do."""
    return store.row(_PENDING) is not None


def finish_all(store: Database) -> None:
    """Does what imports whose processes have ended have left to do. The caller holds the lock of imports."""
    for row in store.rows(_PENDING).fetchall():
        published = from_row(row)
        if published.report.unfinished:
            log.warning("the import %s was interrupted when it was whole; the rest is done now", published.id)
            finish(store, published)


def finish(store: Database, published: Import) -> None:
    """Does what an import has left to do. The caller holds the lock of imports."""
    report = published.report
    pace = unfinished_imports.Pace(store)
    acts: dict[str, Callable[[Sequence[int]], Any]] = {
        RESTORE: lambda ids: prompts.reactivate(store, ids),
        RECOUNT: lambda ids: comparisons.recount_votes(store, ids),
        EXCLUDE: lambda ids: exclusions.add(store, report.outdated_exclusion, ids),
        QUEUE: lambda ids: queue.add_imported(store, ids),
    }
    with unfinished_imports.synced_at_the_end(store):
        for name, act in acts.items():
            ids = ids_in(report.unfinished.get(name, []))
            while slice := list(islice(ids, pace.rows)):
                with pace.slice():
                    act(slice)
    report.unfinished = {}
    with store.atomic() as connection:
        connection.conn.execute("UPDATE imports SET report = ? WHERE id = ?", [report.to_json(), published.id])


def finish_or_leave(store: Database, published: Import) -> None:
    """As `finish`; where the store cannot be written, the next start or import does the rest."""
    try:
        finish(store, published)
    except StoreError as error:
        log.warning("the import %s is whole; the next start or import counts the rest of its votes: %s", published.id, error)
