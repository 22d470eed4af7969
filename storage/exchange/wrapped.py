"""Rows that stand inside one object: `{"data": [...]}`, `{"train": [...], "test": [...]}`, columns beside each other, rows by their id.

The first document of a file is looked at, a piece at a time, and says where the rows are; the file is then read with only one row in
memory. A document that is itself a row of a known format stays one. What stands beside the rows is counted by name.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from storage.core.database import StoreError
from storage.exchange import unread
from storage.exchange.columns import fold
from storage.exchange.field_maps import PROMPT_COLUMNS, SYSTEM_COLUMNS
from storage.exchange.json_rows import Elements, decoded, record_of
from storage.exchange.limits import Limits
from storage.exchange.rows import BadRow, Left, ReadAs, Record, Row

IsRow = Callable[[Record], bool]
"""Whether an object is a row of a known format."""

# fmt: off
LISTS = frozenset({"data", "rows", "items", "examples", "instances", "results", "records", "samples", "entries", "dataset", "datasets",
    "documents", "docs", "prompts", "questions", "instructions", "queries", "conversations", "comparisons", "pairs", "preferences",
    "judgments", "battles", "votes", "tasks", "objects", "hits", "edges", "list", "elements", "payload"})
TRAINING = frozenset({"train", "training", "train_prefs", "train_sft", "train_gen"})
HELD_OUT = frozenset({"test", "validation", "valid", "val", "dev", "eval", "evaluation", "heldout", "held_out", "test_prefs", "test_sft",
    "test_gen"})
INSIDE = ("row", "item", "record", "example", "node", "fields", "_source", "value", "data", "doc", "sample")
NUMBERING = frozenset({"row_idx", "truncated_cells", "num_rows_total", "num_rows_per_page", "num_rows", "partial", "total", "count",
    "total_count", "length", "size", "page", "per_page", "limit", "offset", "next", "previous", "has_more", "cursor", "index", "id", "_id",
    "features", "schema", "createdTime", "_index", "_type", "_score"})
HEADINGS = ("columns", "column_names", "header", "headers", "headings")
# fmt: on
"""Names of lists of rows, of splits, of what holds a row, of what only numbers rows, and of the list of headings beside lists of cells."""

SHOWN = 3
"""Items of each list that are looked at."""

MAX_NAMES = 100_000
"""Most members that are looked at."""

PARTS = frozenset(map(fold, (*PROMPT_COLUMNS, *SYSTEM_COLUMNS, "text", "input", "instruction", "turns")))
"""Names of parts of a prompt. Beside a text of such a name a list holds the answers to it, and no rows."""

Kind = Literal["lists", "rows", "columns", "by id", "cells"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the rows of a file stand in its documents."""

    kind: Kind
    lists: tuple[str, ...] = ()
    """Paths of the lists that hold rows, at most one name deep."""
    inside: str = ""
    """The member of each row that holds what the row says; empty if the row does."""
    headings: str = ""
    """The list of headings, where each row is a list of cells."""
    texts: bool = False
    """Whether the items are texts, each of which is a prompt."""


@dataclass(slots=True)
class _Seen:
    """What a document holds: of each list the first items and the length."""

    values: Record = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)

    def objects(self) -> list[str]:
        """The lists of objects, other than messages and answers."""
        return [
            name
            for name in self.lengths
            if isinstance(self.values[name][0], dict) and not _is_message(self.values[name][0]) and not unread.names_answers(name)
        ]

    def texts(self) -> list[str]:
        return [name for name in self.lengths if all(isinstance(item, str) for item in self.values[name])]


def layout_of(file: BinaryIO, path: Path, limits: Limits, is_row: IsRow) -> Layout | None:
    """Where the rows of a JSON file stand; None if its documents are the rows, or no JSON.

    Raises:
        StoreError: it holds several lists of rows, and nothing says which are meant.
    """
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape") as text:
        return _layout(Elements(text, limits), path, is_row)


def _layout(elements: Elements, path: Path, is_row: IsRow) -> Layout | None:
    if elements.opens_list:
        return _of_rows(next(iter(elements), None), is_row)
    seen = _look(elements)
    if seen is None:
        return None
    alone = not elements.follows
    if alone and elements.read_chars <= elements.limits.row_bytes and (kind := _as_table(seen, is_row)):
        return Layout(kind)
    if is_row(seen.values) or any(fold(name) in PARTS and isinstance(value, str) for name, value in seen.values.items()):
        return None
    if headings := next((name for name in HEADINGS if name in seen.texts()), ""):
        cells = [name for name in seen.lengths if all(isinstance(item, list) for item in seen.values[name])]
        return Layout("cells", (cells[0],), headings=headings) if len(cells) == 1 else None
    if lists := _lists(seen, path, alone) or _nested(seen, path, alone):
        first = _first(seen.values, lists[0])
        return Layout("lists", lists, _inside(first, is_row), texts=isinstance(first, str))
    return _of_rows(seen.values, is_row)


