"""Whether a store's tables, indexes, triggers and views are those that the migrations make, and nothing beside them.

A trigger, a view or a default is code that runs when somebody judges or signs in; in a file from elsewhere it is somebody
else's. Leaves out the rows: the module of each family reads its own.
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
"""The parts of each object's statement, by its type and name."""

TOLERATED = (
    "CREATE TABLE sqlite_sequence(name,seq)",
    "CREATE TABLE sqlite_stat1(tbl,idx,stat)",
    "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)",
    "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)",
    "CREATE TABLE _litestream_lock (id INTEGER)",
)
"""Tables that SQLite's ANALYZE and Litestream (docs/how-to/back-up.md) put into a database that is theirs to look after."""

_PART = re.compile(
    r"""--[^\n]*|/\*.*?\*/|\s+            # left out
    |'(?:[^']|'')*'                       # a text
    |"(?:[^"]|"")*"|\[[^\]]*\]|`[^`]*`    # a quoted name
    |\w+|.""",
    re.VERBOSE | re.DOTALL,
)


def applied(raw: sqlite3.Connection) -> list[str]:
    """The names of the migrations that a database has, in their order; none if it is new."""
    if raw.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone() is None:
        return []
    return [name for (name,) in raw.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = 'rankloop' ORDER BY id").fetchall()]


def unknown(names: Sequence[str]) -> list[str]:
    """Migrations that this version does not have: the file is from the future."""
    return [name for name in names if name not in NAMES]


def foreign_objects(raw: sqlite3.Connection) -> str:
    """What is not as the migrations make it, in words: `trigger welcome, view votes (changed)`; empty if nothing is.

    Call in a transaction: the migrations and the schema must be of one moment.
    """
    names = applied(raw)
    if names != list(NAMES[: len(names)]):
        first = next((place for place, name in enumerate(NAMES[: len(names)]) if names[place] != name), None)
        return "a migration twice" if first is None else f"migration {names[first]} without {NAMES[first]}"
    found, own = _objects(raw), _made_by(len(names))
    said = [f"{kind} {name}" for kind, name in found if (kind, name) not in own and found[kind, name] not in _tolerated()]
    said += [f"{kind} {name} (changed)" for kind, name in found if (kind, name) in own and found[kind, name] != own[kind, name]]
    said += [f"{kind} {name} (missing)" for kind, name in own if (kind, name) not in found]
    return ", ".join(sorted(said))


@cache
def _made_by(count: int) -> Objects:
    """The schema after the first so many migrations; none before the first."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        if count:
            migrations.apply(sqlite_utils.Database(raw), stop_before=NAMES[count:])
        return {key: parts for key, parts in _objects(raw).items() if parts not in _tolerated()}


@cache
def _tolerated() -> frozenset[tuple[str, ...]]:
    return frozenset(_parts(statement) for statement in TOLERATED)


def _objects(raw: sqlite3.Connection) -> Objects:
    rows = raw.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    # An index of a UNIQUE or PRIMARY KEY has no statement of its own: it belongs to its table's.
    return {(kind, name): _parts(sql) if sql else ("on", table) for kind, name, table, sql in rows}


def _parts(sql: str) -> tuple[str, ...]:
    """A statement without what means nothing: space, comments, and which of SQLite's three quotes a name stands in."""
    parts = []
    for part in _PART.findall(sql):
        if part.isspace() or part.startswith(("--", "/*")):
            continue
        parts.append(f'"{part[1:-1]}"' if part[0] in '[`"' else part)
    return tuple(parts)
