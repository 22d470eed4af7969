"""The native format: the whole store as a folder, without loss.

The folder contains `rows.jsonl` (one row of a table per line), `rows.sha256` (a hash for each of those lines) and
`manifest.json` (the tables, what is left out, and the hashes of the other two files). Derived columns, ids and queue
positions are included, so that the importing store equals the exporting one. Sign-in data is never exported.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from storage.core.database import Database, StoreError, now, to_json
from storage.exchange import files, native_values, strict_json
from storage.exchange.files import Progress
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

LIMITS = Limits(row_bytes=64 * MIB)
MANIFEST_BYTES = 1 * MIB

Manifest = dict[str, Any]
"""The object in `manifest.json`."""


def write(
    store: Database, path: Path | str, *, include_simulated: bool = True, names: bool = True, progress: Progress | None = None
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
                written = _write(store, unfinished, progress)
            os.replace(unfinished, path)
            files.sync_folder(path.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error}): choose another folder.") from error
    return written


def _write(store: Database, folder: Path, progress: Progress | None) -> int:
    tables = _tables(store)
    counts = {table: store.value(f'SELECT count(*) FROM "{table}"') for table in tables}
    total, written = sum(counts.values()), 0
    rows_sha256 = hashlib.sha256()
    hashes_sha256 = hashlib.sha256()
    with open(folder / ROWS, "xb") as rows, open(folder / HASHES, "xb") as sums:
        for table in tables:
            head = f'{{"table":{to_json(table)},"row":'
            for row in store.rows(f'SELECT * FROM "{table}" ORDER BY {_order(store, table)}'):
                line = (head + to_json(dict(row)) + "}\n").encode()
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
        "migrations": _migrations(store),
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


def read(store: Database, path: Path | str, *, progress: Progress | None = None) -> int:
    """Fills an empty store with the rows of an export, in one transaction, and returns the number of rows.

    A store with only starter prompts counts as empty; the starter prompts are deleted.

    Raises:
        StoreError: the store is not empty, the export was changed, or another version of rankloop wrote it.
    """
    folder = Path(path)
    manifest = _manifest(folder)
    if manifest["migrations"] != _migrations(store):
        raise StoreError(
            f"{folder} was written by another version of rankloop, whose tables differ: import it with that version, "
            "then open the data folder with this one."
        )
    connection = store.connection.conn
    with store.atomic():
        if contents := beyond_starter(store):
            raise StoreError(
                f"{store.path} is not empty ({contents}): a native export is the whole store, so import it into a new folder "
                "with --data DIR."
            )
        connection.execute("PRAGMA defer_foreign_keys=ON")
        # Triggers would refuse the rows or count them a second time. They are dropped and created again in the transaction.
        triggers = store.rows("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for trigger in triggers:
            connection.execute(f'DROP TRIGGER "{trigger["name"]}"')
        for table in (*_tables(store), *LEFT_OUT):
            connection.execute(f'DELETE FROM "{table}"')
        counts = _fill(store, folder, manifest, progress)
        for trigger in triggers:
            connection.execute(trigger["sql"])
        if counts != {table: number for table, number in manifest["tables"].items() if number}:
            raise StoreError(f"{folder / MANIFEST} names other numbers of rows than there are: export the store again.")
        if broken := store.row("PRAGMA foreign_key_check"):
            raise StoreError(f"{folder}: a row of {broken[0]} names a row that is not there. Export the store again.")
    return sum(counts.values())


def beyond_starter(store: Database) -> str | None:
    """A description of what a store contains besides starter prompts and the local user; None if nothing."""
    # The most telling tables come first.
    for table in ("judgments", "comparisons", *_tables(store), *LEFT_OUT):
        where = {
            "prompts": "WHERE source != 'starter'",
            "annotators": "WHERE judged > 0 OR name != 'local'",
            "sqlite_sequence": "WHERE seq > 0",
        }.get(table, "")
        if number := store.value(f'SELECT count(*) FROM "{table}" {where}'):
            return f"{number} rows in {table}"
    return None


def _fill(store: Database, folder: Path, manifest: Manifest, progress: Progress | None) -> dict[str, int]:
    inserts = {table: _insert(store, table) for table in _tables(store)}
    declared = {table: dict(_columns(store, table)) for table in inserts}
    counts: dict[str, int] = {}
    connection = store.connection.conn
    for number, (table, row) in enumerate(_rows(folder, manifest), start=1):
        if not isinstance(table, str) or table not in inserts:
            raise _damaged(folder, number, f"there is no table {table!r}")
        sql, columns = inserts[table]
        if set(row) != set(columns):
            raise _damaged(folder, number, f"its columns are not those of {table}")
        for column, value in row.items():
            if reason := native_values.problem(column, declared[table][column], value):
                raise _damaged(folder, number, f"{table}: {reason}")
        if table == "sqlite_sequence":
            # SQLite has added a row itself when the first queue position was inserted.
            connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", [row["name"]])
        try:
            connection.execute(sql, [row[column] for column in columns])
        except (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError) as error:
            raise _damaged(folder, number, str(error)) from error
        counts[table] = counts.get(table, 0) + 1
        if progress and number % PROGRESS_ROWS == 0:
            progress(number, manifest["rows"])
    return counts


def _insert(store: Database, table: str) -> tuple[str, list[str]]:
    columns = [name for name, _ in _columns(store, table)]
    names = ", ".join(f'"{column}"' for column in columns)
    return f'INSERT INTO "{table}" ({names}) VALUES ({", ".join("?" * len(columns))})', columns


def _columns(store: Database, table: str) -> list[tuple[str, str]]:
    """(name, declared type) of each column."""
    return [(row["name"], row["type"]) for row in store.rows(f'PRAGMA table_info("{table}")')]


def _rows(folder: Path, manifest: Manifest) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each row after checking its hash; checks the hashes of both files at the end."""
    rows_sha256, hashes_sha256 = hashlib.sha256(), hashlib.sha256()
    number = 0
    try:
        with open(folder / ROWS, "rb") as rows, open(folder / HASHES, "rb") as sums:
            lines = iter(lambda: rows.readline(LIMITS.row_bytes + 1), b"")
            digests = iter(lambda: sums.readline(HASH_DIGITS + 2), b"")
            for number, (line, expected) in enumerate(zip_longest(lines, digests, fillvalue=b""), start=1):
                if len(line) > LIMITS.row_bytes:
                    raise _damaged(folder, number, f"it has more than {LIMITS.row_bytes // MIB} MiB")
                if not line:
                    raise _damaged(folder, number, "rows are missing from here on")
                if _hash(line) != expected:
                    raise _damaged(folder, number, "it is not as it was exported")
                rows_sha256.update(line)
                hashes_sha256.update(expected)
                text = line.decode()
                if reason := strict_json.too_large(text, 0, len(text), LIMITS):
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


def _tables(store: Database) -> list[str]:
    rows = store.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [name for (name,) in rows if name == "sqlite_sequence" or not (name.startswith(("sqlite_", "_sqlite_")) or name in LEFT_OUT)]


def _order(store: Database, table: str) -> str:
    keys = [row["name"] for row in sorted(store.rows(f'PRAGMA table_info("{table}")'), key=lambda row: row["pk"]) if row["pk"]]
    return ", ".join(f'"{key}"' for key in keys) or "rowid"


def _migrations(store: Database) -> list[str]:
    rows = store.rows("SELECT name FROM _sqlite_migrations WHERE migration_set = 'rankloop' ORDER BY name")
    return [name for (name,) in rows]


def _hash(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest()[:HASH_DIGITS].encode() + b"\n"


def _damaged(folder: Path, number: int, reason: str) -> StoreError:
    return StoreError(f"{folder / ROWS}:{number}: {reason}. Nothing was imported.")
