"""Backup and restore: a copy of the whole database in one file, consistent although people continue to judge meanwhile.

The folders beside the database (`runs/` with adapters and checkpoints, `logs/`) are not included.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from storage.core import file_modes, folder_lock, schema_check
from storage.core.data_folder import DataFolder
from storage.core.database import Database, StoreError, foreign_schema
from storage.core.migrations import NAMES
from storage.exchange import atomic_files
from storage.exchange.files import RowProgress
from storage.exchange.native import beyond_starter

PAGES_PER_STEP = 1_000
"""Database pages copied per step, 4 KiB each."""

STEP_PAUSE_S = 0.001
"""Pause between two steps in seconds, so that other processes can use the disk."""

SIDE_FILES = ("-wal", "-shm", "-journal")


def backup(store: Database, path: Path | str, *, force: bool = False, progress: RowProgress | None = None) -> int:
    """Copies the store to a file and checks the copy; returns its size in bytes. The file is written atomically.

    The copy contains everything that was acknowledged before the call.

    Raises:
        StoreError: the file exists and `force` is not set, it cannot be written, or the copy is damaged.
    """
    path = Path(path)
    if path.exists() and not force:
        raise StoreError(f"{path} exists already: choose another name, or replace it with --force.")
    # The copy is made by path, so the file there must be the one that this store writes to.
    store.check_files()
    with atomic_files.atomic_write(path) as unfinished:
        # A backup contains names and password hashes, so it is private.
        file_modes.make_file(unfinished)
        _copy(store.path, unfinished, progress)
        _check_integrity(unfinished, path)
    return path.stat().st_size


def restore(folder: DataFolder, path: Path | str, *, force: bool = False, progress: RowProgress | None = None) -> Path | None:
    """Replaces a data folder's database with a backup; returns the new path of the old database if it was kept.

    Raises:
        StoreError: the file is not a valid backup, or has triggers or other objects that rankloop did not make; or the folder's
            store is not empty and `force` is not set, or is in use.
    """
    path, database = Path(path), folder.database
    _check_backup(path)
    # The copy is made and checked before the old store is changed.
    with folder_lock.exclusive(folder, "restore"), _beside(database) as unfinished:
        _copy(path, unfinished, progress)
        _check_integrity(unfinished, path)
        kept = _make_way(database, force=force)
        try:
            os.replace(unfinished, database)
            atomic_files.sync_folder(folder.root)
        except OSError as error:
            if kept:
                os.replace(kept, database)
            raise StoreError(f"{database} cannot be written ({error.strerror}): the old store is as it was.") from error
    return kept


def _copy(source: Path, target: Path, progress: RowProgress | None) -> None:
    def on_step(status: int, remaining: int, total: int) -> None:
        if progress:
            progress(total - remaining, total)

    try:
        with closing(_open(source)) as source_db, closing(sqlite3.connect(target, isolation_level=None)) as target_db:
            # The read transaction fixes the state to copy. Without it every new judgment would make the copy start again.
            source_db.execute("BEGIN")
            source_db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source_db.backup(target_db, pages=PAGES_PER_STEP, progress=on_step, sleep=STEP_PAUSE_S)
            source_db.rollback()
            # Leaves WAL mode, so that the backup is a single file.
            target_db.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise StoreError(f"{source} could not be copied ({error}): check the disk's free space and the file.") from error


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)


def _check_integrity(copy: Path, of: Path) -> None:
    try:
        with closing(sqlite3.connect(copy)) as connection:
            report = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        report = str(error)
    if report != "ok":
        raise StoreError(f"{of} is damaged ({report}): use another backup. Nothing was changed.")


def _check_backup(path: Path) -> None:
    """Checks that the file is a store that this version can open."""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}): check its name and permissions.") from error
    if start != b"SQLite format 3\0":
        raise StoreError(f"{path} is no backup of rankloop: it is no SQLite database.")
    try:
        with closing(_open(path)) as connection:
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("BEGIN")
            applied = schema_check.applied(connection)
            newer = schema_check.unknown(applied)
            objects = "" if newer or NAMES[0] not in applied else schema_check.foreign_objects(connection)
            connection.rollback()
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} is no backup of rankloop, or a damaged one ({error}).") from error
    if NAMES[0] not in applied:
        raise StoreError(f"{path} is no backup of rankloop: its tables are others.")
    if newer:
        raise StoreError(f"{path} was written by a newer rankloop (it has {', '.join(newer)}): upgrade rankloop first.")
    if objects:
        raise foreign_schema(path, objects)


@contextmanager
def _beside(database: Path) -> Iterator[Path]:
    unfinished = database.with_name(f".{database.name}.restoring")
    unfinished.unlink(missing_ok=True)
    file_modes.make_file(unfinished)
    try:
        yield unfinished
    finally:
        for end in ("", *SIDE_FILES):
            unfinished.with_name(unfinished.name + end).unlink(missing_ok=True)


def _make_way(database: Path, *, force: bool) -> Path | None:
    """Moves the old database, if there is one, to another name and returns that; an empty one is deleted."""
    if not database.exists():
        return None
    contents = _contents(database)
    if contents and not force:
        raise StoreError(
            f"{database} holds a store ({contents}): restore into another folder with --data DIR, or put it aside with --force."
        )
    _close_for_others(database)
    if not contents:
        database.unlink()
        return None
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    kept = database.with_name(f"{database.stem}-before-{at}{database.suffix}")
    number = 2
    while kept.exists():
        kept = database.with_name(f"{database.stem}-before-{at}-{number}{database.suffix}")
        number += 1
    os.replace(database, kept)
    # A sound store has no side files now; those of a damaged one may help to repair it.
    for end in SIDE_FILES:
        if (side := database.with_name(database.name + end)).exists():
            os.replace(side, kept.with_name(kept.name + end))
    return kept


def _contents(database: Path) -> str | None:
    """A description of what a store contains besides starter prompts; None if nothing."""
    try:
        store = Database(database)
    except StoreError as error:
        # A damaged store may be the reason for the restore: it is kept like any other.
        return str(error).split(": ", 1)[-1]
    try:
        return beyond_starter(store)
    finally:
        store.close()


def _close_for_others(database: Path) -> None:
    """Checks that no other process has the store open, and merges the write-ahead log into the database file.

    Raises:
        StoreError: another process has the store open.
    """
    try:
        with closing(sqlite3.connect(database, timeout=1, isolation_level=None)) as connection:
            # Leaving WAL mode needs exclusive access, so SQLite refuses it while another process has the file open.
            mode = connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0]
    except sqlite3.DatabaseError as error:
        # A file that cannot be read is moved unchanged.
        mode = "wal" if "locked" in str(error) else "delete"
    if mode == "wal":
        raise StoreError(f"{database} is in use: stop rankloop (and whatever else has it open), then restore again.")
