"""Reads JSON columns and checks their values, so that one invalid row is logged and does not prevent reading the others.

rankloop writes valid values only, but a store from another source, or one that was edited by hand, may contain any value.
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

JSON_TYPES = {
    ("prompts", "messages"): "array", ("completions", "sampling"): "object", ("presentations", "slots"): "array",
    ("judgments", "tiers"): "array", ("gold_answers", "tiers"): "array", ("settings", '"values"'): "object",
    ("batches", "policy_ids"): "array", ("batches", "sampling"): "object", ("batches", "prompts"): "object",
    ("batch_assignments", "annotator_ids"): "array", ("imports", "report"): "object",
    ("accounts", "roles"): "array", ("runs", "config"): "object", ("runs", "versions"): "object", ("runs", "snapshot"): "object",
    ("runs", "result"): "object", ("runs", "validation"): "object", ("runs", "job"): "object", ("decisions", "evidence"): "object",
    ("queued_rounds", "config"): "object",
}  # fmt: skip
"""The type of each JSON column, as SQLite's `json_type` names it. NULL is allowed where the schema allows it."""

SAMPLING_TYPES = {field.name: (int, float) if type(field.default) is float else (int,) for field in fields(Sampling)}


class Unreadable(StoreError):
    """A row has an invalid value; the message names the row and the column."""


def from_json(encoded: Any, kind: type[T], what: str) -> T:
    """Decodes a JSON column whose value must be of this type.

    Args:
        what: the row and column, for the message.

    Raises:
        Unreadable: the value is not JSON, or of another type.
    """
    try:
        value = json.loads(encoded)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unreadable(f"{what} cannot be read: it is not JSON. Restore a backup, or leave the row out.") from error
    if not isinstance(value, kind):
        raise Unreadable(f"{what} cannot be read: it has the wrong type. Restore a backup, or leave the row out.")
    return value


def sampling(encoded: Any, what: str) -> Sampling:
    """Decodes sampling parameters; those that are missing have their defaults. Raises Unreadable."""
    return Sampling(**sampling_parameters(encoded, what))


def sampling_parameters(encoded: Any, what: str) -> dict[str, Any]:
    """Decodes the sampling parameters that were used, without those that are unknown. Raises Unreadable."""
    values = from_json(encoded, dict, what)
    for name, value in values.items():
        if type(value) not in SAMPLING_TYPES.get(name, ()):
            raise Unreadable(f"{what} cannot be read: {name!r} is not what rankloop writes there. Restore a backup.")
    return values


def id_lists(encoded: Any, what: str) -> tuple[tuple[int, ...], ...]:
    """Decodes tiers, which are lists of ids. Raises Unreadable."""
    tiers = from_json(encoded, list, what)
    if not all(isinstance(tier, list) and tier and all(type(item) is int for item in tier) for tier in tiers):
        raise Unreadable(f"{what} cannot be read: tiers are lists of ids. Restore a backup.")
    return tuple(map(tuple, tiers))


def ids(encoded: Any, what: str) -> tuple[int, ...]:
    """Decodes a list of ids. Raises Unreadable."""
    values = from_json(encoded, list, what)
    if not all(type(item) is int for item in values):
        raise Unreadable(f"{what} cannot be read: it is not a list of ids. Restore a backup.")
    return tuple(values)


def readable(rows: Iterable[sqlite3.Row], read: Callable[[sqlite3.Row], T]) -> Iterator[T]:
    """Converts each row with `read`. Rows that raise Unreadable are logged and left out."""
    for row in rows:
        try:
            yield read(row)
        except Unreadable as error:
            log.warning("left out: %s", error)


def unreadable(raw: sqlite3.Connection) -> list[str]:
    """Counts the rows with invalid JSON, one line per column that has any. Reads every row of the store."""
    tables = {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()}
    lines = []
    for (table, column), shape in JSON_TYPES.items():
        if table not in tables or column.strip('"') not in {row[1] for row in raw.execute(f"PRAGMA table_info({table})").fetchall()}:
            continue
        invalid = f"{column} IS NOT NULL AND (NOT json_valid({column}) OR json_type({column}) IS NOT '{shape}')"
        number, first = raw.execute(f"SELECT count(*), min(id) FROM {table} WHERE {invalid}").fetchone()
        if number:
            lines.append(f"{number} in {table}.{column.strip(chr(34))} (the first is {first!r})")
    return lines
