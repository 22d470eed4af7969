"""What a worker does first that a cluster's scheduler started: makes sure that it is where the store is, and copies its output to the log.

SQLite's write-ahead log is shared memory of one machine. A store on a network file system opens on another machine too, and is damaged by
two that write; so a worker refuses to open the store anywhere but on the machine that submitted it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from storage.core.data_folder import DataFolder

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Linux makes another one at each start; containers of one machine have the same."""


class WrongMachine(Exception):
    """This process cannot share the store with the one that submitted it; the message says why and what to do."""


def machine() -> str:
    """What tells this machine from others; empty where the system has no such thing."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def require_store(folder: DataFolder, submitted_from: str) -> None:
    """Checks that the store is here, before it is opened: opening makes one where there is none.

    Args:
        submitted_from: `machine` of the process that submitted the worker.

    Raises:
        WrongMachine: the store is not in the folder, or this is another machine.
    """
    here = machine()
    if submitted_from and here and submitted_from != here:
        raise WrongMachine(
            "this is another machine than the one that submitted the job, and a store is used by the processes of one machine: name a "
            "resource that only the store's machine has with --entrypoint-resources"
        )
    if not folder.database.is_file():
        raise WrongMachine(f"there is no store at {folder.database}: the job must see the data folder under the same path")


def copy_output(log: Path) -> None:
    """From now on, what this process and those that it starts write also goes to the end of this file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # A scheduler signals every process of a job. This one ends when the others have: it must not lose their last lines.
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        tee = subprocess.Popen(["tee", "-a", str(log)], stdin=subprocess.PIPE, start_new_session=True)
        assert tee.stdin is not None
        sys.stdout.flush()
        sys.stderr.flush()
        for stream in (1, 2):
            os.dup2(tee.stdin.fileno(), stream)
        tee.stdin.close()
        # It ends with its input, after this process: nobody waits for it.
        tee.returncode = 0
    finally:
        signal.signal(signal.SIGTERM, before)
