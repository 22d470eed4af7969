"""Reads plain text as prompts: one for each line, or one for each paragraph. Blank lines are left out and counted.

Yields (line, record), with a `BadRow` for a text that cannot be read.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from storage.exchange import encodings
from storage.exchange.columns import fold
from storage.exchange.limits import CHUNK_BYTES, Limits, check_blank, too_long
from storage.exchange.rows import BadRow, Left, ReadAs, Row

BLANK = "blank lines"

HEADINGS = frozenset(("prompt", "prompts", "question", "questions", "instruction", "instructions", "query", "queries", "text", "texts"))
"""First lines, as `fold` spells them, that are the heading of a column and no prompt."""


def lines(file: BinaryIO, limits: Limits) -> Iterator[tuple[int, Row]]:
    """A prompt for each line that is neither blank nor a heading, without the white space around it."""
    blank = 0
    first = True
    yield 1, ReadAs("each line of text", "a prompt")
    for number, line in _lines(file, limits):
        if isinstance(line, BadRow):
            yield number, line
        elif line.strip() and first and fold(line) in HEADINGS:
            yield number, ReadAs(f"the first line, {line.strip()},", "a heading")
        elif line.strip():
            yield number, {"prompt": line.strip()}
        else:
            blank += 1
            check_blank(blank)
            continue
        first = False
    if blank:
        yield 1, Left(BLANK, blank, harmless=True)


def paragraphs(file: BinaryIO, limits: Limits) -> Iterator[tuple[int, Row]]:
    """A prompt for each run of lines without a blank one between them."""
    blank = begin = size = 0
    together: list[str] = []
    wrong: BadRow | None = None
    yield 1, ReadAs("each paragraph of text", "a prompt")
    for number, line in _lines(file, limits):
        if isinstance(line, str) and not line.strip():
            blank += 1
            check_blank(blank)
            if together or wrong:
                yield begin, wrong or {"prompt": "\n".join(together)}
            together, wrong, size = [], None, 0
            continue
        if not together and wrong is None:
            begin = number
        if isinstance(line, BadRow):
            wrong, together = wrong or line, []
        elif wrong is None:
            together.append(line.rstrip())
            size += len(line)
            if size > limits.row_bytes:
                wrong, together = too_long(limits), []
    if together or wrong:
        yield begin, wrong or {"prompt": "\n".join(together)}
    if blank:
        yield 1, Left(BLANK, blank, harmless=True)


def _lines(file: BinaryIO, limits: Limits) -> Iterator[tuple[int, str | BadRow]]:
    number = 0
    while line := file.readline(limits.row_bytes + 1):
        number += 1
        if len(line) > limits.row_bytes and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(CHUNK_BYTES)
            yield number, too_long(limits)
            continue
        try:
            yield number, line.removeprefix(codecs.BOM_UTF8).decode()
        except UnicodeDecodeError:
            yield number, BadRow(encodings.NOT_UTF8)
