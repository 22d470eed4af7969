"""Where a run's worker runs: the one seam between the rounds of a store (`jobs`) and the processes that train them. No torch here.

A scheduler starts a worker and says what became of it. `LocalProcesses` has it as a process of this machine; `ray_jobs` submits it to a Ray
cluster. Everything else is the same for all: the row is written first, the worker writes its own status, stage and heartbeats
into it, and reads there that it is to stop.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple, Protocol

import psutil

from rlhf.runs import typed_json
from rlhf.runs.environment import engine_environment
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.core.records import Run, RunStatus

MAX_MESSAGE_CHARS = 500
"""Characters of a cluster's message that are kept."""


class Look(NamedTuple):
    """What a scheduler knows of the worker of an active run."""

    state: Literal["alive", "kept", "unseen", "ended"]
    """`alive`: it is there, even without heartbeats. `kept`: it need not be there, or cannot be seen, and the run goes on. `unseen`: its
    heartbeats alone tell. `ended`: it is gone without having written how it ended."""
    status: RunStatus = "lost"
    """With `ended`: what the run has become."""
    error: str | None = None
    """With `ended`: why, and what to do."""


ALIVE, KEPT, UNSEEN = Look("alive"), Look("kept"), Look("unseen")


class Scheduler(Protocol):
    """Starts workers, and looks at them. One serves any number of stores."""

    def hindrance(self) -> str:
        """Why no worker can be started now, as a sentence; empty if one can."""
        ...

    def start(self, store: Database, folder: DataFolder, run_id: str, options: Sequence[str]) -> None:
        """Starts the worker of a queued run, with these options besides.

        Raises:
            OSError: it was not started; the message says why.
        """
        ...

    def look(self, store: Database, folder: DataFolder, run: Run) -> Look:
        """What became of the worker of an active run. One that is to stop and cannot read it in its row is stopped."""
        ...

    def knows(self, run: Run) -> bool:
        """Whether the run's worker is one of this scheduler's."""
        ...


class LocalProcesses:
    """Workers as processes of this machine, which outlive the one that started them."""

    def hindrance(self) -> str:
        return ""

    def start(self, store: Database, folder: DataFolder, run_id: str, options: Sequence[str]) -> None:
        log = folder.run_log(run_id)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                worker_command(folder, run_id, options),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=engine_environment(),
            )
        # The worker may outlive this process: its end is observed through its row, never with `wait`.
        process.returncode = 0

    def look(self, store: Database, folder: DataFolder, run: Run) -> Look:
        if run.status != "running" or not run.pid:
            return UNSEEN
        if _alive(run):
            # Without heartbeats too: the machine was suspended, or the store was locked.
            return ALIVE
        return Look("ended", "lost", "the worker process died; resume continues from its last checkpoint")

    def knows(self, run: Run) -> bool:
        return run.job is None


class OutOfSight:
    """Workers on a cluster that this process was not told to ask. Only a cancel that no worker can answer ends such a run here."""

    def look(self, store: Database, folder: DataFolder, run: Run) -> Look:
        if run.cancel_requested and silent_s(run) > GIVEN_UP_S:
            return given_up(run)
        return KEPT


GIVEN_UP_S = 60.0
"""Seconds without a heartbeat after which a cancel ends a run whose cluster cannot be asked."""


@dataclass(frozen=True, slots=True)
class Job:
    """A worker as a cluster's scheduler has it. This is `runs.job`."""

    scheduler: Literal["ray"]
    address: str
    id: str
    state: Literal["submitted", "pending", "running", "unreachable"]
    since: str
    """When this state was first seen: UTC, ISO 8601."""
    message: str = ""
    """What the cluster says about the state, or why it cannot be reached."""


def job_of(run: Run) -> Job | None:
    """The run's job; None without one, and where the row does not hold one that rankloop wrote."""
    if run.job is None:
        return None
    try:
        job = typed_json.from_json(Job, run.job)
        datetime.fromisoformat(job.since)
    except (typed_json.UnreadableRecord, ValueError):
        return None
    return job if JOB_ID.fullmatch(job.id) else None


def new_job_id(run_id: str) -> str:
    """A name that no other attempt at any run has."""
    return f"rankloop-{re.sub('[^A-Za-z0-9_-]', '-', run_id)}-{secrets.token_hex(3)}"


JOB_ID = re.compile(r"rankloop-[A-Za-z0-9_-]{1,100}")
"""What `new_job_id` gives. A row from elsewhere cannot name a job that is not rankloop's."""


def in_words(job: Job) -> str:
    """What the job waits for or does, for a terminal."""
    at = f"the Ray cluster at {job.address}"
    match job.state:
        case "unreachable":
            return f"{at} cannot be reached since {job.since}: {job.message}; the run goes on if its worker does"
        case "running":
            return f"job {job.id} of {at}"
    return f"job {job.id} waits on {at}" + (f": {job.message}" if job.message else "")


def given_up(run: Run) -> Look:
    """The end of a run that was cancelled while nobody could ask its cluster."""
    job = job_of(run)
    name = f"job {job.id} of the cluster at {job.address}" if job else "its job"
    return Look(
        "ended", "cancelled", f"{name} was not asked to stop, because the cluster could not be asked: stop it there if it is still there"
    )


def silent_s(run: Run) -> float:
    """Seconds since the last heartbeat; since the run was queued where there is none. A time in the future counts as long ago, as after
    the clock was set back: a live worker writes another heartbeat within seconds."""
    try:
        age = (datetime.now(UTC) - datetime.fromisoformat(run.heartbeat_at or run.created_at)).total_seconds()
    except ValueError:
        return float("inf")
    return age if age > -GIVEN_UP_S else float("inf")


def worker_command(folder: DataFolder, run_id: str, options: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "rlhf.worker", "--data", str(folder.root), run_id, *options]


def _alive(run: Run) -> bool:
    """Whether the run's process id still belongs to its worker: the system reuses process ids.

    A worker has the run's id among its arguments. `train --debug` names no run: it is this process, or has the verb
    among its arguments, or is older than the run's start, which alone would be wrong once the clock was set.
    """
    try:
        process = psutil.Process(run.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if run.pid == os.getpid() or not {run.id, "train"}.isdisjoint(process.cmdline()):
            return True
        return run.started_at is not None and process.create_time() < datetime.fromisoformat(run.started_at).timestamp()
    except (psutil.Error, ValueError, OverflowError):
        # A row that rankloop did not write may hold any number.
        return False
