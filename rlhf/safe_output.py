"""Escapes control characters in terminal output, because names, texts and errors may contain untrusted text.

A terminal executes control characters: they can move the cursor, forge lines, change the title or send input as the user.
Direction marks display a text in another order. Each is written as a JSON escape, `\\u001b`: it is visible, and JSON that
contains it keeps its meaning.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_INVISIBLE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0, DEL and C1; a tab and the end of a line are what they are
    "\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # direction marks, line ends, characters of no width
    "\U000e0000-\U000e007f"  # tags
    "\ud800-\udfff"  # half characters, which no terminal takes
    "]"
)
_ENDS_LINE = re.compile("[\t\n]")
_BAR_MOVES = re.compile(r"\r|(?:\n|\x1b\[A)+\Z")


def escape_controls(text: str) -> str:
    """The text with control and invisible characters escaped. Tabs and line ends stay."""
    return _INVISIBLE.sub(_escape, text)


def one_line(text: str) -> str:
    """As `escape_controls`, with tabs and line ends escaped too: for a cell of a table or a part of a line."""
    return _ENDS_LINE.sub(_escape, escape_controls(text))


class EscapingStream:
    """A text stream that escapes control characters and writes to another stream. Other attributes are those of that stream.

    `bars` lets through what progress bars write to redraw themselves: a carriage return at the start of a write, and writes
    that only move between lines.
    """

    def __init__(self, stream: TextIO, *, bars: bool = False):
        # tqdm looks for this name to see whether two streams are the same.
        self._wrapped, self._bars = stream, bars

    def write(self, text: str) -> int:
        kept = (_BAR_MOVES.match(text) or [""])[0] if self._bars else ""
        self._wrapped.write(kept + _encodable(escape_controls(text[len(kept) :]), self._wrapped))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


@contextmanager
def escaped_output() -> Iterator[None]:
    """Escapes everything that is printed inside, errors and logs too."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = EscapingStream(sys.stdout), EscapingStream(sys.stderr, bars=True)
    try:
        yield
    except Exception:
        # The interpreter prints the traceback after this, and it is escaped too.
        raise
    except BaseException:
        sys.stdout, sys.stderr = before
        raise
    sys.stdout, sys.stderr = before


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\u{0xD800 + (code - 0x10000 >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def _encodable(text: str, stream: TextIO) -> str:
    """Escapes letters that the terminal's encoding lacks, in place of an error while writing."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text
