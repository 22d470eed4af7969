"""The native format: the whole store as a folder, without loss.

The folder contains `rows.jsonl` (one row of a table per line), `rows.sha256` (a hash for each of those lines) and
`manifest.json` (the tables, what is left out, and the hashes of the other two files). Derived columns, ids and queue
positions are included, so that the importing store equals the exporting one. Sign-in data is never exported.

An export of an older version fills a temporary store that has the schema of that time. That store is migrated like any other, and its
rows are imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import sqlite_utils

from storage.core.database import Database, StoreError, now, to_json
from storage.core.migrations import NAMES, migrations
from storage.exchange import atomic_files, native_values, strict_json
from storage.exchange.files import RowProgress
from storage.exchange.limits import MIB, Limits

FORMAT = "rankloop-native"
VERSION = 1

LEFT_OUT = {
    "accounts": "password hashes never leave a store: make the accounts anew",
    "sessions": "who is signed in now",
    "sign_in_failures": "failed attempts to sign in",
    "keys": "each store draws its own",
}

ROWS, HASHES, MANIFEST = "rows.jsonl", "rows.sha256", "manifest.json"
HASH_DIGITS = 16
PROGRESS_ROWS = 5_000

NATIVE_LIMITS = Limits(row_bytes=64 * MIB)
MANIFEST_BYTES = 1 * MIB

Manifest = dict[str, Any]
"""The object in `manifest.json`."""

Rows = Iterable[tuple[Any, dict[str, Any]]]
"""(table, values by column) of each row; nothing of it is checked."""

Execute = Callable[[str], sqlite3.Cursor]
"""Runs a query: `Database.rows`, whose errors are the store's, or `execute` of another connection."""


def write(
    store: Database, path: Path | str, *, include_simulated: bool = True, names: bool = True, progress: RowProgress | None = None
) -> int:
    """Writes the store as a new folder, atomically, and returns the number of rows.

    Simulated judgments, names and pseudonyms are always included, whatever the options.

    Raises:
        StoreError: `path` exists already, or cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise StoreError(f"{path} exists already: a native export is a new folder, choose another name.")
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        try:
            unfinished.mkdir()
            with store.snapshot():
                if store.value("SELECT 1 FROM unfinished_imports"):
                    raise StoreError("An import is under way, and half of it must not be exported: try again when it is done.")
                written = write_rows(store.rows, unfinished, progress)
            os.replace(unfinished, path)
            atomic_files.sync_folder(path.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error}): choose another folder.") from error
    return written


def write_rows(execute: Execute, folder: Path, progress: RowProgress | None) -> int:
    """Writes the three files into an empty folder, from one state of the database, and returns the number of rows."""
    counts = _counts(execute)
    total, written = sum(counts.values()), 0
    rows_sha256 = hashlib.sha256()
    hashes_sha256 = hashlib.sha256()
    with open(folder / ROWS, "xb") as rows, open(folder / HASHES, "xb") as sums:
        for table, row in _stored_rows(execute):
            line = f'{{"table":{to_json(table)},"row":{to_json(row)}}}\n'.encode()
            digest = _hash(line)
            rows.write(line)
            sums.write(digest)
            rows_sha256.update(line)
            hashes_sha256.update(digest)
            written += 1
            if progress and written % PROGRESS_ROWS == 0:
                progress(written, total)
        for output in (rows, sums):
            output.flush()
            os.fsync(output.fileno())
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "created_at": now(),
        "migrations": _migrations(execute),
        "rows": written,
        "tables": counts,
        "files": {ROWS: rows_sha256.hexdigest(), HASHES: hashes_sha256.hexdigest()},
        "row_hash": f"the first {HASH_DIGITS} hex digits of the SHA-256 of each line of {ROWS}, its newline included",
        "left_out": LEFT_OUT,
        "not_in_the_database": "runs/ (adapters, checkpoints, logs) lies beside the database: copy that folder too",
    }
    # The manifest is written last, so that a folder without one is incomplete.
    with open(folder / MANIFEST, "x", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return written


def read(store: Database, path: Path | str, *, progress: RowProgress | None = None) -> int:
    """Fills an empty store with the rows of an export, in one transaction, and returns the number of rows.

    A store with only starter prompts counts as empty; the starter prompts are deleted. An export of an older version is migrated
    on the way; meanwhile that takes as much disk again as the store.

    Raises:
        StoreError: the store is not empty, the export was changed, or a newer version of rankloop wrote it.
    """
    folder = Path(path)
    manifest = _manifest(folder)
    names = manifest["migrations"]
    if not names or names != list(NAMES[: len(names)]):
        raise StoreError(f"{folder} was written by a newer rankloop, whose tables differ: upgrade rankloop, then import it again.")
    _check_empty(store)
    if len(names) == len(NAMES):
        return _fill_store(store, folder, _reported(_exported_rows(folder, manifest), progress, 0, manifest["rows"]), manifest["tables"])
    with _migrated(folder, manifest, store.path.parent, progress) as older:
        counts = _counts(older.rows)
        rows = _reported(_stored_rows(older.rows), progress, manifest["rows"], manifest["rows"] + sum(counts.values()))
        return _fill_store(store, folder, rows, counts)


def _fill_store(store: Database, folder: Path, rows: Rows, expected: dict[str, int]) -> int:
    with store.atomic() as connection:
        # Again, in the transaction: somebody may have judged since.
        _check_empty(store)
        return _fill(connection.conn, folder, rows, expected)


def _check_empty(store: Database) -> None:
    if contents := beyond_starter(store):
        raise StoreError(
            f"{store.path} is not empty ({contents}): a native export is the whole store, so import it into a new folder with --data DIR."
        )


@contextmanager
def _migrated(folder: Path, manifest: Manifest, beside: Path, progress: RowProgress | None) -> Iterator[Database]:
    """A temporary store with the rows of an older export, after today's migrations."""
    names = manifest["migrations"]
    with tempfile.TemporaryDirectory(prefix=".native-", dir=beside) as temporary:
        path = Path(temporary, "rankloop.db")
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as raw:
                # A copy that is thrown away is not flushed to the disk.
                raw.execute("PRAGMA synchronous=OFF")
                raw.execute("PRAGMA foreign_keys=ON")
                migrations.apply(sqlite_utils.Database(raw), stop_before=NAMES[len(names) :])
                raw.execute("BEGIN")
                rows = _reported(_exported_rows(folder, manifest), progress, 0, 2 * manifest["rows"])
                _fill(raw, folder, rows, manifest["tables"])
                raw.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(f"{folder} cannot be imported ({error}): check the free space in {beside}. Nothing was imported.") from error
        older = Database(path)
        try:
            yield older
        finally:
            older.close()


