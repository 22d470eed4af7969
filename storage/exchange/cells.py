"""Cells of a CSV file that a spreadsheet would take for a formula, made text by an apostrophe; and back to what they were.

A formula begins with `=`, `+`, `-` or `@`, or their wide forms, also after blanks and quotation marks; a tab or a line break
before it is dropped by some programs. It may begin a cell, and what follows a `;`, a tab or a line break inside one, which
begin a cell where the program separates by them. Whatever the text, `raw(neutral(text)) == text`: a text that begins with an
apostrophe before a formula gets another one.
"""

from __future__ import annotations

import re

_BLANK = r"""[ '"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]"""
_SIGN = "[=+\\-@\u2212\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b]"
_FORMULA = rf"(?={_BLANK}*+{_SIGN})"
_START = rf"(?={_BLANK}*+(?:{_SIGN}|[\t\r\n]))"

_NEUTRAL = re.compile(rf"\A{_START}|(?<=[;\t\r\n]){_FORMULA}")
# It begins with the apostrophe, which is searched for quickly.
_RAW = re.compile(rf"'(?:(?<=\A'){_START}|(?<=[;\t\r\n]'){_FORMULA})")


def neutral(text: str) -> str:
    """The text with an apostrophe before each place where a formula would begin."""
    return _NEUTRAL.sub("'", text)


def raw(text: str) -> str:
    """The text without the apostrophes that `neutral` puts in."""
    return _RAW.sub("", text)


def neutral_json(text: str) -> str:
    """JSON text, in which no cell begins by itself but after `;`: spelt as JSON spells any character, so that it says the same."""
    return text.replace(";", "\\u003b") if ";" in text and _NEUTRAL.search(text) else text
