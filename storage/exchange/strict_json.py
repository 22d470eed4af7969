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


class Decoder:
    """Decodes one value after the other; not for several threads at once."""

    def __init__(self, limits: Limits = Limits()):
        self.limits = limits
        self._twice: str | None = None
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=lambda name: None)

    def decode(self, text: str) -> Any:
        """The one value that the text is; a `BadRow` where it is too large or ambiguous.

        Raises:
            ValueError: it is not JSON.
        """
        if found := self.too_large(text, 0):
            return found
        self._twice = None
        return self._checked(self._decoder.decode(text))

    def decode_at(self, text: str, at: int) -> tuple[Any, int]:
        """The value that begins there and where it ends; `too_large` must have been asked before.

        Raises:
            ValueError: it is not JSON, or not the whole of it.
        """
        self._twice = None
        value, end = self._decoder.raw_decode(text, at)
        return self._checked(value), end

    def too_large(self, text: str, at: int) -> BadRow | None:
        """Why the value that begins there must not be decoded; None if it may."""
        opened = text.count("[", at) + text.count("{", at)
        # Commas in texts count too here: what is not suspicious is not looked at twice.
        if opened <= DEEPEST and opened + text.count(",", at) <= self.limits.values:
            return None
        depth = values = 0
        for token in _TOKENS.finditer(text, at):
            mark = token[0][0]
            if mark in "[{":
                depth += 1
                if depth > DEEPEST:
                    return BadRow(f"not JSON: nested too deeply, more than {DEEPEST} lists and objects")
            elif mark in "]}":
                depth -= 1
            values += mark in "[{,"
            if values > self.limits.values:
                return BadRow(f"more than {self.limits.values:,} values in one row: import with a larger --max-row-mib if it is right")
            if depth <= 0 and mark in "]}":
                return None
        return None

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs) and self._twice is None:
            seen: set[str] = set()
            self._twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        return found

    def _checked(self, value: Any) -> Any:
        return value if self._twice is None else BadRow(f"the key {self._twice[:40]!r} stands twice in one object")
