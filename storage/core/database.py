"""Opens the SQLite database: one connection per thread, WAL, foreign keys, migrations and transactions.

The tables are defined in `migrations`; the operations on each family of tables are in the module named after it. `data_folder`
has the file's path, `examine` checks a file without opening it as a store, and `file_watch` detects deleted or replaced files.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import sqlite_utils

from storage.core import file_modes, schema_check, sqlite_errors
from storage.core.clock import Clock
from storage.core.file_watch import OpenFiles
from storage.core.migrations import migrations

BUSY_TIMEOUT_MS = 10_000

TRAINING_BUSY_TIMEOUT_MS = 600_000
"""As `BUSY_TIMEOUT_MS`, for a training round, which would lose hours of work, and whose writes nobody waits for."""

FETCH_ROWS = 256

Parameters = Sequence[Any] | Mapping[str, Any]
"""Values for the placeholders of a SQL statement, by position or by name."""


class StoreError(Exception):
    """The store cannot be used; the message says why and what to do."""


class StoreFilesGone(StoreError):
    """The store's files were deleted, moved or replaced while they were open. Nothing is saved until the program is started again."""


class StoreLocked(StoreError):
    """Another process held the write lock for longer than `busy_timeout_ms`. Nothing was saved; an immediate retry may wait as long."""


def foreign_schema(path: Path, objects: str) -> StoreError:
    """The error for a store with tables, triggers or other objects that the migrations do not make."""
    return StoreError(
        f"{path} has a schema that is not rankloop's: {objects}. Such objects can change judging and sign-in, so it is not opened: "
        "restore a backup, or remove them with the sqlite3 program."
    )