def _fill(connection: sqlite3.Connection, folder: Path, rows: Rows, expected: dict[str, int]) -> int:
    """Replaces every row of a database by these rows, after checking them, and returns their number. Call it in a transaction.

    Args:
        expected: the number of rows of each table.
    """
    connection.execute("PRAGMA defer_foreign_keys=ON")
    # Triggers would refuse the rows or count them a second time. They are dropped and created again in the transaction.
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f'DROP TRIGGER "{name}"')
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        if table in LEFT_OUT or _is_exported(table):
            connection.execute(f'DELETE FROM "{table}"')
    counts = _insert_all(connection, folder, rows)
    for _, sql in triggers:
        connection.execute(sql)
    if counts != {table: number for table, number in expected.items() if number}:
        raise StoreError(f"{folder / MANIFEST} names other numbers of rows than there are: export the store again.")
    if broken := connection.execute("PRAGMA foreign_key_check").fetchone():
        raise StoreError(f"{folder}: a row of {broken[0]} names a row that is not there. Export the store again.")
    return sum(counts.values())


def beyond_starter(store: Database) -> str | None:
    """A description of what a store contains besides starter prompts and the local user; None if nothing."""
    # The most telling tables come first.
    for table in ("judgments", "comparisons", *_tables(store.rows), *LEFT_OUT):
        where = {
            "prompts": "WHERE starter = 0",
            "annotators": "WHERE judged > 0 OR name != 'local'",
            "sqlite_sequence": "WHERE seq > 0",
        }.get(table, "")
        if number := store.value(f'SELECT count(*) FROM "{table}" {where}'):
            return f"{number} rows in {table}"
    return None


def _insert_all(connection: sqlite3.Connection, folder: Path, rows: Rows) -> dict[str, int]:
    declared = {table: _columns(connection.execute, table) for table in _tables(connection.execute)}
    inserts = {table: _insert(table, list(columns)) for table, columns in declared.items()}
    counts: dict[str, int] = {}
    for number, (table, row) in enumerate(rows, start=1):
        if not isinstance(table, str) or table not in inserts:
            raise _damaged(folder, number, f"there is no table {table!r}")
        columns = declared[table]
        if set(row) != set(columns):
            raise _damaged(folder, number, f"its columns are not those of {table}")
        for column, value in row.items():
            if reason := native_values.problem(column, columns[column], value):
                raise _damaged(folder, number, f"{table}: {reason}")
        if table == "sqlite_sequence":
            # SQLite has added a row itself when the first queue position was inserted.
            connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", [row["name"]])
        try:
            connection.execute(inserts[table], [row[column] for column in columns])
        except (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError) as error:
            raise _damaged(folder, number, str(error)) from error
        counts[table] = counts.get(table, 0) + 1
    return counts


