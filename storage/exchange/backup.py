"""Backup and restore: one file that holds the whole store as of one moment, taken while people go on judging.

What lies beside the database (`runs/` with adapters and checkpoints, `logs/`) is not in it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from storage.core import file_modes, folder_lock, schema_check
from storage.core.database import Database, DataFolder, StoreError, foreign_schema
from storage.core.migrations import NAMES
from storage.exchange import files
from storage.exchange.files import Progress
from storage.exchange.native import beyond_starter

PAGES = 1_000
"""Database pages that are copied at a time, 4 KiB each."""

PAUSE_S = 0.001
"""Between two steps, for whoever waits for the disk."""

SIDE_FILES = ("-wal", "-shm", "-journal")


def backup(store: Database, path: Path | str, *, force: bool = False, progress: Progress | None = None) -> int:
    """Copies the store to a file and checks the copy; returns its size in bytes. It appears whole or not at all.

    Everything that was acknowledged before the call is in it.

    Raises:
        StoreError: there is such a file and `force` is not set, it cannot be written, or the copy is damaged.
    """
    path = Path(path)
    if path.exists() and not force:
        raise StoreError(f"{path} exists already: choose another name, or replace it with --force.")
    # By its path: what lies there must be what this store writes to.
    store.check_files()
    with files.atomic_write(path) as unfinished:
        # Names and password hashes are in it.
        file_modes.make_file(unfinished)
        _copy(store.path, unfinished, progress)
        _check_integrity(unfinished, path)
    return path.stat().st_size


def restore(folder: DataFolder, path: Path | str, *, force: bool = False, progress: Progress | None = None) -> Path | None:
    """Puts a backup in the place of a data folder's database; returns where the old one was put, if there was one to keep.

    Raises:
        StoreError: the file is no sound backup, or holds triggers and the like that rankloop did not make; the folder's store
            holds something and `force` is not set, or it is in use.
    """
    path, database = Path(path), folder.database
    _check_backup(path)
    # Copied and checked before anything of the old store is touched.
    with folder_lock.only_one(folder, "restore"), _beside(database) as unfinished:
        _copy(path, unfinished, progress)
        _check_integrity(unfinished, path)
        kept = _make_way(database, force=force)
        try:
            os.replace(unfinished, database)
            files.sync_folder(folder.root)
        except OSError as error:
            if kept:
                os.replace(kept, database)
            raise StoreError(f"{database} cannot be written ({error.strerror}): the old store is as it was.") from error
    return kept


def _copy(source: Path, target: Path, progress: Progress | None) -> None:
    def told(status: int, remaining: int, total: int) -> None:
        if progress:
            progress(total - remaining, total)

    try:
        with closing(_open(source)) as from_, closing(sqlite3.connect(target, isolation_level=None)) as to:
            # Held open, so that the copy is of this moment. Without it every judgment would make the copy start again.
            from_.execute("BEGIN")
            from_.execute("SELECT count(*) FROM sqlite_master").fetchone()
            from_.backup(to, pages=PAGES, progress=told, sleep=PAUSE_S)
            from_.rollback()
            # One file, and not one that waits for its -wal.
            to.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise StoreError(f"{source} could not be copied ({error}): check the disk's free space and the file.") from error


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)


def _check_integrity(copy: Path, of: Path) -> None:
    try:
        with closing(sqlite3.connect(copy)) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise StoreError(f"{of} is damaged ({found}): use another backup. Nothing was changed.")


def _check_backup(path: Path) -> None:
    """Whether the file is a store that this version can open."""
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
            strangers = "" if newer or NAMES[0] not in applied else schema_check.foreign_objects(connection)
            connection.rollback()
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} is no backup of rankloop, or a damaged one ({error}).") from error
    if NAMES[0] not in applied:
        raise StoreError(f"{path} is no backup of rankloop: its tables are others.")
    if newer:
        raise StoreError(f"{path} was written by a newer rankloop (it has {', '.join(newer)}): upgrade rankloop first.")
    if strangers:
        raise foreign_schema(path, strangers)


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
    """Takes the old database out of the way, if there is one; it is kept if anything is in it."""
    if not database.exists():
        return None
    found = _held(database)
    if found and not force:
        raise StoreError(f"{database} holds a store ({found}): restore into another folder with --data DIR, or put it aside with --force.")
    _close_for_others(database)
    if not found:
        database.unlink()
        return None
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    kept = database.with_name(f"{database.stem}-before-{at}{database.suffix}")
    number = 2
    while kept.exists():
        kept = database.with_name(f"{database.stem}-before-{at}-{number}{database.suffix}")
        number += 1
    os.replace(database, kept)
    # A sound store has left none; a damaged one may still be mended with them.
    for end in SIDE_FILES:
        if (side := database.with_name(database.name + end)).exists():
            os.replace(side, kept.with_name(kept.name + end))
    return kept


def _held(database: Path) -> str | None:
    """What is in a store beside starter prompts, in words; None if nothing is."""
    try:
        store = Database(database)
    except StoreError as error:
        # A damaged store may be why somebody restores: it is kept like any other.
        return str(error).split(": ", 1)[-1]
    try:
        return beyond_starter(store)
    finally:
        store.close()


def _close_for_others(database: Path) -> None:
    """Makes sure that nobody else has the store open, and that all of it is in its one file.

    Raises:
        StoreError: somebody has.
    """
    try:
        with closing(sqlite3.connect(database, timeout=1, isolation_level=None)) as connection:
            # Leaving the write-ahead log needs the file for itself alone, so SQLite refuses it while another is there.
            mode = connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0]
    except sqlite3.DatabaseError as error:
        # What cannot be read is moved as it is.
        mode = "wal" if "locked" in str(error) else "delete"
    if mode == "wal":
        raise StoreError(f"{database} is in use: stop rankloop (and whatever else has it open), then restore again.")
