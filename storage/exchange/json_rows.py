"""Reads JSON as records, one at a time: lines, lists and documents. Only one record and a small buffer are in memory.

Each reader yields (number, record), with a `BadRow` for a record that cannot be read; `files` says which reader a file needs.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, TextIO

from storage.exchange import encodings, strict_json
from storage.exchange.limits import CHUNK_BYTES, Limits, check_blank, too_long
from storage.exchange.rows import BadRow, Record, Row

MAX_NUMBER_CHARS = 400
"""Characters that a number takes at most."""


def lines(file: BinaryIO, limits: Limits) -> Iterator[tuple[int, Row]]:
    yield from _as_records(_lines(file, limits))


def _lines(file: BinaryIO, limits: Limits) -> Iterator[tuple[int, Any]]:
    number = blank = 0
    # One more byte for the line break.
    while line := file.readline(limits.row_bytes + 1):
        number += 1
        if len(line) > limits.row_bytes and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(CHUNK_BYTES)
            yield number, too_long(limits)
            continue
        # Files that were joined have one in the middle too.
        line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield number, _value_of(line, limits)
        else:
            blank += 1
            check_blank(blank)


def _value_of(line: bytes, limits: Limits) -> Any:
    try:
        return strict_json.decode(line.decode(), limits)
    except UnicodeDecodeError:
        return BadRow(encodings.NOT_UTF8)
    except (ValueError, RecursionError):
        return BadRow("not JSON")


def _as_records(values: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Row]]:
    """The values as records. In a file that begins with a text, each text is a prompt."""
    texts: bool | None = None
    for number, value in values:
        if texts is None and not isinstance(value, BadRow):
            texts = isinstance(value, str)
        yield number, record_of(value, texts=bool(texts))


def record_of(value: Any, *, texts: bool = False) -> Record | BadRow:
    """A JSON value as a record; if texts are meant to be prompts, a text too."""
    if texts and isinstance(value, str):
        return {"prompt": value}
    return value if isinstance(value, (dict, BadRow)) else BadRow("not a JSON object")


def of_lines(lines: Iterator[bytes], limits: Limits) -> Iterator[tuple[int, Row]]:
    """Decodes rows of Parquet, each of which is a line of JSON."""
    for number, line in enumerate(lines, start=1):
        row = too_long(limits) if len(line) > limits.row_bytes else record_of(_value_of(line, limits))
        # A row has null in the columns for which it has no value.
        yield number, row if isinstance(row, BadRow) else {name: value for name, value in row.items() if value is not None}


def documents(file: BinaryIO, limits: Limits) -> Iterator[tuple[int, Row]]:
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape") as text:
        yield from _as_records(enumerate(map(decoded, Elements(text, limits)), start=1))


def decoded(value: Any) -> Any:
    """The value, unless it holds bytes that are no UTF-8."""
    return BadRow(encodings.NOT_UTF8) if encodings.is_undecoded(value) else value


class Elements:
    """Iterates over JSON documents, the elements of lists one by one, and reads the file as needed. It ends at invalid JSON."""

    _space = re.compile(r"[ \t\r\n\x1e\ufeff]*")

    def __init__(self, file: TextIO, limits: Limits):
        self.file = file
        self.limits = limits
        self.buffer = ""
        self.at = 0
        self.ended = False
        self.exhausted = False
        self.read_chars = 0

    def __iter__(self) -> Iterator[Any]:
        while character := self._next_character():
            if character == "[":
                self.at += 1
                yield from self._list()
            elif character == "{":
                yield self._value()
            else:
                yield self._end("not JSON; nothing after it was read")
            if self.ended:
                return

    def members(self) -> Iterator[tuple[str, Any, bool]]:
        """The members of the object that follows, as (name, value, False); of a list that is not empty each item, as (name, item, True).

        It ends with a `BadRow` under the name `""` where the object is no JSON.
        """
        if self._next_character() != "{":
            yield "", self._end("not a JSON object; nothing after it was read"), False
            return
        self.at += 1
        seen: set[str] = set()
        while (character := self._next_character()) != "}":
            name = self._value() if character == '"' else None
            if not isinstance(name, str) or name in seen or self._next_character() != ":":
                yield "", self._end("not JSON, or the same name twice; nothing after it was read"), False
                return
            seen.add(name)
            self.at += 1
            if self._next_character() == "[":
                self.at += 1
                if self._next_character() == "]":
                    yield name, [], False
                for item in self._list():
                    yield name, item, True
            else:
                yield name, self._value(), False
            if self.ended:
                return
            if self._next_character() == ",":
                self.at += 1
            elif self._next_character() != "}":
                yield "", self._end("the object breaks off; nothing after it was read"), False
                return
        self.at += 1

    def document(self) -> Any:
        """The value that follows."""
        return self._value()

    @property
    def opens_list(self) -> bool:
        """Whether a list follows."""
        return self._next_character() == "["

    @property
    def follows(self) -> bool:
        """Whether anything follows."""
        return bool(self._next_character())

    def _list(self) -> Iterator[Any]:
        if self._next_character() == "]":
            self.at += 1
            return
        while True:
            value = self._value()
            yield value
            if self.ended:
                return
            after = self._next_character()
            self.at += 1
            if after == "]":
                return
            if after != ",":
                yield self._end("the list breaks off after the row before this one")
                return

    def _value(self) -> Any:
        self._next_character()
        while True:
            # Two chunks decode to a small value in any case, so the size is checked only for longer ones.
            if len(self.buffer) - self.at > 2 * CHUNK_BYTES and (refused := self._too_large(len(self.buffer))):
                return self._end(f"{refused}; nothing after it was read")
            try:
                value, end = strict_json.decode_at(self.buffer, self.at)
                # A number may go on in what is not read yet.
                if isinstance(value, (int, float)) and len(self.buffer) - end < MAX_NUMBER_CHARS and not self.exhausted:
                    self._read(CHUNK_BYTES)
                    continue
                value = self._too_large(end) or value
                self.at = end
                return value
            except RecursionError:
                return self._end(f"{strict_json.TOO_DEEP}; nothing after it was read")
            except ValueError:
                buffered = len(self.buffer) - self.at
                if buffered > self.limits.row_bytes:
                    return self._end(f"{too_long(self.limits)}, or not JSON; nothing after it was read")
                # The buffer doubles each time, so that a long element is not scanned again for every chunk.
                if not self._read(max(CHUNK_BYTES, buffered)):
                    return self._end("not JSON, nothing after it was read")

    def _too_large(self, end: int) -> BadRow | None:
        return strict_json.too_large(self.buffer, self.at, end, self.limits)

    def _end(self, reason: str) -> BadRow:
        self.ended = True
        return BadRow(reason)

    def _next_character(self) -> str:
        while True:
            if space := self._space.match(self.buffer, self.at):
                self.at = space.end()
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self._read(CHUNK_BYTES):
                return ""

    def _read(self, characters: int) -> bool:
        more = self.file.read(characters)
        self.exhausted = not more
        self.read_chars += len(more)
        self.buffer = self.buffer[self.at :] + more
        self.at = 0
        return bool(more)