def _insert(table: str, columns: list[str]) -> str:
    names = ", ".join(f'"{column}"' for column in columns)
    return f'INSERT INTO "{table}" ({names}) VALUES ({", ".join("?" * len(columns))})'


def _columns(execute: Execute, table: str) -> dict[str, str]:
    """The declared type of each column by its name."""
    return {row[1]: row[2] for row in execute(f'PRAGMA table_info("{table}")')}


def _stored_rows(execute: Execute) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row that an export has, table after table."""
    for table in _tables(execute):
        cursor = execute(f'SELECT * FROM "{table}" ORDER BY {_order(execute, table)}')
        columns = [described[0] for described in cursor.description]
        for row in cursor:
            yield table, dict(zip(columns, row, strict=True))


def _counts(execute: Execute) -> dict[str, int]:
    return {table: execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in _tables(execute)}


def _reported(rows: Iterator[tuple[Any, dict[str, Any]]], progress: RowProgress | None, before: int, total: int) -> Rows:
    """The rows, while `progress` is told how many have passed, `before` included."""
    for number, row in enumerate(rows, start=before + 1):
        yield row
        if progress and number % PROGRESS_ROWS == 0:
            progress(number, total)


def _exported_rows(folder: Path, manifest: Manifest) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each row after checking its hash; checks the hashes of both files at the end."""
    rows_sha256, hashes_sha256 = hashlib.sha256(), hashlib.sha256()
    number = 0
    try:
        with open(folder / ROWS, "rb") as rows, open(folder / HASHES, "rb") as sums:
            lines = iter(lambda: rows.readline(NATIVE_LIMITS.row_bytes + 1), b"")
            digests = iter(lambda: sums.readline(HASH_DIGITS + 2), b"")
            for number, (line, expected) in enumerate(zip_longest(lines, digests, fillvalue=b""), start=1):
                if len(line) > NATIVE_LIMITS.row_bytes:
                    raise _damaged(folder, number, f"it has more than {NATIVE_LIMITS.row_bytes // MIB} MiB")
                if not line:
                    raise _damaged(folder, number, "rows are missing from here on")
                if _hash(line) != expected:
                    raise _damaged(folder, number, "it is not as it was exported")
                rows_sha256.update(line)
                hashes_sha256.update(expected)
                text = line.decode()
                if reason := strict_json.too_large(text, 0, len(text), NATIVE_LIMITS):
                    raise _damaged(folder, number, str(reason))
                entry = json.loads(text)
                yield entry["table"], dict(entry["row"])
    except OSError as error:
        raise StoreError(f"{folder} cannot be read ({error.strerror}): check its name and permissions.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(folder, number, "it is no row") from error
    if {ROWS: rows_sha256.hexdigest(), HASHES: hashes_sha256.hexdigest()} != manifest["files"]:
        raise StoreError(f"{folder}: the rows and their hashes are not those of the manifest. Nothing was imported.")


def _manifest(folder: Path) -> Manifest:
    try:
        with open(folder / MANIFEST, "rb") as file:
            manifest = json.loads(file.read(MANIFEST_BYTES).decode())
    except OSError as error:
        reason = f"{folder / MANIFEST} cannot be read ({error.strerror})"
        raise StoreError(f"{reason}: name the folder of a native export.") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{folder / MANIFEST} is not JSON: export the store again.") from error
    expected_types = {"migrations": list, "tables": dict, "files": dict, "rows": int}
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise StoreError(f"{folder / MANIFEST} is not of a native export that this version reads.")
    if not all(isinstance(manifest.get(name), kind) for name, kind in expected_types.items()):
        raise StoreError(f"{folder / MANIFEST} was changed: export the store again.")
    return manifest


def _tables(execute: Execute) -> list[str]:
    rows = execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    return [name for (name,) in rows if _is_exported(name)]


def _is_exported(table: str) -> bool:
    return table == "sqlite_sequence" or not (table.startswith(("sqlite_", "_")) or table in LEFT_OUT)


def _order(execute: Execute, table: str) -> str:
    rows = execute(f'PRAGMA table_info("{table}")').fetchall()
    keys = [name for _, name, _, _, _, key in sorted(rows, key=lambda row: row[5]) if key]
    return ", ".join(f'"{key}"' for key in keys) or "rowid"


def _migrations(execute: Execute) -> list[str]:
    rows = execute("SELECT name FROM _sqlite_migrations WHERE migration_set = 'rankloop' ORDER BY name")
    return [name for (name,) in rows]


def _hash(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest()[:HASH_DIGITS].encode() + b"\n"


def _damaged(folder: Path, number: int, reason: str) -> StoreError:
    return StoreError(f"{folder / ROWS}:{number}: {reason}. Nothing was imported.")
