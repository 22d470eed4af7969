"""Decodes JSON from untrusted files: the size of a value is limited before it is decoded, and repeated keys are refused.

`NaN` and `Infinity`, which some programs write for a missing number, become null.
"""

from __future__ import annotations

import json
import re
from typing import Any

from storage.exchange.limits import MAX_JSON_DEPTH, Limits
from storage.exchange.rows import BadRow

# A string is one token, also an unclosed one: brackets in it are not structure.
_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]|,', re.DOTALL)


TOO_DEEP = f"not JSON: nested too deeply, more than {MAX_JSON_DEPTH} lists and objects"


class _RepeatedKey(Exception):
    """An object has the same key twice."""


def decode(text: str, limits: Limits = Limits()) -> Any:
    """Decodes a text that is one JSON value. Returns a `BadRow` if it is too large or has a repeated key.

    Raises:
        ValueError: the text is not JSON.
    """
    if found := too_large(text, 0, len(text), limits):
        return found
    try:
        return _STRICT.decode(text)
    except _RepeatedKey as error:
        return BadRow(str(error))


def decode_at(text: str, at: int) -> tuple[Any, int]:
    """Decodes the value that begins at `at`; returns it, or a `BadRow` if it has a repeated key, and the index of its end.

    Its size is not checked here: call `too_large`.

    Raises:
        ValueError: the text is not JSON, or is incomplete.
    """
    try:
        return _STRICT.raw_decode(text, at)
    except _RepeatedKey as error:
        return BadRow(str(error)), _PLAIN.raw_decode(text, at)[1]


def too_large(text: str, at: int, end: int, limits: Limits) -> BadRow | None:
    """The reason why the value between `at` and at most `end` must not be decoded; None if it may be."""
    opened = text.count("[", at, end) + text.count("{", at, end)
    # A quick upper bound, which counts commas in strings too. Only a text above it is tokenised.
    if opened <= MAX_JSON_DEPTH and opened + text.count(",", at, end) <= limits.values:
        return None
    depth = values = 0
    for token in _TOKENS.finditer(text, at, end):
        mark = token[0][0]
        if mark in "[{":
            depth += 1
            if depth > MAX_JSON_DEPTH:
                return BadRow(TOO_DEEP)
        elif mark in "]}":
            depth -= 1
        values += mark in "[{,"
        if values > limits.values:
            return BadRow(f"more than {limits.values:,} values in one row: import with a larger --max-row-mib if it is right")
        if depth <= 0 and mark in "]}":
            return None
    return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKey(f"the key {key[:40]!r} stands twice in one object")
            seen.add(key)
    return found


_STRICT = json.JSONDecoder(object_pairs_hook=_object, parse_constant=lambda name: None)
_PLAIN = json.JSONDecoder()
