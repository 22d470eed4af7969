"""Normalises and checks the names of accounts, and finds names that look alike.

Two names that a reader cannot tell apart would let one person pass for another in tables, in the audit and at sign-in.
Only the Cyrillic and Greek letters of common keyboards are mapped to the Latin letters that they look like; Unicode has some
6,000 such characters (UTS 39).
"""

from __future__ import annotations

import unicodedata

MAX_ACCOUNT_NAME_CHARS = 80
"""In characters."""

_LOOK_LIKE = str.maketrans(
    # Cyrillic, Greek and digits in lower case, and under each the Latin letter that it looks like in either case.
    "авекмнорстухіјѕԁԛԝһүѵӏ" "αβεζηικμνορτυχ" "ı01",
    "abekmhopctyxijsdqwhyvl" "abezhikmvoptux" "iol",
)  # fmt: skip

_BLANK = "\u115f\u1160\u3164\uffa0\u2800"
"""Letters and symbols that are displayed as blank space."""


def composed(text: str) -> str:
    """The text in Unicode's normal form NFC: keyboards encode accents and Hangul syllables differently. Lone surrogates become `?`."""
    return unicodedata.normalize("NFC", text).encode("utf-8", "replace").decode()


def normal(name: str) -> str:
    """The form in which a name is stored and looked up."""
    return composed(name).strip()


def folded(name: str) -> str:
    """The form under which wrong passwords are counted: in lower case, and cut, so that a long text costs no more than a name."""
    return normal(name).casefold()[: 2 * MAX_ACCOUNT_NAME_CHARS]


def problem(name: str) -> str | None:
    """Why a normalised name is not allowed, as a sentence; None if it is."""
    if not name:
        return "An account needs a name: type one."
    if len(name) > MAX_ACCOUNT_NAME_CHARS or not name.isprintable():
        return f"A name has at most {MAX_ACCOUNT_NAME_CHARS} characters, all of them visible: choose another."
    if all(unicodedata.category(letter)[0] in "MZ" or letter in _BLANK for letter in name):
        return "A name needs a letter or a digit that can be seen: choose another."
    return None


def look_alike_key(name: str) -> str:
    """Equal for names that look alike: without case, width and spaces, and with Latin letters for those that look like them."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    visible = (letter for letter in folded if unicodedata.category(letter)[0] not in "ZC" and letter not in _BLANK)
    return "".join(visible).translate(_LOOK_LIKE)
