"""Records that know which of their fields a reader has read, so that an import can name what it leaves behind.

A field counts as read once a reader has taken its value; looking for its name, or going through all items, does not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from storage.exchange.rows import Record

MAX_FIELD_NAMES = 100
"""Most names of one count: a file may have a new field in every row. All further ones are counted together."""

MAX_FIELD_CHARS = 80
"""Longest name in characters."""

ROW_NUMBERS = ("", "Unnamed: 0", "__index_level_0__")
"""Names of the column in which pandas writes the numbers of the rows."""

OTHER_FIELDS = "other fields"
"""The name under which fields beyond `MAX_FIELD_NAMES` are counted."""


_REPEATED = re.compile(r"(\w+\[\]\.)\1+")
"""What stands in itself, such as replies to replies, is one field."""


_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""A UUID, under which some files put each message of a chat."""


class Tracked(dict[str, Any]):
    """A record whose values are marked as read when they are taken; objects in it, and in lists in it, are tracked too."""

    __slots__ = ("_children", "_read")

    def __init__(self, record: Record):
        super().__init__(record)
        self._read: set[str] = set()
        self._children: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        self._read.add(key)
        if not isinstance(value, (dict, list, tuple)):
            return value
        if key not in self._children:
            self._children[key] = _tracked(value)
        return self._children[key]

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401

    def unread(self, prefix: str = "") -> Iterator[str]:
        """The paths of the fields that have a value and were not read: `source`, `info.site`, `answers[].note`."""
        for key, value in self.items():
            if value is None or value == "" or value == [] or value == {}:
                continue
            # What stands under its id stands in a list, as far as its name goes.
            path = prefix.removesuffix(".") + "[]" if _ID.fullmatch(key) else prefix + key
            if key not in self._read:
                yield path
            elif key in self._children:
                yield from _unread(self._children[key], path)


def _tracked(value: Any) -> Any:
    if isinstance(value, dict):
        return Tracked(value)
    if isinstance(value, (list, tuple)):
        return [_tracked(item) for item in value]
    return value


def _unread(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Tracked):
        yield from value.unread(path + ".")
    elif isinstance(value, list):
        for item in value:
            yield from _unread(item, path + "[]")


def count(counts: dict[str, int], name: str, number: int = 1) -> None:
    """Adds to the count of a name, which may come from a file: it is shortened, and made safe to print."""
    name = shown(_REPEATED.sub(r"\1", name))
    if name not in counts and len(counts) >= MAX_FIELD_NAMES:
        name = OTHER_FIELDS
    counts[name] = counts.get(name, 0) + number


def shown(name: str) -> str:
    """A name from a file, shortened and safe to print."""
    name = name or "a field without a name"
    cut = name if len(name) <= MAX_FIELD_CHARS else name[: MAX_FIELD_CHARS - 1] + "…"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut)


def read_otherwise(read_as: Mapping[str, str]) -> str:
    """What was read under another name than its own, as text."""
    return ", ".join(f"{name} as {what}" for name, what in read_as.items())


def left_behind(left: Mapping[str, int]) -> str:
    """The counts of what was not kept, as text, the most frequent first."""
    return ", ".join(f"{name} ({number:,})" for name, number in sorted(left.items(), key=lambda one: (-one[1], one[0])))
