"""What a terminal is given to show, made harmless: names, texts and errors may come from anybody.

A terminal takes control characters for commands: they move the cursor, forge lines, change its title, answer on its
keyboard's behalf; and marks of writing direction show a text in another order than it has. Each is written as JSON would
write it, `\\u001b`, so that it is seen, and JSON that holds it stays JSON with the same content.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_UNSEEN = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0, DEL and C1; a tab and the end of a line are what they are
    "\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # directions, line ends, things of no width
    "\U000e0000-\U000e007f"  # tags
    "\ud800-\udfff"  # half characters, which no terminal takes
    "]"
)
_ENDS_LINE = re.compile("[\t\n]")
_BAR_MOVES = re.compile(r"\r|(?:\n|\x1b\[A)+\Z")


def escape_controls(text: str) -> str:
    """The text with every character that commands a terminal or cannot be seen written out. Lines stay lines."""
    return _UNSEEN.sub(_written_out, text)


def one_line(text: str) -> str:
    """As `escape_controls`, for what stands in a line among others, as a cell of a table does: it cannot begin a line of its own."""
    return _ENDS_LINE.sub(_written_out, escape_controls(text))


class EscapingStream:
    """A text stream that writes `escape_controls` text to another. All else, as its `buffer`, is the other's.

    `bars` lets through what progress bars, our own and those of libraries, write to draw themselves anew: a return to
    the line's beginning as the first thing of a write, and writes that only move between lines.
    """

    def __init__(self, stream: TextIO, *, bars: bool = False):
        # Under this name tqdm finds out that two streams are one.
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
    """Everything that is printed inside is made visible, errors and logs too."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = EscapingStream(sys.stdout), EscapingStream(sys.stderr, bars=True)
    try:
        yield
    except Exception:
        # The interpreter prints what ended the program only after this, and that is made visible too.
        raise
    except BaseException:
        sys.stdout, sys.stderr = before
        raise
    sys.stdout, sys.stderr = before


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\u{0xD800 + (code - 0x10000 >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def _encodable(text: str, stream: TextIO) -> str:
    """Letters that the terminal's encoding has not got written out too, rather than an error half-way."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text
