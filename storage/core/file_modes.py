"""File modes of a data folder, which only its owner may read. POSIX systems only.

The store contains answers, judgments, names and password hashes, so other users of the machine must not read the folder or
a backup. Files written by `export` are meant for sharing and get the mode that the user's umask gives.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

UMASK = 0o077

NON_OWNER_BITS = 0o077
"""The permission bits of everyone except the owner."""


def make_folder(path: Path) -> None:
    """Creates a folder and its missing parents; only the folder itself is private."""
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)


def make_file(path: Path) -> None:
    """Creates an empty private file unless it exists. SQLite gives a database's side files the mode of the database."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def restrict_to_owner(root: Path, database: Path) -> list[str]:
    """Removes other users' permissions from a store made by an earlier version; returns the names of the changed files.

    The folder itself is not changed if it contains other files too, or if everyone may write to it, as in /tmp.
    """
    copies = root.glob(f"{database.stem}-*{database.suffix}*")
    names = (database.name, f"{database.name}-wal", f"{database.name}-shm", "runs", "logs", ".holder.json", f".{database.name}.import")
    ours = {*(root / name for name in names), *copies}
    present = [path for path in ours if path.exists()]
    if present and set(root.iterdir()) <= ours and not root.stat().st_mode & stat.S_IWOTH:
        present.append(root)
    return sorted(path.name for path in present if _restrict(path))


def _restrict(path: Path) -> bool:
    mode = path.stat().st_mode
    if os.name != "posix" or not mode & NON_OWNER_BITS or path.stat().st_uid != os.geteuid():
        return False
    path.chmod(stat.S_IMODE(mode) & ~NON_OWNER_BITS)
    return True
