"""The files that exports write: each opens one for rows, which appears whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from storage.core.database import to_json
from storage.exchange import atomic_files, cells
from storage.exchange.rows import Record

Row = Record | str
"""A row, or its JSON text."""

WriteRow = Callable[[Any], object]

Sink = Callable[[Path | str], AbstractContextManager[WriteRow]]


@contextmanager
def lines(path: Path | str) -> Iterator[WriteRow]:
    """JSON, a row a line."""
    with atomic_files.atomic_write_text(path) as file:
        yield lambda row: file.write((row if isinstance(row, str) else to_json(row)) + "\n")


@contextmanager
def json_list(path: Path | str) -> Iterator[WriteRow]:
    """One JSON list."""
    with atomic_files.atomic_write_text(path) as file:
        before = "[\n"

        def write_row(row: Row) -> None:
            nonlocal before
            file.write(before + (row if isinstance(row, str) else to_json(row)))
            before = ",\n"

        yield write_row
        file.write("[\n]\n" if before == "[\n" else "\n]\n")


@contextmanager
def csv_table(path: Path | str, *, columns: Sequence[str], raw: bool = False) -> Iterator[WriteRow]:
    """CSV with a line of headings; lists and objects as JSON. What a spreadsheet would take for a formula is made text, unless `raw`."""
    with atomic_files.atomic_write_text(path) as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        yield lambda row: writer.writerow({name: _cell(value, raw) for name, value in row.items()})


def _cell(value: Any, raw: bool) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return to_json(value) if raw else cells.neutral_json(to_json(value))
    return cells.neutral(value) if isinstance(value, str) and not raw else value
