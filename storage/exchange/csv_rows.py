"""Reads CSV and TSV as records, one at a time, with the headings as names.

Yields (line, record), with a `BadRow` for a row that cannot be read; `files` says which separator a file has.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from storage.core.database import StoreError
from storage.exchange import cells, encodings
from storage.exchange.limits import Limits, check_blank, too_long
from storage.exchange.rows import BadRow, Record

MAX_COLUMNS = 10_000
"""Maximum number of columns of a CSV file."""

SEPARATOR_LINE = ["sep=", ""]
"""A first line by which files name their separator to a spreadsheet, `sep=;`, as its fields."""


def rows(file: BinaryIO, path: Path, limits: Limits, delimiter: str) -> Iterator[tuple[int, Record | BadRow]]:
    # Invalid UTF-8 becomes lone surrogates, so that only its row is refused and not the file.
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        yield from _rows(text, path, limits, delimiter)


class _TooLong(Exception):
    pass


class _RecordLines:
    """The lines of a CSV file for `csv.reader`, with a limit for each record; the reader itself has one for fields only.

    Raises:
        _TooLong: the lines since `begin` have more characters than `most`.
    """

    def __init__(self, text: TextIO, most: int):
        self.text, self.most, self.taken = text, most, 0

    def begin(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.text.readline(self.most + 1 - self.taken)
        self.taken += len(line)
        if self.taken > self.most:
            raise _TooLong
        if not line:
            raise StopIteration
        return line


def _rows(text: TextIO, path: Path, limits: Limits, delimiter: str) -> Iterator[tuple[int, Record | BadRow]]:
    # This limit is global to the process. The limit of a record is enforced by `_RecordLines`.
    csv.field_size_limit(2**31 - 1)
    lines = _RecordLines(text, limits.row_bytes)
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    header: list[str] = []
    blank = 0
    while True:
        line = reader.line_num + 1
        lines.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except _TooLong:
            # The rest may still be inside a quoted text, and must not be read as rows.
            reason = f"{too_long(limits)}, or a quotation mark was never closed; nothing after it was read"
            yield line, BadRow(reason)
            return
        except csv.Error as error:
            yield line, BadRow(f"not CSV: {error}")
            continue
        # A spreadsheet writes rows of nothing but separators after its last one.
        if not any(fields):
            blank += 1
            check_blank(blank)
            continue
        if any(map(encodings.is_undecoded, fields)):
            yield line, BadRow(encodings.NOT_UTF8)
            if not header:
                return
            continue
        if not header and fields == SEPARATOR_LINE:
            continue
        if not header:
            header = [field.strip() for field in fields]
            _check_header(header, path)
            continue
        if len(fields) != len(header):
            yield line, BadRow(f"{len(fields)} fields under {len(header)} headings")
            continue
        if not limits.raw_cells:
            fields = [cells.raw(field) for field in fields]
        yield line, {name: field for name, field in zip(header, fields, strict=True) if field != ""}


def _check_header(header: list[str], path: Path) -> None:
    if len(header) > MAX_COLUMNS:
        raise StoreError(f"{path} has {len(header):,} columns, the limit is {MAX_COLUMNS:,}. Nothing was imported.")
    name, count = Counter(filter(None, header)).most_common(1)[0] if any(header) else ("", 1)
    if count > 1:
        raise StoreError(f"{path} has the column {name[:40]!r} {count} times: rename all but one. Nothing was imported.")
