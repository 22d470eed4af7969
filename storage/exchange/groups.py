"""Puts rows that follow each other and belong together into one record: the answers to one prompt, the messages of one tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from storage.exchange.rows import Record, Row

MAX_GROUP_ROWS = 5_000
"""Most rows of one group: they are in memory together."""

MAX_GROUP_CHARS = 16_000_000
"""A group ends when its rows have this many characters and fields: a later row begins another one."""


def grouped(records: Iterable[tuple[int, Row]], field: str | None) -> Iterator[tuple[int, Row]]:
    """(number of the first row, `{"rows": [...]}`) for rows in a row with the same value of the field; without a field, each record.

    What is no record is yielded as it is, and does not end a group.
    """
    if field is None:
        yield from records
        return
    begin, key, size = 0, None, 0
    rows: list[Record] = []
    for number, record in records:
        if not isinstance(record, dict):
            yield number, record
            continue
        if rows and (record.get(field) != key or len(rows) >= MAX_GROUP_ROWS or size >= MAX_GROUP_CHARS):
            yield begin, {"rows": rows}
            rows, size = [], 0
        if not rows:
            begin, key = number, record.get(field)
        rows.append(record)
        size += sum(1 + len(value) if isinstance(value, str) else 1 for value in record.values())
    if rows:
        yield begin, {"rows": rows}
