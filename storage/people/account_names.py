"""Names of accounts: how they are written, and which of them look alike.

Two names that a reader cannot tell apart would let one person pass for another in tables, in the audit and at sign-in.
The letters of Cyrillic and Greek that look like Latin ones are known here; that is not all that Unicode has
(UTS 39 lists some 6,000), but what keyboards have.
"""

from __future__ import annotations

import unicodedata

LONGEST_NAME = 80
"""In characters."""

_LOOK_LIKE = str.maketrans(
    # Cyrillic, Greek and digits, as small letters, and below each the Latin letter that it looks like in either case.
    "авекмнорстухіјѕԁԛԝһүѵӏ" "αβεζηικμνορτυχ" "ı01",
    "abekmhopctyxijsdqwhyvl" "abezhikmvoptux" "iol",
)  # fmt: skip

_BLANK = "\u115f\u1160\u3164\uffa0\u2800"
"""Letters and symbols without anything to see."""


def composed(text: str) -> str:
    """Keyboards disagree about how an accent or a Hangul syllable is put together; half a surrogate pair is no text."""
    return unicodedata.normalize("NFC", text).encode("utf-8", "replace").decode()


def normal(name: str) -> str:
    """As a name is kept and looked up."""
    return composed(name).strip()


def folded(name: str) -> str:
    """As wrong passwords are counted: in any case and spelling, and no longer than a name can be."""
    return normal(name).casefold()[: 2 * LONGEST_NAME]


def problem(name: str) -> str | None:
    """What keeps a normal name from being one, in words; None if nothing does."""
    if not name:
        return "An account needs a name: type one."
    if len(name) > LONGEST_NAME or not name.isprintable():
        return f"A name has at most {LONGEST_NAME} characters, all of them visible: choose another."
    if all(unicodedata.category(letter)[0] in "MZ" or letter in _BLANK for letter in name):
        return "A name needs a letter or a digit that can be seen: choose another."
    return None


def look(name: str) -> str:
    """Equal for names that look alike: case, width and spaces left out, letters of other scripts as Latin ones."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    seen = (letter for letter in folded if unicodedata.category(letter)[0] not in "ZC" and letter not in _BLANK)
    return "".join(seen).translate(_LOOK_LIKE)