def _of_rows(first: Any, is_row: IsRow) -> Layout | None:
    inside = _inside(first, is_row)
    return Layout("rows", inside=inside) if inside else None


def _look(elements: Elements) -> _Seen | None:
    """What the first document holds, as far as it can be read; None if that is no list, or if it has too many members."""
    seen = _Seen()
    for name, value, is_item in elements.members():
        if len(seen.values) > MAX_NAMES:
            return None
        if isinstance(value, BadRow):
            # The reader names it after the rows before it.
            return seen if seen.lengths else None
        # What is larger than a row is none: then only the kinds of values matter.
        kept = value if elements.read_chars <= 2 * elements.limits.row_bytes else _kind_of(value)
        if not is_item:
            seen.values[name] = kept
            continue
        seen.lengths[name] = seen.lengths.get(name, 0) + 1
        if seen.lengths[name] <= SHOWN:
            seen.values.setdefault(name, []).append(kept)
    return seen


def _kind_of(value: Any) -> Any:
    return {} if isinstance(value, dict) else "" if isinstance(value, str) else value


def _as_table(seen: _Seen, is_row: IsRow) -> Kind | None:
    """Whether an object holds columns beside each other, or rows by their id."""
    values = seen.values
    if len(values) < 2:
        return None
    if len(seen.lengths) == len(values):
        if all(map(_split_of, values)):
            return None
        # A cell may hold the messages of its row; a list of messages is no column.
        cells = all(not isinstance(item, dict) for items in values.values() for item in items)
        lengths = set(seen.lengths.values())
        return "columns" if cells and len(lengths) == 1 and lengths != {1} else None
    if not all(isinstance(value, dict) and value for value in values.values()):
        return None
    first, *rest = values.values()
    # What pandas writes by default: each column an object of its values by the number of the row.
    if all(name.isdecimal() for name in first) and all(list(other) == list(first) for other in rest):
        return "columns"
    return "by id" if all(is_row(value) for value in values.values()) else None


def _lists(seen: _Seen, path: Path, alone: bool) -> tuple[str, ...]:
    """The lists of rows of a document; empty if it has none.

    Raises:
        StoreError: it holds several, and nothing says which are meant.
    """
    objects = seen.objects()
    if splits := [name for name in objects or seen.texts() if _split_of(name)]:
        others = [name for name in objects if name not in splits and name.lower() in LISTS]
        if not others:
            return tuple(splits)
        raise _several(path, [*splits, *others])
    named = [name for name in objects if name.lower() in LISTS]
    if len(named) > 1 or (not named and len(objects) > 1 and alone and len(objects) == len(seen.values)):
        raise _several(path, named or objects)
    if named or (len(objects) == 1 and alone):
        return tuple(named or objects)
    texts = [name for name in seen.texts() if name.lower() in LISTS]
    return tuple(texts) if len(texts) == 1 and not objects else ()


def _nested(seen: _Seen, path: Path, alone: bool) -> tuple[str, ...]:
    """The lists of rows in the only object of a document that holds any, as paths."""
    found = {name: lists for name, value in seen.values.items() if isinstance(value, dict) and (lists := _lists_in(value, path, alone))}
    if len(found) != 1 or not alone:
        return ()
    ((name, lists),) = found.items()
    return tuple(f"{name}.{inner}" for inner in lists)


def _lists_in(value: Mapping[str, Any], path: Path, alone: bool) -> tuple[str, ...]:
    within = _Seen()
    for name, inner in value.items():
        within.values[name] = inner[:SHOWN] if isinstance(inner, list) else inner
        if isinstance(inner, list) and inner:
            within.lengths[name] = len(inner)
    return _lists(within, path, alone)


def _several(path: Path, names: list[str]) -> StoreError:
    shown = ", ".join(_printable(name) for name in names[:5]) + (", …" if len(names) > 5 else "")
    return StoreError(f"{path} holds several lists of rows ({shown}): write each into a file of its own. Nothing was imported.")


def _inside(item: Any, is_row: IsRow) -> str:
    """The member of an item that holds its row; empty if the item is the row."""
    if not isinstance(item, dict) or is_row(item):
        return ""
    found = [name for name in INSIDE if isinstance(item.get(name), dict)]
    others = [name for name, value in item.items() if isinstance(value, (dict, list)) and value and name not in (*found, *NUMBERING)]
    return found[0] if len(found) == 1 and not others else ""


def rows(file: BinaryIO, limits: Limits, layout: Layout) -> Iterator[tuple[int, Row]]:
    """The rows of a file that has this layout. Numbers count the rows."""
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape") as text:
        yield from _numbered(Elements(text, limits), layout)


