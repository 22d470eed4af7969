"""JSON from files of strangers: the size of what comes out is known before it is made, and a key stands once in an object.

`NaN` and `Infinity`, which some programs write for a missing number, are null.
"""

from __future__ import annotations

import json
import re
from typing import Any

from storage.exchange.limits import DEEPEST, Limits
from storage.exchange.rows import BadRow

# A string is one token, unclosed too: what stands in it is no structure.
_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]|,', re.DOTALL)


TOO_DEEP = f"not JSON: nested too deeply, more than {DEEPEST} lists and objects"


class _RepeatedKey(Exception):
    """A key stands twice in one object."""


def decode(text: str, limits: Limits = Limits()) -> Any:
    """The one value that the text is; a `BadRow` where it is too large or ambiguous.

    Raises:
        ValueError: it is not JSON.
    """
    if found := too_large(text, 0, len(text), limits):
        return found
    try:
        return _STRICT.decode(text)
    except _RepeatedKey as error:
        return BadRow(str(error))


def decode_at(text: str, at: int) -> tuple[Any, int]:
    """The value that begins there, or a `BadRow` where it is ambiguous, and where it ends. Its size is for `too_large` to say.

    Raises:
        ValueError: it is not JSON, or not the whole of it.
    """
    try:
        return _STRICT.raw_decode(text, at)
    except _RepeatedKey as error:
        return BadRow(str(error)), _PLAIN.raw_decode(text, at)[1]


def too_large(text: str, at: int, end: int, limits: Limits) -> BadRow | None:
    """Why the value that begins there, and ends there at last, must not be decoded; None if it may."""
    opened = text.count("[", at, end) + text.count("{", at, end)
    # Commas in texts count too here: what is not suspicious is not looked at twice.
    if opened <= DEEPEST and opened + text.count(",", at, end) <= limits.values:
        return None
    depth = values = 0
    for token in _TOKENS.finditer(text, at, end):
        mark = token[0][0]
        if mark in "[{":
            depth += 1
            if depth > DEEPEST:
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