def now() -> str:
    """The current time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


# json.dumps creates an encoder at each call, which takes half of its time on a small row.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_json(value: Any) -> str:
    return _encode(value)


def _switch_to_wal(raw: sqlite3.Connection) -> None:
    # SQLite ignores its busy timeout here, so two processes that open a new store at once would fail with a locked database.
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            raw.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if not sqlite_errors.is_lock(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


class _StoreCursor(sqlite3.Cursor):
    """A cursor that converts errors to `StoreError`, also those of a row in the middle of the result."""

    store: Database

    # Rows are fetched in batches: one Python call for each row would take as long as reading it.
    def __iter__(self) -> Iterator[sqlite3.Row]:  # type: ignore[override]  # a generator instead of the cursor itself: callers only iterate
        while rows := self.fetchmany(FETCH_ROWS):
            yield from rows

    def fetchone(self) -> Any:
        try:
            return super().fetchone()
        except sqlite3.Error as error:
            raise self.store._not_read(error) from error

    def fetchall(self) -> list[Any]:
        try:
            return super().fetchall()
        except sqlite3.Error as error:
            raise self.store._not_read(error) from error

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        try:
            return super().fetchmany(size)
        except sqlite3.Error as error:
            raise self.store._not_read(error) from error


class Database:
    """A store that any thread may use. Each thread gets its own connection.

    Raises:
        StoreError: the file is not a database, cannot be written, has a schema that is not rankloop's, or was made by a newer
            version.
    """

    def __init__(self, path: Path | str):
        # Imported here because unfinished_imports works on a Database.
        from storage.core import unfinished_imports

        self.path = Path(path)
        self._busy_timeout_ms: int | None = None
        self.clock = Clock()
        self._local = threading.local()
        self._open: dict[threading.Thread, sqlite3.Connection] = {}
        self._open_lock = threading.Lock()
        self._writing = threading.RLock()
        self.damage = ""
        """SQLite's report of damage to the file; empty while there is none."""
        self._reset()
        try:
            file_modes.make_folder(self.path.parent)
            self._migrate()
            unfinished_imports.roll_back_interrupted(self)
        except (sqlite3.Error, OSError) as error:
            self.close()
            remedy = sqlite_errors.DAMAGED if sqlite_errors.is_damage(error) else "check the folder's permissions"
            raise StoreError(f"{self.path}: {error}. {remedy[0].upper()}{remedy[1:]}, or name another with --data.") from error
        except StoreError:
            self.close()
            raise

    @property
    def busy_timeout_ms(self) -> int:
        """How long a write waits for other writers before it raises `StoreLocked`."""
        return BUSY_TIMEOUT_MS if self._busy_timeout_ms is None else self._busy_timeout_ms

    def use_training_timeout(self) -> None:
        """Lets writes wait for `TRAINING_BUSY_TIMEOUT_MS` from now on. Call it before other threads use the store."""
        self._busy_timeout_ms = TRAINING_BUSY_TIMEOUT_MS
        self.connection.conn.execute(f"PRAGMA busy_timeout={TRAINING_BUSY_TIMEOUT_MS}")

    def _reset(self) -> None:
        self._anchor: sqlite3.Connection | None = None
        """The first connection. It stays open after its thread has ended, because closing the last connection deletes the -wal file."""
        self._files: OpenFiles | None = None

    def _migrate(self) -> None:
        connection = self.connection
        if not migrations.pending(connection):
            return
        # Two processes may open a new store at once: the write lock lets one migrate, and the other then has nothing to apply.
        with self.atomic():
            migrations.apply(connection)

    def unknown_migrations(self) -> list[str]:
        """Migrations of the file that this version does not have: a newer version wrote it."""
        return schema_check.unknown(schema_check.applied(self.connection.conn))

    @property
    def connection(self) -> sqlite_utils.Database:
        """This thread's connection, opened at the first use.

        Raises:
            StoreError: the file cannot be opened, or is not the one that the other threads have open.
        """
        database = getattr(self._local, "database", None)
        if database is None:
            database = self._local.database = sqlite_utils.Database(self._connect())
        return database

    def _connect(self) -> sqlite3.Connection:
        first = self._anchor is None
        if first:
            file_modes.make_file(self.path)
        elif not self.files_unchanged:
            # SQLite would read the new file with the other threads' WAL index of the old file.
            raise self._files_gone()
        raw = sqlite3.connect(self.path, timeout=self.busy_timeout_ms / 1000, isolation_level=None, check_same_thread=False)
        try:
            self._set_up(raw, first)
            if not first and not self.files_unchanged:
                raise self._files_gone()
        except BaseException as error:
            raw.close()
            raise error if first else self._not_read(error) from error
        with self._open_lock:
            # Web servers end idle threads and start new ones: the connections of ended threads must not accumulate.
            for thread in [thread for thread in self._open if not thread.is_alive()]:
                unused = self._open.pop(thread)
                if unused is not self._anchor:
                    unused.close()
            self._open[threading.current_thread()] = raw
            if self._anchor is None:
                self._anchor, self._files = raw, OpenFiles(self.path)
        return raw

    def _set_up(self, raw: sqlite3.Connection, first: bool) -> None:
        # The schema of a file from elsewhere may call only functions that SQLite considers harmless.
        raw.execute("PRAGMA trusted_schema=OFF")
        raw.execute("PRAGMA cell_size_check=ON")
        if first:
            self._check_schema(raw)
        raw.row_factory = sqlite3.Row
        _switch_to_wal(raw)
        # An acknowledged judgment must survive a power cut, not only a crash of the process.
        raw.execute("PRAGMA synchronous=FULL")
        raw.execute("PRAGMA foreign_keys=ON")
        # SQLite's own lower() changes ASCII letters only.
        raw.create_function("casefold", 1, str.casefold, deterministic=True)
        # SQLite opens the -wal and -shm files at the first read; `OpenFiles` then records which files they are.
        raw.execute("SELECT 1 FROM sqlite_master").fetchone()

    def _check_schema(self, raw: sqlite3.Connection) -> None:
        """Refuses a file with a foreign or newer schema before anything is written, so that its triggers never run."""
        raw.execute("BEGIN")
        try:
            if unknown := schema_check.unknown(schema_check.applied(raw)):
                raise StoreError(
                    f"{self.path} was written by a newer rankloop (it has {', '.join(unknown)}): "
                    "upgrade rankloop, or name another folder with --data."
                )
            if objects := schema_check.foreign_objects(raw):
                raise foreign_schema(self.path, objects)
        finally:
            raw.rollback()

    @contextmanager
    def atomic(self) -> Iterator[sqlite_utils.Database]:
        """Runs the block in one transaction; inside another `atomic` block it joins that one.

        The write lock is taken at the start, so that a transaction never fails half-way because of the lock.

        Raises:
            StoreError: the disk is full, the file is damaged, another process held the lock for `busy_timeout_ms`, or the files
                were deleted or replaced. Nothing was saved.
        """
        connection = self.connection
        if connection.conn.in_transaction:
            yield connection
            return
        # Before the lock is taken, because this may copy a large store, and other writers should not wait for that.
        self.check_files()
        # SQLite's own lock is polled, so that under load some threads would never get it.
        if not self._writing.acquire(timeout=self.busy_timeout_ms / 1000):
            raise self._not_saved(sqlite3.OperationalError("database is locked"))
        try:
            connection.conn.execute("BEGIN IMMEDIATE")
            yield connection
            connection.conn.commit()
            # Only after this check may the caller report that the change is saved.
            self.check_files()
        except sqlite3.DatabaseError as error:
            connection.conn.rollback()
            if type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise self._not_saved(error) from error
            raise
        except OverflowError as error:
            connection.conn.rollback()
            raise StoreError(sqlite_errors.value_problem(error)) from error
        except BaseException:
            connection.conn.rollback()
            raise
        finally:
            self._writing.release()

    def _not_saved(self, error: sqlite3.Error) -> StoreError:
        self._note_damage(error)
        kind = StoreLocked if sqlite_errors.is_lock(error) else StoreError
        return kind(f"{self.path}: {error}. Nothing was saved: {sqlite_errors.remedy(error)}, then try again.")

    def _not_read(self, error: BaseException) -> BaseException:
        """Converts an error while reading to a `StoreError`. An error in the statement itself is returned unchanged."""
        if problem := sqlite_errors.value_problem(error):
            return StoreError(problem)
        if sqlite_errors.is_of_file(error):
            self._note_damage(error)
            return StoreError(f"{self.path}: {error}. It cannot be read: {sqlite_errors.remedy(error)}, then try again.")
        return error

    def _note_damage(self, error: BaseException) -> None:
        if sqlite_errors.is_damage(error):
            self.damage = self.damage or str(error)

    def check_files(self) -> None:
        """Checks that the open connections write to the files at this store's path.

        Raises:
            StoreError: the files were deleted or replaced; the message says where a copy of the contents is.
        """
        if not self.files_unchanged:
            raise self._files_gone()
        if self._files is not None:
            self._files.note_unchanged()

    @property
    def files_unchanged(self) -> bool:
        """Whether the files at the store's path are still the ones that its connections have open."""
        return self._files is None or self._files.unchanged()

    def _files_gone(self) -> StoreFilesGone:
        """The error for files that were deleted or replaced, after an attempt to copy their contents."""
        assert self._files is not None, "the files of a store without an open connection cannot be gone"
        return StoreFilesGone(
            f"{self._files.changes()}, since rankloop opened it: changes can no longer be saved. "
            f"{self._files.rescue(self._idle_connection)} If the files were only moved, move them back and continue."
        )

    def _idle_connection(self) -> sqlite3.Connection:
        """A connection without a transaction. A copy through one with a transaction would contain uncommitted changes."""
        own = getattr(self._local, "database", None)
        for raw in (own and own.conn, self._anchor):
            if raw is not None and not raw.in_transaction:
                return raw
        raise sqlite3.OperationalError("every connection is at work")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Reads in the block see one consistent state of the store, whatever other connections write. Writes fail."""
        connection = self.connection.conn
        if connection.in_transaction:
            yield
            return
        connection.execute("BEGIN")
        # Without this a write would appear to succeed and then be lost in the rollback below.
        connection.execute("PRAGMA query_only=ON")
        try:
            yield
        finally:
            connection.execute("PRAGMA query_only=OFF")
            connection.rollback()

    def rows(self, sql: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        """A cursor over the rows of a query.

        Raises:
            StoreError: the file is damaged or cannot be read, or a parameter is a value that no column can hold, such as an id
                of 2^63 or more.
        """
        try:
            cursor = self.connection.conn.cursor(_StoreCursor)
            cursor.store = self
            return cursor.execute(sql, parameters)
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            raise self._not_read(error) from error

    def row(self, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None:
        """The first row of a query, None if there is none. Raises like `rows`."""
        try:
            found: sqlite3.Row | None = self.connection.conn.execute(sql, parameters).fetchone()
            return found
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            raise self._not_read(error) from error

    def value(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first column of the first row of a query, None if there is no row. Raises like `rows`."""
        row = self.row(sql, parameters)
        return None if row is None else row[0]

    def file_version(self) -> int:
        """A number that changes when another thread or process has written to the store. It is for this thread alone, and costs little."""
        return int(self.value("PRAGMA data_version"))

    def insert(self, table: str, values: dict[str, Any]) -> int:
        """Inserts one row and returns its id. Lists and dicts become JSON.

        Raises:
            StoreError: the row violates a constraint of its table, refers to a missing row, or holds text that is not valid UTF-8.
        """
        encoded = {key: to_json(v) if isinstance(v, (dict, list, tuple)) else v for key, v in values.items()}
        columns = ", ".join(f'"{name}"' for name in encoded)
        places = ", ".join(f":{name}" for name in encoded)
        with self.atomic() as connection:
            try:
                inserted = connection.conn.execute(f"INSERT INTO {table} ({columns}) VALUES ({places})", encoded)
            except sqlite3.IntegrityError as error:
                raise StoreError(f"{table}: {error}. Check the ids and values of {encoded}.") from error
            except (UnicodeEncodeError, OverflowError) as error:
                raise StoreError(sqlite_errors.value_problem(error)) from error
            # Never None after an INSERT of one row.
            return cast(int, inserted.lastrowid)

    def insert_many(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> range:
        """Inserts rows of a table with an integer key and returns their ids, which follow one another in the order of the rows.

        Values are as SQLite stores them, without the `id`. Call it inside `atomic`.
        """
        first = 1 + int(self.value(f"SELECT coalesce(max(id), 0) FROM {table}"))
        ids = range(first, first + len(rows))
        self.insert_rows(table, ("id", *columns), [(new_id, *row) for new_id, row in zip(ids, rows, strict=True)])
        return ids

    def insert_rows(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Inserts rows of a table whose key is among the columns. Call it inside `atomic`."""
        if rows:
            places = ", ".join("?" * len(columns))
            self.connection.conn.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows)

    def close(self) -> None:
        """Closes the connections of all threads."""
        with self._open_lock:
            while self._open:
                self._open.popitem()[1].close()
            if self._anchor is not None:
                self._anchor.close()
        self._local = threading.local()
        self._reset()
