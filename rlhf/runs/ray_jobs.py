"""Ray Jobs as the scheduler: a run's worker is a job of a Ray cluster, on the machine that has the store.

A run ends by what its worker writes into its row. The job's status is asked for the rest: that the job waits for resources, that it ended
without the worker having written anything, that somebody stopped it in Ray. A cluster that cannot be reached ends no run.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf import model_files
from rlhf.runs import log_text
from rlhf.runs.environment import engine_environment
from rlhf.runs.ray_api import NotConnected, RayApi, RayError, RayJobInfo, RayRefused, checked_address, read_token
from rlhf.runs.scheduled_worker import machine
from rlhf.runs.scheduler import (
    GIVEN_UP_S,
    KEPT,
    MAX_MESSAGE_CHARS,
    Job,
    LocalProcesses,
    Look,
    Scheduler,
    given_up,
    job_of,
    new_job_id,
    silent_s,
    worker_command,
)
from storage.core.data_folder import DataFolder
from storage.core.database import Database, now
from storage.core.records import Run
from storage.project import runs

ASK_EVERY_S = 2.0
"""Least seconds between two questions about one job, however often it is looked at."""

SILENT_S = 15.0
"""Seconds without a heartbeat after which a worker whose job has ended is gone. It may live a little longer than its node."""

UNKNOWN_S = 60.0
"""Seconds that a cluster has to show a job that was submitted."""

STOP_WAIT_S = 30
"""Seconds between Ray's SIGTERM and its SIGKILL; Ray's own 3 are too few for the end of a training step."""

LOG_CHARS = 64 * 1024
"""The end of Ray's log that is kept where a worker never began, in characters."""

SENT_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""Environment variables of this process that its workers get. Ray's dashboard shows them: no token is among them."""


class SchedulerOptionError(ValueError):
    """The options that name a scheduler contradict each other, or a value is wrong."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a job reserves. With none of them, Ray runs the job on the head node."""

    num_cpus: float | None = None
    num_gpus: float | None = None
    others: Mapping[str, float] = field(default_factory=dict, hash=False)

    def as_request(self) -> dict[str, Any]:
        request = {"entrypoint_num_cpus": self.num_cpus, "entrypoint_num_gpus": self.num_gpus, "entrypoint_resources": dict(self.others)}
        return {name: value for name, value in request.items() if value}


