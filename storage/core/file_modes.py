"""Who may read what lies in a data folder: its owner alone. POSIX modes; elsewhere they say nothing and nothing is done.

Answers, judgments and names are in the store, password hashes too, so neither the folder nor a backup is for other users of
the machine. What `export` writes is for its reader, and has the mode that the person's own umask gives.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

UMASK = 0o077

OTHERS = 0o077
"""The bits of everybody but the owner."""


def make_folder(path: Path) -> None:
    """Makes a folder and those above it; it alone is private."""
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)


def make_file(path: Path) -> None:
    """Makes an empty file unless there is one. SQLite gives a database's side files the mode of the database."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def restrict_to_owner(root: Path, database: Path) -> list[str]:
    """Takes away what others may do with a store that an earlier version made, and says with which of its parts.

    The folder itself is left alone where other things lie in it too, or where everybody may write, as in /tmp.
    """
    copies = root.glob(f"{database.stem}-*{database.suffix}*")
    names = (database.name, f"{database.name}-wal", f"{database.name}-shm", "runs", "logs", ".holder.json")
    ours = {*(root / name for name in names), *copies}
    found = [path for path in ours if path.exists()]
    if found and set(root.iterdir()) <= ours and not root.stat().st_mode & stat.S_IWOTH:
        found.append(root)
    return sorted(path.name for path in found if _close(path))


def _close(path: Path) -> bool:
    mode = path.stat().st_mode
    if os.name != "posix" or not mode & OTHERS or path.stat().st_uid != os.geteuid():
        return False
    path.chmod(stat.S_IMODE(mode) & ~OTHERS)
    return True
