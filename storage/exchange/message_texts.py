"""Messages that stand in a field as text, as JSON: cells of CSV always, and columns of Parquet and JSON that once were such cells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from storage.exchange import strict_json
from storage.exchange.limits import Limits
from storage.exchange.rows import BadRow, ReadAs, Row

MESSAGES = "messages, from their JSON text"

_JSON = re.compile(r'\s*\[\s*\{\s*"(?:role|content|from|value)"\s*:')
_PYTHON = re.compile(r"\s*\[\s*\{\s*'(?:role|content|from|value)'\s*:")
_ROLES = {"role", "from"}


def decoded(rows: Iterable[tuple[int, Row]], limits: Limits = Limits()) -> Iterator[tuple[int, Row]]:
    """The rows with the messages in their texts; each such field is told once."""
    told: set[str] = set()
    for number, row in rows:
        if not isinstance(row, dict) or not (found := [name for name, value in row.items() if _is_text_of_messages(value)]):
            yield number, row
            continue
        try:
            values = {name: _value(name, row[name], limits) for name in found}
        except BadRow as error:
            yield number, error
            continue
        for name in found:
            if name not in told and not isinstance(values[name], str):
                told.add(name)
                yield number, ReadAs(name, MESSAGES)
        yield number, row | values


def _is_text_of_messages(value: Any) -> bool:
    return isinstance(value, str) and bool(_JSON.match(value) or _PYTHON.match(value))


def _value(name: str, text: str, limits: Limits) -> Any:
    """The messages of a text, or the text if it has other JSON.

    Raises:
        BadRow: it holds messages as Python prints them, which would become one text otherwise.
    """
    if _PYTHON.match(text):
        raise BadRow(f"{name} holds messages as Python prints them, not as JSON: write the file with JSON in its cells")
    try:
        value = strict_json.decode(text, limits)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, BadRow) or not all(isinstance(item, dict) and _ROLES & set(item) for item in value) else value
