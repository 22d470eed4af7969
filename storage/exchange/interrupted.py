"""Finishes what processes that have ended left of imports: of visible ones the rest of their changes, and undos.

Imports that were not visible yet are rolled back by `storage.core.unfinished_imports`.
"""

from __future__ import annotations

from storage.core import unfinished_imports
from storage.core.database import Database, StoreLocked
from storage.exchange import publications, undos


def finish(store: Database) -> None:
    """Does what is left. Called when a program starts; does nothing while an import or an undo is under way."""
    if not publications.is_unfinished(store) and not undos.is_unfinished(store):
        return
    try:
        with unfinished_imports.import_lock(store, wait_s=0):
            finish_all(store)
    except StoreLocked:
        return


def finish_all(store: Database) -> None:
    """As `finish`, for a caller that holds the lock of imports."""
    publications.finish_all(store)
    undos.finish_all(store)
