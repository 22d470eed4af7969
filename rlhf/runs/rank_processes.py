"""Starts the processes that train one run side by side on this machine, and sees to it that none outlives another. No torch here.

The environment is the one that `accelerate launch` and torchrun give their processes, so that a worker does not know which of them
started it. What those cannot do is to write into the run's row which process died of what. Leaves out what the ranks do among
themselves (`models.ranks`).
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from storage.core.database import Database
from storage.core.records import ACTIVE_STATUSES
from storage.project import runs

log = logging.getLogger("rankloop.worker")

RENDEZVOUS = "RANKLOOP_RENDEZVOUS"
"""Environment variable: the file at which the processes of one machine meet."""

STOPPED = 130
"""Exit status of a process that was asked to stop."""

GRACE_S = 20.0
"""Seconds that the other ranks have to end after rank 0 ended well; then they are killed."""


def started_by_launcher() -> bool:
    """Whether this process is one of several, which a launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    """This process's place among those that a launcher started; 0 for one by itself."""
    return int(os.environ.get("RANK", "0"))


def train(store: Database, run_id: str, command: Sequence[str], count: int) -> int:
    """Runs `command` as `count` ranks until rank 0 has ended, and returns its exit status.

    Rank 0 writes the run's row. If another rank ends early, all are killed, and the row says `failed`, and which rank ended how.
    """
    before = runs.get(store, run_id)
    with tempfile.TemporaryDirectory(prefix="rankloop-ranks-") as scratch:
        processes = [
            subprocess.Popen(command, env=environment(i, count, Path(scratch) / "rendezvous"), stdin=subprocess.DEVNULL)
            for i in range(count)
        ]
        try:
            with passed_on(processes[0]):
                failure = watch(processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    status, found = processes[0].returncode, runs.get(store, run_id)
    # Somebody may have resumed the run since rank 0 wrote how it ended: then the row is another attempt's.
    own = found.pid == processes[0].pid or (found.status, found.heartbeat_at) == ("queued", before.heartbeat_at)
    if not own or found.status in ("done", "cancelled"):
        return status or int(bool(failure))
    if status and not failure and found.status in ACTIVE_STATUSES:
        failure = "" if status == STOPPED else in_words(0, count, status)
    if failure:
        runs.finish(store, run_id, "failed", error=failure)
        log.warning("%s", failure)
    elif status == STOPPED and found.status in ACTIVE_STATUSES:
        # It was stopped before it could write that.
        runs.finish(store, run_id, "cancelled")
    return status or int(bool(failure))


def environment(rank: int, count: int, rendezvous: Path) -> dict[str, str]:
    """The environment of one rank."""
    threads = str(max(1, (os.cpu_count() or 1) // count))
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    # The user's own number of threads wins. Gloo looks up the machine's name otherwise, which need not have an address.
    defaults = {"OMP_NUM_THREADS": threads} | ({"GLOO_SOCKET_IFNAME": "lo"} if Path("/sys/class/net/lo").exists() else {})
    return defaults | dict(os.environ) | {name: str(value) for name, value in place.items()} | {RENDEZVOUS: str(rendezvous)}


def watch(processes: Sequence[subprocess.Popen[bytes]]) -> str:
    """Waits until rank 0 has ended, or another rank has that should not. Returns the failure in words; empty if there is none to add.

    Which rank ended first tells the cause from its consequences: the others lose their connection to it, and end a moment later.
    """
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()

    def wait(number: int) -> None:
        processes[number].wait()
        ended.put(number)

    for number in range(len(processes)):
        threading.Thread(target=wait, args=(number,), daemon=True).start()
    while True:
        number = ended.get()
        status = processes[number].returncode
        if number == 0:
            break
        if status == STOPPED:
            # Somebody stops all processes of this run one by one.
            processes[0].terminate()
        elif status:
            return in_words(number, len(processes), status)
    if status == 0:
        for other in processes[1:]:
            try:
                other.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                log.warning("a rank did not end by itself, and is killed")
    # What ends rank 0 by an error or a cancel is in its row already.
    return in_words(0, len(processes), status) if status not in (0, 1, STOPPED) else ""


def in_words(number: int, count: int, status: int) -> str:
    """`rank 1 of 2 ended with signal 9 (SIGKILL); resume goes on from the last checkpoint`"""
    name = f" ({signal.Signals(-status).name})" if -status in set(signal.Signals) else ""
    how = f"signal {-status}{name}" if status < 0 else f"status {status}, for a reason that the run's log has"
    return f"rank {number} of {count} ended with {how}; resume goes on from the last checkpoint"


@contextmanager
def passed_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Inside the block, SIGTERM and Ctrl-C go to this process, which ends the run as cancelled."""
    before = {number: signal.signal(number, lambda *_: process.terminate()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
