"""Opens the SQLite file: one connection per thread, WAL, foreign keys, migrations, transactions.

The tables themselves are in `migrations`; what may be done with them is in the module named after each family.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlite_utils

from storage.clock import Clock
from storage.migrations import migrations

BUSY_TIMEOUT_MS = 10_000

REMEDIES = {
    "locked": "something else is writing, such as an import; wait until it is done",
    "full": "make room on the disk",
    "readonly": "check the permissions of the file and its folder",
}
"""By a word of SQLite's own message."""


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

    def run(self, run_id: str) -> Path:
        return self.root / "runs" / run_id

    def run_log(self, run_id: str) -> Path:
        return self.run(run_id) / "log.txt"


@dataclass(frozen=True, slots=True)
class Examination:
    """What a store's file says of itself, unopened."""

    version: str
    """The last migration that it has."""
    pending: tuple[str, ...]
    """Migrations that the next start will apply."""
    damage: str
    """What SQLite finds wrong; empty if nothing."""


def examine(path: Path) -> Examination:
    """Looks at a store without changing it: nothing is migrated, and no file appears.

    Raises:
        StoreError: the file is no store, or cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as raw:
            applied = [row[0] for row in raw.execute("SELECT name FROM _sqlite_migrations ORDER BY id")]
            found = raw.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}: restore a backup, or name another folder with --data.") from error
    pending = tuple(migration.name for migration in migrations._migrations if migration.name not in applied)
    return Examination(applied[-1] if applied else "nothing", pending, "" if found == "ok" else found)


def now() -> str:
    """The present moment in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


# json.dumps would make an encoder for each call, which is half of its time on a small row.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_json(value: Any) -> str:
    return _encode(value)


def _remedy(error: sqlite3.OperationalError) -> str:
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


class Database:
    """A store that any thread may use; each thread gets a connection of its own.

    Raises:
        StoreError: the file is no database, cannot be written, or was made by a newer version.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.clock = Clock()
        self._local = threading.local()
        self._open: dict[threading.Thread, sqlite3.Connection] = {}
        self._open_lock = threading.Lock()
        self._writing = threading.RLock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._migrate()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise StoreError(
                f"{self.path}: {error}. Check the folder's permissions, or name another with --data."
            ) from error
        except StoreError:
            self.close()
            raise

    def _migrate(self) -> None:
        connection = self.connection
        if not migrations.pending(connection) and not self.unknown_migrations():
            return
        if unknown := self.unknown_migrations():
            raise StoreError(
                f"{self.path} was written by a newer rankloop (it has {', '.join(unknown)}): "
                "upgrade rankloop, or name another folder with --data."
            )
        # Two processes may open a new store at once; the write lock lets one migrate and the other find it done.
        with self.atomic():
            migrations.apply(connection)

    def unknown_migrations(self) -> list[str]:
        """Migrations that the file has and this version does not: the file is from the future."""
        known = {migration.name for migration in migrations._migrations}
        return [applied.name for applied in migrations.applied(self.connection) if applied.name not in known]

    @property
    def connection(self) -> sqlite_utils.Database:
        """This thread's connection."""
        database = getattr(self._local, "database", None)
        if database is None:
            database = self._local.database = sqlite_utils.Database(self._connect())
        return database

    def _connect(self) -> sqlite3.Connection:
        raw = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False)
        with self._open_lock:
            # Web servers retire idle threads and start new ones all day: their connections must not pile up.
            for thread in [thread for thread in self._open if not thread.is_alive()]:
                self._open.pop(thread).close()
            self._open[threading.current_thread()] = raw
        raw.row_factory = sqlite3.Row
        _switch_to_wal(raw)
        # A judgment that was acknowledged must outlive a power cut, not only a crash of the process.
        raw.execute("PRAGMA synchronous=FULL")
        raw.execute("PRAGMA foreign_keys=ON")
        # SQLite's own lower() knows the ASCII letters alone.
        raw.create_function("casefold", 1, str.casefold, deterministic=True)
        return raw

    @contextmanager
    def atomic(self) -> Iterator[sqlite_utils.Database]:
        """One human act, one transaction. Takes the write lock at once, so that it never fails half-way for it.

        Raises:
            StoreError: the disk is full, or another process held the lock for `BUSY_TIMEOUT_MS`; nothing was written.
        """
        connection = self.connection
        if connection.conn.in_transaction:
            yield connection
            return
        # For SQLite's own lock threads poll, and under load some of them never get their turn.
        if not self._writing.acquire(timeout=BUSY_TIMEOUT_MS / 1000):
            raise self._not_saved(sqlite3.OperationalError("database is locked"))
        try:
            connection.conn.execute("BEGIN IMMEDIATE")
            yield connection
            connection.conn.commit()
        except sqlite3.OperationalError as error:
            connection.conn.rollback()
            raise self._not_saved(error) from error
        except BaseException:
            connection.conn.rollback()
            raise
        finally:
            self._writing.release()

    def _not_saved(self, error: sqlite3.OperationalError) -> StoreError:
        kind = StoreLocked if "locked" in str(error) else StoreError
        return kind(f"{self.path}: {error}. Nothing was saved: {_remedy(error)}, then try again.")

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

    def rows(self, sql: str, parameters: Sequence | dict = ()) -> sqlite3.Cursor:
        return self.connection.conn.execute(sql, parameters)

    def row(self, sql: str, parameters: Sequence | dict = ()) -> sqlite3.Row | None:
        return self.connection.conn.execute(sql, parameters).fetchone()

    def value(self, sql: str, parameters: Sequence | dict = ()) -> Any:
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
                return connection.conn.execute(f"INSERT INTO {table} ({columns}) VALUES ({places})", encoded).lastrowid
            except sqlite3.IntegrityError as error:
                raise StoreError(f"{table}: {error}. Check the ids and values of {encoded}.") from error
            except UnicodeEncodeError as error:
                raise StoreError("The text holds half a character that cannot be kept: type it again.") from error

    def close(self) -> None:
        """Closes every thread's connection."""
        with self._open_lock:
            while self._open:
                self._open.popitem()[1].close()
        self._local = threading.local()
