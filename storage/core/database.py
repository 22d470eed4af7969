"""Opens the SQLite file: one connection per thread, WAL, foreign keys, migrations, transactions.

The tables themselves are in `migrations`; what may be done with them is in the module named after each family.
"""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import sqlite_utils

from storage.core import file_modes, file_watch, schema_check
from storage.core.clock import Clock
from storage.core.file_watch import FileWatch
from storage.core.migrations import NAMES, migrations

log = logging.getLogger("rankloop.store")

BUSY_TIMEOUT_MS = 10_000

ROWS_AT_ONCE = 256

RESCUE_AGAIN_S = 60.0
"""After a copy of a store whose files are gone could not be written, the next try, in seconds."""

DAMAGED = "the file is damaged: stop rankloop and restore a backup (rankloop restore)"

REMEDIES = {
    "locked": "something else is writing, such as an import; wait until it is done",
    "full": "make room on the disk",
    "readonly": "check the permissions of the file and its folder",
    "malformed": DAMAGED,
    "not a database": DAMAGED,
}
"""By a word of SQLite's own message."""

UNREADABLE = (
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH,
)  # fmt: skip
"""SQLite's codes for a file, a disk or a lock that keeps a statement from being read. Others are faults of the statement."""

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
"""A run's id is the name of its folder: letters, digits, blanks, `.`, `_`, `-`, at most 64, and no way out of `runs`."""


Parameters = Sequence[Any] | Mapping[str, Any]
"""Values for the placeholders of a SQL statement, by position or by name."""


class StoreError(Exception):
    """The store cannot be used; the message says why and what to do."""


class StoreLocked(StoreError):
    """Something else wrote for longer than `BUSY_TIMEOUT_MS`. Nothing was saved, and to ask again at once would wait as long."""


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Where everything that must last is kept: two folders are two separate worlds."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "rankloop.db"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def uploads(self) -> Path:
        """Files that came in through a page, until the act is done for which they came. Emptied when the server starts."""
        return self.root / "uploads"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def run(self, run_id: str) -> Path:
        """The folder of one run, which need not be there.

        Raises:
            StoreError: the id is no run's, or the folder is a link to somewhere else.
        """
        if not is_run_id(run_id):
            raise StoreError(f"{run_id!r} is no run's id (letters, digits, blanks, dots, hyphens and underscores, at most 64).")
        return inside(self.runs / run_id, self.runs)

    def run_log(self, run_id: str) -> Path:
        return self.run(run_id) / "log.txt"


def is_run_id(value: Any) -> bool:
    return isinstance(value, str) and RUN_ID.fullmatch(value) is not None


def inside(path: Path, folder: Path) -> Path:
    """The path, once it is certain that it and whatever it links to lie in the folder. The folder itself may be a link.

    Raises:
        StoreError: they do not.
    """
    try:
        leads_to = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise StoreError(f"{path.name!r} cannot be followed ({error}): take it away.") from error
    if not leads_to.is_relative_to(folder.resolve()):
        raise StoreError(f"{path.name!r} leads out of the folder {folder.name}: put a folder there in place of the link or path.")
    return path


@dataclass(frozen=True, slots=True)
class Examination:
    """What a store's file says of itself, unopened."""

    version: str
    """The last migration that it has."""
    pending: tuple[str, ...]
    """Migrations that the next start will apply."""
    damage: str
    """What SQLite finds wrong; empty if nothing."""
    foreign: str = ""
    """What is not as rankloop makes it: tables, indexes, triggers, views; empty if nothing."""
    unreadable: tuple[str, ...] = ()
    """Columns that hold what rankloop never writes, with how many rows."""


def examine(path: Path) -> Examination:
    """Looks at a store without changing it: nothing is migrated, and no file appears.

    Raises:
        StoreError: the file is no store, or cannot be read.
    """
    # It speaks of this module's errors.
    from storage.core import json_columns

    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as raw:
            raw.execute("PRAGMA trusted_schema=OFF")
            raw.execute("SELECT 1 FROM _sqlite_migrations")
            applied = schema_check.applied(raw)
            foreign = "" if schema_check.unknown(applied) else schema_check.foreign_objects(raw)
            found = raw.execute("PRAGMA quick_check").fetchone()[0]
            unreadable = () if foreign or found != "ok" else tuple(json_columns.unreadable(raw))
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}: restore a backup, or name another folder with --data.") from error
    pending = tuple(name for name in NAMES if name not in applied)
    return Examination(applied[-1] if applied else "nothing", pending, "" if found == "ok" else found, foreign, unreadable)


