"""One `serve`, or one `restore`, for each data folder: a lock on the folder that ends with its process, however that ends.

The lock is on the folder itself; a file beside the database says who holds it, for the message alone. Leaves out what may
work beside a served store (imports, rounds, accounts): SQLite keeps those apart.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from storage.core import file_modes
from storage.core.database import DataFolder, StoreError

try:
    import fcntl
except ImportError:
    # Folders cannot be locked on Windows.
    fcntl = None  # type: ignore[assignment]  # there is no such module on Windows

log = logging.getLogger("rankloop.store")

HOLDER = ".holder.json"


class FolderInUse(StoreError):
    """Another process serves or restores the folder; the message names it."""


@contextmanager
def only_one(folder: DataFolder, verb: str) -> Iterator[Callable[[str], None]]:
    """Holds the folder while the block runs. What is yielded takes the address at which it is served, for others to read.

    Raises:
        FolderInUse: another process holds it.
        OSError: the folder cannot be made.
    """
    file_modes.make_folder(folder.root)
    with ExitStack() as held:
        if fcntl:
            # Not inherited by the processes that are started meanwhile: the lock is this process's alone.
            opened = os.open(folder.root, os.O_RDONLY)
            held.callback(os.close, opened)
            _lock(opened, folder)
        held.callback(_file(folder).unlink, missing_ok=True)
        _write(folder, verb, "")
        yield lambda address: _write(folder, verb, address)


def _lock(opened: int, folder: DataFolder) -> None:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FolderInUse(
            f"{folder.root} is in use: {_holder(folder)} works on it. Stop that first (Ctrl-C in its terminal), or name another "
            "folder with --data."
        ) from error
    except OSError as error:
        # Some network and container file systems have no such locks.
        log.warning("%s cannot be locked (%s): see to it that only one rankloop serves it", folder.root, error.strerror)


def _file(folder: DataFolder) -> Path:
    return folder.root / HOLDER


def _write(folder: DataFolder, verb: str, address: str) -> None:
    unfinished = _file(folder).with_suffix(".part")
    unfinished.write_text(json.dumps({"pid": os.getpid(), "verb": verb, "address": address}))
    unfinished.replace(_file(folder))


def _holder(folder: DataFolder) -> str:
    """`rankloop serve (process 4711, http://127.0.0.1:7860)`, as far as it is known."""
    try:
        said = json.loads(_file(folder).read_text())
        parts = [f"process {int(said['pid'])}", *([str(said["address"])] if said["address"] else [])]
        return f"rankloop {said['verb']} ({', '.join(parts)})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another rankloop"
