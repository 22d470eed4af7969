"""JSON columns, read so that one bad row is told and does not break what is read beside it.

rankloop itself writes nothing else; a store from elsewhere, or one that was edited by hand, may hold anything.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any, TypeVar

from storage.core.database import StoreError
from storage.core.records import Sampling

log = logging.getLogger("rankloop.store")

T = TypeVar("T")

SHAPES = {
    ("prompts", "messages"): "array", ("completions", "sampling"): "object", ("presentations", "slots"): "array",
    ("judgments", "tiers"): "array", ("gold_answers", "tiers"): "array", ("settings", '"values"'): "object",
    ("batches", "policy_ids"): "array", ("batches", "sampling"): "object", ("imports", "report"): "object",
    ("accounts", "roles"): "array", ("runs", "config"): "object", ("runs", "versions"): "object", ("runs", "snapshot"): "object",
    ("runs", "result"): "object", ("runs", "validation"): "object",
}  # fmt: skip
"""What each JSON column holds, as SQLite's `json_type` calls it; NULL besides, where the schema lets it."""


SAMPLING = {field.name: (int, float) if type(field.default) is float else (int,) for field in fields(Sampling)}


class Unreadable(StoreError):
    """A row holds what rankloop never writes; the message names the row and the column."""


def from_json(said: Any, kind: type[T], what: str) -> T:
    """The value of a JSON column that must be of this kind.

    Raises:
        Unreadable: it is not; `what` names the row and column.
    """
    try:
        value = json.loads(said)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unreadable(f"{what} cannot be read: it is not JSON. Restore a backup, or leave the row out.") from error
    if not isinstance(value, kind):
        raise Unreadable(f"{what} cannot be read: it is not what rankloop writes there. Restore a backup, or leave the row out.")
    return value


def sampling(said: Any, what: str) -> Sampling:
    """How something was drawn. Raises Unreadable where that does not say so."""
    values = from_json(said, dict, what)
    for name, value in values.items():
        if type(value) not in SAMPLING.get(name, ()):
            raise Unreadable(f"{what} cannot be read: {name!r} is not what rankloop writes there. Restore a backup.")
    return Sampling(**values)


def id_lists(said: Any, what: str) -> tuple[tuple[int, ...], ...]:
    """Tiers: lists of ids. Raises Unreadable."""
    tiers = from_json(said, list, what)
    if not all(isinstance(tier, list) and tier and all(type(item) is int for item in tier) for tier in tiers):
        raise Unreadable(f"{what} cannot be read: tiers are lists of ids. Restore a backup.")
    return tuple(map(tuple, tiers))


def ids(said: Any, what: str) -> tuple[int, ...]:
    """A list of ids. Raises Unreadable."""
    found = from_json(said, list, what)
    if not all(type(item) is int for item in found):
        raise Unreadable(f"{what} cannot be read: it is no list of ids. Restore a backup.")
    return tuple(found)


def readable(rows: Iterable[sqlite3.Row], read: Callable[[sqlite3.Row], T]) -> Iterator[T]:
    """Each row as `read` gives it; one that cannot be read is told in the log and left out."""
    for row in rows:
        try:
            yield read(row)
        except Unreadable as error:
            log.warning("left out: %s", error)


def unreadable(raw: sqlite3.Connection) -> list[str]:
    """Rows whose JSON columns are not what rankloop writes, a line for each column; reads every row of the store."""
    tables = {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()}
    said = []
    for (table, column), shape in SHAPES.items():
        if table not in tables or column.strip('"') not in {row[1] for row in raw.execute(f"PRAGMA table_info({table})").fetchall()}:
            continue
        wrong = f"{column} IS NOT NULL AND (NOT json_valid({column}) OR json_type({column}) IS NOT '{shape}')"
        number, first = raw.execute(f"SELECT count(*), min(id) FROM {table} WHERE {wrong}").fetchone()
        if number:
            said.append(f"{number} in {table}.{column.strip(chr(34))} (the first is {first!r})")
    return said
