"""Checks that a store has exactly the tables, indexes, triggers and views that the migrations make.

Triggers, views and defaults are code that runs during judging and sign-in; in a file from another source that code is not
rankloop's. Rows are not checked here: the module of each family of tables checks its own.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import cache

import sqlite_utils

from storage.core.migrations import NAMES, migrations

Objects = dict[tuple[str, str], tuple[str, ...]]
"""The tokens of each object's SQL statement, by (type, name)."""

TOLERATED = (
    "CREATE TABLE sqlite_sequence(name,seq)",
    "CREATE TABLE sqlite_stat1(tbl,idx,stat)",
    "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)",
    "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)",
    "CREATE TABLE _litestream_lock (id INTEGER)",
)
"""Tables that SQLite itself, its ANALYZE, and Litestream (docs/how-to/back-up.md) add to a database."""

_TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?\*/|\s+            # whitespace and comments
    |'(?:[^']|'')*'                       # a text
    |"(?:[^"]|"")*"|\[[^\]]*\]|`[^`]*`    # a quoted name
    |\w+|.""",
    re.VERBOSE | re.DOTALL,
)


def applied(raw: sqlite3.Connection) -> list[str]:
    """The names of the applied migrations, in order; empty for a new database."""
    if raw.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone() is None:
        return []
    return [name for (name,) in raw.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = 'rankloop' ORDER BY id").fetchall()]


def unknown(names: Sequence[str]) -> list[str]:
    """The names that are not migrations of this version: a newer version applied them."""
    return [name for name in names if name not in NAMES]


def foreign_objects(raw: sqlite3.Connection) -> str:
    """The objects that differ from the migrations, as text: `trigger welcome, view votes (changed)`; empty if none do.

    Call it in a transaction, so that the list of migrations and the schema are consistent.
    """
    names = applied(raw)
    if names != list(NAMES[: len(names)]):
        first = next((place for place, name in enumerate(NAMES[: len(names)]) if names[place] != name), None)
        return "a migration twice" if first is None else f"migration {names[first]} without {NAMES[first]}"
    found, expected = _objects(raw), _expected_objects(len(names))
    differences = [f"{kind} {name}" for kind, name in found if (kind, name) not in expected and found[kind, name] not in _tolerated()]
    differences += [
        f"{kind} {name} (changed)" for kind, name in found if (kind, name) in expected and found[kind, name] != expected[kind, name]
    ]
    differences += [f"{kind} {name} (missing)" for kind, name in expected if (kind, name) not in found]
    return ", ".join(sorted(differences))


@cache
def _expected_objects(count: int) -> Objects:
    """The schema after the first `count` migrations; empty for 0."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        if count:
            migrations.apply(sqlite_utils.Database(raw), stop_before=NAMES[count:])
        return {key: parts for key, parts in _objects(raw).items() if parts not in _tolerated()}


@cache
def _tolerated() -> frozenset[tuple[str, ...]]:
    return frozenset(_tokens(statement) for statement in TOLERATED)


def _objects(raw: sqlite3.Connection) -> Objects:
    rows = raw.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    # An index of a UNIQUE or PRIMARY KEY has no statement of its own: it belongs to its table's.
    return {(kind, name): _tokens(sql) if sql else ("on", table) for kind, name, table, sql in rows}


def _tokens(sql: str) -> tuple[str, ...]:
    """The tokens of a statement without whitespace and comments; quoted names all get double quotes."""
    tokens = []
    for part in _TOKEN.findall(sql):
        if part.isspace() or part.startswith(("--", "/*")):
            continue
        tokens.append(f'"{part[1:-1]}"' if part[0] in '[`"' else part)
    return tuple(tokens)