class RayJobs:
    """Starts workers as jobs of one cluster, and looks at them."""

    def __init__(self, api: RayApi, resources: Resources | None = None):
        self.api, self.resources = api, resources or Resources()
        self._looks: dict[str, tuple[float, Look]] = {}
        self._lock = threading.Lock()

    def hindrance(self) -> str:
        try:
            self.api.ray_version()
        except RayError as error:
            return f"The Ray cluster at {self.api.address} cannot be used: {error}."
        return ""

    def knows(self, run: Run) -> bool:
        job = job_of(run)
        return job is not None and job.address == self.api.address

    def start(self, store: Database, folder: DataFolder, run_id: str, options: Sequence[str]) -> None:
        job = Job("ray", self.api.address, new_job_id(run_id), "submitted", now())
        # First, so that whoever looks asks the cluster, and so that a job of an earlier attempt that begins late finds the run given away.
        runs.set_job(store, run_id, _as_row(job))
        try:
            self.api.submit(self._request(folder, run_id, job.id, options))
        except (NotConnected, RayRefused) as error:
            raise OSError(f"the Ray cluster at {self.api.address} did not take it: {error}") from error
        except RayError as error:
            # It may have arrived.
            _note(store, run_id, job, "submitted", f"{error}, after the submission")

    def _request(self, folder: DataFolder, run_id: str, job_id: str, options: Sequence[str]) -> dict[str, Any]:
        command = worker_command(folder, run_id, ["--job", job_id, "--machine", machine(), *options])
        return {
            # Python finds a reward function's module from the working directory, as for a process that is started here.
            "entrypoint": f"cd {shlex.quote(os.getcwd())} && exec {shlex.join(command)}",
            "submission_id": job_id,
            "runtime_env": {"env_vars": _variables(self.resources)},
            "metadata": {"job_name": f"rankloop {run_id}", "rankloop_run": run_id},
            **self.resources.as_request(),
        }

    def look(self, store: Database, folder: DataFolder, run: Run) -> Look:
        job = job_of(run)
        assert job is not None, "asked about a run that is not of this scheduler"
        with self._lock:
            at, before = self._looks.get(job.id, (float("-inf"), KEPT))
            if time.monotonic() - at < ASK_EVERY_S:
                return before
        found = self._ask(store, folder, run, job)
        with self._lock:
            if found.state == "ended":
                self._looks.pop(job.id, None)
            else:
                self._looks[job.id] = (time.monotonic(), found)
        return found

    def _ask(self, store: Database, folder: DataFolder, run: Run, job: Job) -> Look:
        try:
            info = self.api.job(job.id)
            if info is not None and run.cancel_requested and _needs_stop(run, info):
                self.api.stop(job.id)
        except RayError as error:
            _note(store, run.id, job, "unreachable", str(error))
            return given_up(run) if run.cancel_requested and silent_s(run) > GIVEN_UP_S else KEPT
        if info is None:
            return self._unknown(run, job)
        match info.status:
            case "PENDING":
                _note(store, run.id, job, "pending", info.message)
                # It stays in Ray's queue, and would find its run ended if it began.
                return Look("ended", "cancelled") if run.cancel_requested and run.status == "queued" else KEPT
            case "RUNNING":
                _note(store, run.id, job, "running", "")
                return Look("alive") if run.status == "running" else KEPT
        return self._ended(folder, run, job, info)

    def _unknown(self, run: Run, job: Job) -> Look:
        if silent_s(run) < UNKNOWN_S:
            return KEPT
        error = f"the Ray cluster at {job.address} knows no job {job.id}: it was restarted, or never got it; resume goes on"
        return Look("ended", "lost", error)

    def _ended(self, folder: DataFolder, run: Run, job: Job, info: RayJobInfo) -> Look:
        """What became of a run whose job has ended and whose row does not say so."""
        if run.status == "running" and silent_s(run) < SILENT_S:
            return KEPT
        if run.status == "queued":
            self._keep_log(folder, run, job)
        match info.status:
            case "STOPPED":
                return Look("ended", "cancelled", None if run.cancel_requested else f"its job {job.id} was stopped in Ray")
            case "SUCCEEDED":
                return Look("ended", "lost", f"its job {job.id} ended in Ray without a result; resume continues from the last checkpoint")
        error = f"its Ray job {job.id} failed: {_reason(info.message)}; resume continues from the last checkpoint"
        return Look("ended", "failed", error)

    def _keep_log(self, folder: DataFolder, run: Run, job: Job) -> None:
        """Adds the end of Ray's log to the run's, which the worker did not come to write."""
        try:
            text = log_text.readable(self.api.logs(job.id)[-LOG_CHARS:])
        except RayError as error:
            text = f"the log of job {job.id} could not be fetched from Ray: {error}"
        log = folder.run_log(run.id)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def _needs_stop(run: Run, info: RayJobInfo) -> bool:
    """Whether no worker reads in the row that it is to stop: it has not begun, or it hangs."""
    return info.status in ("PENDING", "RUNNING") and (run.status == "queued" or silent_s(run) > SILENT_S)


def _note(store: Database, run_id: str, job: Job, state: Any, message: str) -> None:
    """Writes what the cluster says now, if it said something else before."""
    message = " ".join(message.split())[:MAX_MESSAGE_CHARS]
    if (job.state, job.message) != (state, message):
        since = job.since if job.state == state else now()
        with store.atomic():
            # Somebody may have started another attempt meanwhile.
            current = job_of(runs.get(store, run_id))
            if current is not None and current.id == job.id:
                runs.set_job(store, run_id, _as_row(Job("ray", job.address, job.id, state, since, message)))


