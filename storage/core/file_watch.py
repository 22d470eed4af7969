"""Whether the files that a connection writes to are still those at their paths.

SQLite goes on writing to a file that was deleted or replaced, and says that all is well; what it wrote is gone with the
process. One look costs three calls of `stat`, some microseconds. A file that is written over in place (`cp` onto it) stays the
same file and is not noticed.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from storage.core import file_modes

SIDES = ("", "-wal", "-shm")

Identity = tuple[int, int] | None
"""Device and inode; None where there is no file."""


class FileWatch:
    """The three files of one database, as they were when a connection had opened them."""

    def __init__(self, database: Path):
        self.database = database
        # SQLite puts the other two beside the file itself, not beside a link to it.
        real = os.path.realpath(database)
        self._paths = (str(database), *(real + side for side in SIDES[1:]))
        self._known = self._look()

    def unchanged(self) -> bool:
        return self._look() == self._known

    def changes(self) -> str:
        """`rankloop.db-wal is gone`, or that it is another file now; empty if nothing changed."""
        said = []
        for side, known, here in zip(SIDES, self._known, self._look(), strict=True):
            if known != here:
                said.append(f"{self.database.name}{side} {'is gone' if here is None else 'is another file now'}")
        return " and ".join(said)

    def _look(self) -> tuple[Identity, ...]:
        return tuple(map(_identity, self._paths))


def _identity(path: str) -> Identity:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def rescue(open_connection: sqlite3.Connection, database: Path) -> Path:
    """Copies what an open connection still sees into a new file beside the database, and checks it.

    Raises:
        OSError, sqlite3.Error: it cannot be written, or what the connection sees is damaged.
    """
    file_modes.make_folder(database.parent)
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    rescued = database.with_name(f"{database.stem}-rescued-{at}-{os.getpid()}{database.suffix}")
    unfinished = rescued.with_name(f".{rescued.name}.part")
    try:
        file_modes.make_file(unfinished)
        with closing(sqlite3.connect(unfinished, isolation_level=None)) as copy:
            open_connection.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            if (found := copy.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(found)
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, rescued)
    finally:
        unfinished.unlink(missing_ok=True)
    return rescued


def rescued_since(database: Path, moment: float) -> Path | None:
    """A copy that another process rescued after this moment, in seconds since 1970: all that was acknowledged until then is in it."""
    found = [path for path in rescued(database) if path.stat().st_mtime > moment]
    return found[-1] if found else None


def rescued(database: Path) -> list[Path]:
    """The copies that were rescued beside this database, the newest last."""
    return sorted(database.parent.glob(f"{database.stem}-rescued-*{database.suffix}"))
