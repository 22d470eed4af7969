"""Values at the paths of a field map: into objects, through lists, and of several fields together."""

from __future__ import annotations

from typing import Any

from storage.exchange import strict_json
from storage.exchange.field_maps import Paths
from storage.exchange.rows import BadRow, Record, name_of


def find(record: Any, path: str) -> Any:
    """The value at a path; None if there is none. A field whose own name has dots in it goes first.

    After `[]` it is a list with the value of each item.
    """
    if isinstance(record, dict) and path in record:
        return record[path]
    if path.endswith("[]"):
        return as_list(find(record, path[:-2]), path)
    if "[]." in path:
        before, after = path.split("[].", 1)
        items = as_list(find(record, before), before)
        return None if items is None else [find(item, after) for item in items]
    if "." in path:
        before, after = path.split(".", 1)
        return find(find(record, before), after) if isinstance(record, dict) and before in record else None
    return None


def as_list(value: Any, path: str) -> list[Any] | None:
    """A list, which CSV holds as JSON."""
    if isinstance(value, str):
        try:
            value = strict_json.decode(value)
        except (ValueError, RecursionError):
            raise BadRow(f"{path.removesuffix('[]')} must be a list, in CSV as JSON") from None
        if isinstance(value, BadRow):
            raise value
    if value is None:
        return None
    if not isinstance(value, (list, tuple)):
        raise BadRow(f"{path.removesuffix('[]')} must be a list")
    return list(value)


def is_empty(value: Any) -> bool:
    return value is None or value == "" or value == [] or value == {}


def has(record: Record, path: str) -> bool:
    """Whether a row has a value for a path, or for a part of a joined one; nothing counts as read by asking."""
    if path in record:
        return not is_empty(untracked(record)[path])
    return any(not is_empty(find(untracked(record), part)) for part in path.split("+") if part)


def untracked(record: Record) -> Record:
    """The same record, which notes no reading."""
    return dict(record.items())


def first(paths: Paths, record: Record) -> Any:
    """The value of the first alternative that has one."""
    for path in paths:
        if has(record, path):
            return find(record, path)
    return None


def name_at(paths: Paths, record: Record) -> str | None:
    value = first(paths, record)
    return name_of(value[0] if isinstance(value, list) and value else value)


def joined(record: Record, path: str) -> Any:
    """The value at a path; the texts of a joined one, by a line break."""
    if "+" not in path or path in record:
        value = find(record, path)
        # A field that every row of a group repeats.
        return value[0] if "[]." in path and value else value
    values = [find(record, part) for part in path.split("+")]
    texts = [value for value in values if not is_empty(value)]
    if not all(isinstance(text, str) for text in texts):
        raise BadRow(f"{path.replace('+', ' and ')} must be texts")
    return "\n".join(texts)


def per_answer(paths: Paths, record: Record) -> list[Any] | None:
    """A value for each answer, of a list or of joined fields; None if there is none."""
    for path in paths:
        if has(record, path):
            parts = path.split("+")
            return [find(record, part) for part in parts] if len(parts) > 1 else as_list(find(record, path), path)
    return None