def _numbered(elements: Elements, layout: Layout) -> Iterator[tuple[int, Row]]:
    number = 0
    beside: dict[str, int] = {}
    for row in _rows(elements, layout, beside):
        number += not isinstance(row, ReadAs)
        yield max(number, 1), row
    for name, count in beside.items():
        yield max(number, 1), Left(f"{name} beside the rows", count, harmless=name in NUMBERING)


def _rows(elements: Elements, layout: Layout, beside: dict[str, int]) -> Iterator[Row]:
    if layout.kind == "columns":
        yield ReadAs("columns beside each other", "rows")
        yield from _from_columns(elements)
        return
    for name in layout.lists:
        yield ReadAs(name, "rows")
    if layout.kind == "by id":
        yield ReadAs("each member of the object", "a row")
    if layout.inside:
        yield ReadAs(f"{layout.inside} of each row", "the row")
    if layout.kind == "rows":
        for value in elements:
            yield _unwrapped(decoded(value), layout, beside)
        return
    while elements.follows and not elements.ended:
        yield from _members(elements, layout, beside)


def _members(elements: Elements, layout: Layout, beside: dict[str, int]) -> Iterator[Row]:
    """The rows of the document that follows."""
    headings: list[str] = []
    found: set[str] = set()
    for name, value, is_item in elements.members():
        value = decoded(value)
        if isinstance(value, BadRow):
            yield value
        elif layout.headings and name == layout.headings:
            headings += [value] if is_item else []
        elif name in layout.lists:
            found.add(name)
            if is_item:
                yield _cells(headings, value) if layout.headings else _split(_unwrapped(value, layout, beside), name)
        elif layout.kind == "by id":
            yield record_of(value)
        elif (nested := [path for path in layout.lists if path.startswith(f"{name}.")]) and isinstance(value, dict):
            yield from _of_nested(value, name, nested, layout, beside)
            found.update(nested)
        elif not is_item and not _is_empty(value):
            beside[name] = beside.get(name, 0) + 1
        elif is_item:
            beside[name] = max(beside.get(name, 0), 1)
    if layout.lists and not found and not elements.ended:
        yield BadRow(f"has no list {' or '.join(layout.lists)}, as the document before it has")


def _of_nested(value: Mapping[str, Any], name: str, paths: list[str], layout: Layout, beside: dict[str, int]) -> Iterator[Row]:
    for inner, items in value.items():
        path = f"{name}.{inner}"
        if path in paths and isinstance(items, list):
            yield from (_split(_unwrapped(item, layout, beside), inner) for item in items)
        elif not _is_empty(items):
            beside[path] = beside.get(path, 0) + 1


def _unwrapped(item: Any, layout: Layout, beside: dict[str, int]) -> Record | BadRow:
    """The row in an item. A row whose cells the datasets viewer shortened is refused."""
    if not layout.inside or not isinstance(item, dict):
        return record_of(item, texts=layout.texts)
    if cut := item.get("truncated_cells"):
        return BadRow(f"its cells were shortened where it comes from: {', '.join(map(str, cut))[:80]}; download the file itself")
    for name, value in item.items():
        if name != layout.inside and not _is_empty(value):
            beside[name] = beside.get(name, 0) + 1
    return record_of(item.get(layout.inside))


def _split(row: Record | BadRow, name: str) -> Record | BadRow:
    """The row with the split of the list that it stands in, unless it has one."""
    split = _split_of(name)
    return row | {"split": split} if split and isinstance(row, dict) and "split" not in row else row


def _split_of(name: str) -> str:
    lower = name.lower()
    return "train" if lower in TRAINING else "heldout" if lower in HELD_OUT else ""


def _cells(headings: list[str], cells: Any) -> Record | BadRow:
    if not isinstance(cells, list) or len(cells) != len(headings) or not all(isinstance(name, str) for name in headings):
        return BadRow(f"must have a cell for each of the {len(headings)} headings, which come before the rows")
    return {name: value for name, value in zip(headings, cells, strict=True) if value is not None}


def _from_columns(elements: Elements) -> Iterator[Row]:
    """The rows of a document whose members are columns: lists, or objects of their values by the number of the row."""
    document = decoded(elements.document())
    if isinstance(document, BadRow):
        yield document
        return
    columns = {name: list(values.values()) if isinstance(values, dict) else values for name, values in document.items()}
    for cells in zip(*columns.values(), strict=True):
        yield {name: value for name, value in zip(columns, cells, strict=True) if value is not None}


def _first(values: Record, path: str) -> Any:
    name, _, inner = path.partition(".")
    items = values[name][inner] if inner else values[name]
    return items[0] if items else None


def _is_message(item: Mapping[str, Any]) -> bool:
    return ("role" in item and ("content" in item or "text" in item)) or ("from" in item and "value" in item)


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value == [] or value == {}


def _printable(name: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name[:40])