def _as_row(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in Job.__slots__}


def _reason(message: str) -> str:
    """Ray's message in one line, without the log that it may hold and without the fields of its own actor: `pid: 12` and the like."""
    lines = [line for line in message.split(", last available logs")[0].splitlines() if not _FIELD.match(line)]
    return " ".join(" ".join(lines).split())[:MAX_MESSAGE_CHARS].rstrip(" .") or "without a reason"


_FIELD = re.compile(r"\s+\w+: ")


def _variables(resources: Resources) -> dict[str, str]:
    environment = engine_environment()
    sent = {name: environment[name] for name in SENT_VARIABLES if name in environment}
    if not resources.num_cpus:
        # Ray sets it to 1 for a job that reserves no cores, and a worker here would use all.
        sent["OMP_NUM_THREADS"] = environment.get("OMP_NUM_THREADS") or str(os.cpu_count() or 1)
    return sent | {"RANKLOOP_CACHE": str(model_files.cache_folder().absolute()), "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}


def add_options(parser: argparse.ArgumentParser, *, starts: bool = True) -> None:
    """The options that name the scheduler; with `starts`, also those of the jobs that are submitted to it."""
    parser.add_argument(
        "--scheduler", choices=["local", "ray"], default="local",
        help="what starts the workers that train: this machine, or the Ray cluster at --address",
    )  # fmt: skip
    parser.add_argument("--address", metavar="URL", help="the Ray cluster's dashboard, such as http://127.0.0.1:8265")
    if starts:
        parser.add_argument("--entrypoint-num-cpus", type=float, metavar="N", help="CPU cores that the Ray job of a run reserves")
        parser.add_argument("--entrypoint-num-gpus", type=float, metavar="N", help="GPUs that the Ray job of a run reserves")
        parser.add_argument(
            "--entrypoint-resources", metavar="NAME=AMOUNT,...", default="",
            help="resources of your own that the Ray job of a run reserves, such as one that only the store's machine has",
        )  # fmt: skip


def as_arguments(args: argparse.Namespace) -> list[str]:
    """The same options as a list of arguments, for a project's process."""
    given = {
        "--scheduler": args.scheduler,
        "--address": args.address,
        "--entrypoint-num-cpus": args.entrypoint_num_cpus,
        "--entrypoint-num-gpus": args.entrypoint_num_gpus,
        "--entrypoint-resources": args.entrypoint_resources or None,
    }
    return [f"{name}={value}" for name, value in given.items() if value is not None]


def from_options(args: argparse.Namespace) -> Scheduler:
    """The scheduler that the options name.

    Raises:
        SchedulerOptionError, AddressError: they contradict each other, or a value is wrong.
    """
    resources = Resources(
        getattr(args, "entrypoint_num_cpus", None),
        getattr(args, "entrypoint_num_gpus", None),
        _amounts(getattr(args, "entrypoint_resources", "")),
    )
    if args.scheduler == "local":
        if args.address is not None or resources.as_request():
            raise SchedulerOptionError("--address and the --entrypoint options are for --scheduler ray: add that, or leave them out")
        return LocalProcesses()
    if args.address is None:
        raise SchedulerOptionError("--scheduler ray needs --address, the Ray cluster's dashboard, such as http://127.0.0.1:8265")
    return RayJobs(RayApi(checked_address(args.address), read_token()), resources)


def _amounts(text: str) -> dict[str, float]:
    """`store=1,disk=.5` by name.

    Raises:
        SchedulerOptionError: it is written otherwise, or an amount is not above 0.
    """
    amounts: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, amount = part.partition("=")
        try:
            amounts[name.strip()] = float(amount)
        except ValueError:
            amounts[name.strip()] = 0.0
        if not name.strip() or not 0 < amounts[name.strip()] < float("inf"):
            raise SchedulerOptionError(f"--entrypoint-resources {text}: write NAME=AMOUNT,... with amounts above 0, such as store=1")
    return amounts
