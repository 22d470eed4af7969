"""What an error of SQLite means: whether the file or the statement caused it, and what to do about it.

`database` makes a `StoreError` of it.
"""

from __future__ import annotations

import sqlite3

DAMAGED = "the file is damaged: stop rankloop and restore a backup (rankloop restore)"

REMEDIES = {
    "locked": "something else is writing, such as an import; wait until it is done",
    "full": "make room on the disk",
    "readonly": "check the permissions of the file and its folder",
    "malformed": DAMAGED,
    "not a database": DAMAGED,
}
"""What to do, by a word in SQLite's error message."""

FILE_ERROR_CODES = (
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH,
)  # fmt: skip
"""SQLite's error codes that are caused by the file, the disk or a lock. Other codes are errors in the statement."""

TOO_LARGE = "A number is too large for an id of the store, which is below 2^63: check it."
HALF_SURROGATE = "The text has half a surrogate pair, which cannot be stored: type it again."


def remedy(error: BaseException) -> str:
    """What to do about an error, by its message. SQLite reports a full disk sometimes as an I/O error only."""
    for word, known in REMEDIES.items():
        if word in str(error):
            return known
    return "check the disk's free space, the folder's permissions and what else has the file open"


def is_lock(error: BaseException) -> bool:
    """Whether another connection held the lock for too long."""
    return "locked" in str(error)


def is_damage(error: BaseException) -> bool:
    """Whether the file's contents are damaged."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_of_file(error: BaseException) -> bool:
    """Whether the file, the disk or a lock caused the error, and not the statement."""
    return _code(error) in FILE_ERROR_CODES


def value_problem(error: BaseException) -> str:
    """What is wrong with a value that SQLite cannot take; empty if the error has another cause."""
    if isinstance(error, OverflowError):
        return TOO_LARGE
    if isinstance(error, UnicodeEncodeError):
        return HALF_SURROGATE
    if isinstance(error, (sqlite3.InterfaceError, sqlite3.ProgrammingError)) and "binding parameter" in str(error):
        return f"A value of this type cannot be in the store ({error}): pass a number or a text."
    return ""


def _code(error: BaseException) -> int:
    """SQLite's primary error code, without the extended one in the upper bits; 0 for an error that has none."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
