"""A lock that lets only one `serve`, `loop` or `restore` use a data folder at a time. It is released when its process ends.

The lock is on the folder itself; a file beside the database names the holder, for error messages only. Imports, rounds and
account commands may run beside a served store without this lock: SQLite's own locks are enough for them.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from storage.core import file_modes
from storage.core.data_folder import DataFolder
from storage.core.database import StoreError

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
def exclusive(folder: DataFolder, verb: str) -> Iterator[Callable[[str], None]]:
    """Locks the folder while the block runs. Yields a function that records the address at which the folder is served.

    Raises:
        FolderInUse: another process holds the lock.
        OSError: the folder cannot be created.
    """
    file_modes.make_folder(folder.root)
    with ExitStack() as cleanup:
        if fcntl:
            # Child processes do not inherit the descriptor, so the lock belongs to this process alone.
            descriptor = os.open(folder.root, os.O_RDONLY)
            cleanup.callback(os.close, descriptor)
            _lock(descriptor, folder)
        cleanup.callback(_file(folder).unlink, missing_ok=True)
        _write(folder, verb, "")
        yield lambda address: _write(folder, verb, address)


def _lock(descriptor: int, folder: DataFolder) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FolderInUse(
            f"{folder.root} is in use by {_holder(folder)}. Stop that first (Ctrl-C in its terminal), or name another folder with --data."
        ) from error
    except OSError as error:
        # Some network and container file systems do not support such locks.
        log.warning("%s cannot be locked (%s): make sure that only one rankloop serves it", folder.root, error.strerror)


def _file(folder: DataFolder) -> Path:
    return folder.root / HOLDER


def _write(folder: DataFolder, verb: str, address: str) -> None:
    unfinished = _file(folder).with_suffix(".part")
    unfinished.write_text(json.dumps({"pid": os.getpid(), "verb": verb, "address": address}))
    unfinished.replace(_file(folder))


def _holder(folder: DataFolder) -> str:
    """The holder in words: `rankloop serve (process 4711, http://127.0.0.1:7860)`, or `another rankloop` if unknown."""
    try:
        holder = json.loads(_file(folder).read_text())
        parts = [f"process {int(holder['pid'])}", *([str(holder["address"])] if holder["address"] else [])]
        return f"rankloop {holder['verb']} ({', '.join(parts)})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another rankloop"