def foreign_schema(path: Path, strangers: str) -> StoreError:
    return StoreError(
        f"{path} is not as rankloop made it: {strangers}. Such things can change what judging and signing in do, so it is not opened: "
        "restore a backup, or take out what rankloop did not make with the sqlite3 program."
    )


def now() -> str:
    """The present moment in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


# json.dumps would make an encoder for each call, which is half of its time on a small row.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_json(value: Any) -> str:
    return _encode(value)


def _remedy(error: BaseException) -> str:
    """What to do, by what SQLite says; a disk that is full is sometimes no more to it than an I/O error."""
    for said, remedy in REMEDIES.items():
        if said in str(error):
            return remedy
    return "check the disk's free space, the folder's permissions and what else has the file open"


def _switch_to_wal(raw: sqlite3.Connection) -> None:
    # SQLite does not wait for its busy timeout here, so two processes that open a new store at once would collide.
    give_up_at = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            raw.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)


class _StoreCursor(sqlite3.Cursor):
    """A cursor whose errors are the store's, also when a row in the middle of the result cannot be read."""

    store: Database

    # Rows are fetched in batches: one Python call for each row would take as long as reading it.
    def __iter__(self) -> Iterator[sqlite3.Row]:  # type: ignore[override]  # a generator instead of the cursor itself: callers only iterate
        while rows := self.fetchmany(ROWS_AT_ONCE):
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
    """A store that any thread may use; each thread gets a connection of its own.

    Raises:
        StoreError: the file is no database, cannot be written, has a schema that is not rankloop's, or was made by a newer
            version.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.clock = Clock()
        self._local = threading.local()
        self._open: dict[threading.Thread, sqlite3.Connection] = {}
        self._open_lock = threading.Lock()
        self._writing = threading.RLock()
        self.damage = ""
        """What SQLite found wrong with the file, once it found something."""
        self._forget()
        try:
            file_modes.make_folder(self.path.parent)
            self._migrate()
        except (sqlite3.Error, OSError) as error:
            self.close()
            remedy = DAMAGED if _remedy_of(error) == DAMAGED else "Check the folder's permissions"
            raise StoreError(f"{self.path}: {error}. {remedy[0].upper()}{remedy[1:]}, or name another with --data.") from error
        except StoreError:
            self.close()
            raise

    def _forget(self) -> None:
        self._anchor: sqlite3.Connection | None = None
        """The first connection. It stays open, however its thread ends: the last one to close takes the -wal away."""
        self._files: FileWatch | None = None
        self._rescue_lock = threading.Lock()
        self._rescued: Path | None = None
        self._rescue_failed_at = float("-inf")
        self._well_at = time.time()

    def _migrate(self) -> None:
        connection = self.connection
        if not migrations.pending(connection):
            return
        # Two processes may open a new store at once; the write lock lets one migrate and the other find it done.
        with self.atomic():
            migrations.apply(connection)

    def unknown_migrations(self) -> list[str]:
        """Migrations that the file has and this version does not: the file is from the future."""
        return schema_check.unknown(schema_check.applied(self.connection.conn))

    @property
    def connection(self) -> sqlite_utils.Database:
        """This thread's connection.

        Raises:
            StoreError: there is none yet and the file cannot be opened, or it is not the one that other threads write to.
        """
        database = getattr(self._local, "database", None)
        if database is None:
            database = self._local.database = sqlite_utils.Database(self._connect())
        return database

    def _connect(self) -> sqlite3.Connection:
        first = self._anchor is None
        if first:
            file_modes.make_file(self.path)
        elif not self.files_are_ours:
            # SQLite would read the new file by the other threads' index of the old one.
            raise self._files_gone()
        raw = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False)
        try:
            self._set_up(raw, first)
            if not first and not self.files_are_ours:
                raise self._files_gone()
        except BaseException as error:
            raw.close()
            raise error if first else self._not_read(error) from error
        with self._open_lock:
            # Web servers retire idle threads and start new ones all day: their connections must not pile up.
            for thread in [thread for thread in self._open if not thread.is_alive()]:
                retired = self._open.pop(thread)
                if retired is not self._anchor:
                    retired.close()
            self._open[threading.current_thread()] = raw
            if self._anchor is None:
                self._anchor, self._files = raw, FileWatch(self.path)
        return raw

    def _set_up(self, raw: sqlite3.Connection, first: bool) -> None:
        # What a file from elsewhere has in its schema may call SQLite's harmless functions and no others.
        raw.execute("PRAGMA trusted_schema=OFF")
        raw.execute("PRAGMA cell_size_check=ON")
        if first:
            self._check_schema(raw)
        raw.row_factory = sqlite3.Row
        _switch_to_wal(raw)
        # A judgment that was acknowledged must outlive a power cut, not only a crash of the process.
        raw.execute("PRAGMA synchronous=FULL")
        raw.execute("PRAGMA foreign_keys=ON")
        # SQLite's own lower() knows the ASCII letters alone.
        raw.create_function("casefold", 1, str.casefold, deterministic=True)
        # SQLite opens the other two files with the first read: from here on they are those at their paths.
        raw.execute("SELECT 1 FROM sqlite_master").fetchone()

    def _check_schema(self, raw: sqlite3.Connection) -> None:
        """Before anything is written: what is in the file must not run."""
        raw.execute("BEGIN")
        try:
            if unknown := schema_check.unknown(schema_check.applied(raw)):
                raise StoreError(
                    f"{self.path} was written by a newer rankloop (it has {', '.join(unknown)}): "
                    "upgrade rankloop, or name another folder with --data."
                )
            if strangers := schema_check.foreign_objects(raw):
                raise foreign_schema(self.path, strangers)
        finally:
            raw.rollback()

    @contextmanager
    def atomic(self) -> Iterator[sqlite_utils.Database]:
        """One human act, one transaction. Takes the write lock at once, so that it never fails half-way for it.

        Raises:
            StoreError: the disk is full or the file damaged, another process held the lock for `BUSY_TIMEOUT_MS`, or the file was
                deleted or replaced; nothing was written, or nothing that lasts.
        """
        connection = self.connection
        if connection.conn.in_transaction:
            yield connection
            return
        # Before the lock: a copy of a large store takes long, and nobody should wait for it.
        self.check_files()
        # For SQLite's own lock threads poll, and under load some of them never get their turn.
        if not self._writing.acquire(timeout=BUSY_TIMEOUT_MS / 1000):
            raise self._not_saved(sqlite3.OperationalError("database is locked"))
        try:
            connection.conn.execute("BEGIN IMMEDIATE")
            yield connection
            connection.conn.commit()
            # Only now may anybody be told that it is saved.
            self.check_files()
        except sqlite3.DatabaseError as error:
            connection.conn.rollback()
            if type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise self._not_saved(error) from error
            raise
        except OverflowError as error:
            connection.conn.rollback()
            raise _too_large(error) from error
        except BaseException:
            connection.conn.rollback()
            raise
        finally:
            self._writing.release()

    def _not_saved(self, error: sqlite3.Error) -> StoreError:
        self._note_damage(error)
        kind = StoreLocked if "locked" in str(error) else StoreError
        return kind(f"{self.path}: {error}. Nothing was saved: {_remedy(error)}, then try again.")

    def _not_read(self, error: BaseException) -> BaseException:
        """The error as the store says it; a fault of the statement stays what it is."""
        if isinstance(error, OverflowError):
            return _too_large(error)
        if isinstance(error, UnicodeEncodeError):
            return StoreError("The text holds half a character, which nothing in the store has: type it again.")
        if isinstance(error, (sqlite3.InterfaceError, sqlite3.ProgrammingError)) and "binding parameter" in str(error):
            return StoreError(f"Nothing in the store is of such a kind ({error}): give a number or a text.")
        if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in UNREADABLE:
            self._note_damage(error)
            return StoreError(f"{self.path}: {error}. It cannot be read: {_remedy(error)}, then try again.")
        return error

    def _note_damage(self, error: BaseException) -> None:
        if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            self.damage = self.damage or str(error)

    def check_files(self) -> None:
        """Whether what is written lands in the files that lie at this store's path.

        Raises:
            StoreError: they were deleted or replaced; the message says where a copy is.
        """
        if not self.files_are_ours:
            raise self._files_gone()
        self._well_at, self._rescued = time.time(), None

    @property
    def files_are_ours(self) -> bool:
        """Whether the files at the store's path are those that it writes to."""
        return self._files is None or self._files.unchanged()

    def _file_changes(self) -> str:
        return "" if self._files is None else self._files.changes()

    def _files_gone(self) -> StoreError:
        """What to do about files that were deleted or replaced, once a copy of what they held was tried."""
        return StoreError(
            f"{self._file_changes()}, since rankloop opened it: nothing is saved any more. {self._rescue()} If the files were only moved, "
            "put them back and go on."
        )

    def _rescue(self) -> str:
        """Copies once what the open connections still see, and says what can be done with it."""
        if not self._rescue_lock.acquire(blocking=False):
            return "What was saved until then is being copied: leave rankloop running and try again in a minute."
        try:
            if self._rescued is None and time.monotonic() - self._rescue_failed_at > RESCUE_AGAIN_S:
                try:
                    self._rescued = file_watch.rescued_since(self.path, self._well_at) or file_watch.rescue(self._for_rescue(), self.path)
                except (OSError, sqlite3.Error) as error:
                    self._rescue_failed_at = time.monotonic()
                    log.error("%s: %s; a copy could not be written: %s", self.path, self._file_changes(), error)
                else:
                    log.error("%s: %s; what was saved until then is in %s", self.path, self._file_changes(), self._rescued)
            if self._rescued is None:
                return "A copy could not be written: make room in the data folder and leave rankloop running, it tries again each minute."
            return (
                f"What was saved until then is in {self._rescued.name} in the data folder: stop rankloop, then "
                f"`rankloop restore {self._rescued.name} --force`."
            )
        finally:
            self._rescue_lock.release()

    def _for_rescue(self) -> sqlite3.Connection:
        """A connection that is in no transaction: another would copy what is not saved yet."""
        own = getattr(self._local, "database", None)
        for raw in (own and own.conn, self._anchor):
            if raw is not None and not raw.in_transaction:
                return raw
        raise sqlite3.OperationalError("every connection is at work")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Reads inside see the store as it was at one moment, whatever others write meanwhile. Writes fail."""
        connection = self.connection.conn
        if connection.in_transaction:
            yield
            return
        connection.execute("BEGIN")
        # Without this a write would seem to succeed, and vanish in the rollback below.
        connection.execute("PRAGMA query_only=ON")
        try:
            yield
        finally:
            connection.execute("PRAGMA query_only=OFF")
            connection.rollback()

    def rows(self, sql: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        """What a query finds.

        Raises:
            StoreError: the file is damaged or cannot be read, or a parameter is nothing that a row could hold, such as an id of
                2^63 or more.
        """
        try:
            cursor = self.connection.conn.cursor(_StoreCursor)
            cursor.store = self
            return cursor.execute(sql, parameters)
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            raise self._not_read(error) from error

    def row(self, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None:
        """The first row that a query finds. Raises as `rows`."""
        try:
            found: sqlite3.Row | None = self.connection.conn.execute(sql, parameters).fetchone()
            return found
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            raise self._not_read(error) from error

    def value(self, sql: str, parameters: Parameters = ()) -> Any:
        row = self.row(sql, parameters)
        return None if row is None else row[0]

    def insert(self, table: str, values: dict[str, Any]) -> int:
        """Inserts one row and returns its id. Lists and dicts become JSON.

        Raises:
            StoreError: the row breaks a rule of its table, names a row that is not there, or holds what is no text.
        """
        encoded = {key: to_json(v) if isinstance(v, (dict, list, tuple)) else v for key, v in values.items()}
        columns = ", ".join(f'"{name}"' for name in encoded)
        places = ", ".join(f":{name}" for name in encoded)
        with self.atomic() as connection:
            try:
                inserted = connection.conn.execute(f"INSERT INTO {table} ({columns}) VALUES ({places})", encoded)
            except sqlite3.IntegrityError as error:
                raise StoreError(f"{table}: {error}. Check the ids and values of {encoded}.") from error
            except UnicodeEncodeError as error:
                raise StoreError("The text holds half a character that cannot be kept: type it again.") from error
            except OverflowError as error:
                raise _too_large(error) from error
            # Never None after an INSERT of one row.
            return cast(int, inserted.lastrowid)

    def close(self) -> None:
        """Closes every thread's connection."""
        with self._open_lock:
            while self._open:
                self._open.popitem()[1].close()
            if self._anchor is not None:
                self._anchor.close()
        self._local = threading.local()
        self._forget()


def _too_large(error: OverflowError) -> StoreError:
    return StoreError("There is none: a number that was given is larger than any id in a store (below 2^63). Check it.")


def _remedy_of(error: Exception) -> str:
    return _remedy(error) if isinstance(error, sqlite3.Error) else ""
