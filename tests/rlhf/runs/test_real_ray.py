"""Rounds on a real Ray cluster of two nodes on this machine: `make test-ray` installs Ray, 390 MB, and runs these tests alone."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from learning import Judged
from rounds import ended, steps
from waiting import until

from rlhf.runs import ray_jobs
from rlhf.runs.jobs import Jobs
from rlhf.runs.ray_api import RayApi
from rlhf.runs.ray_jobs import RayJobs, Resources
from rlhf.runs.scheduler import job_of
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.project import runs

pytestmark = [pytest.mark.slow, pytest.mark.packages]

RAY = Path(os.environ.get("RANKLOOP_RAY", "build/ray/bin/ray")).absolute()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@dataclass
class Cluster:
    """A head and further nodes, each with its processes. Their files stand in a folder with a short name: sockets have no longer ones."""

    folder: Path
    port: int = field(default_factory=free_port)
    dashboard: int = field(default_factory=free_port)
    nodes: list[subprocess.Popen] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def start(self) -> None:
        # A cluster whose head has two cores, and a store of 80 MB for objects, of which a job of rankloop makes none.
        self._add("--head", f"--port={self.port}", f"--dashboard-port={self.dashboard}", "--dashboard-host=127.0.0.1", "--num-cpus=2")
        until(lambda: RayJobs(RayApi(self.address)).hindrance() == "", 120)

    def add_node(self, resources: str) -> subprocess.Popen:
        self._add(f"--address=127.0.0.1:{self.port}", "--num-cpus=1", f"--resources={resources}")
        return self.nodes[-1]

    def _add(self, *options: str) -> None:
        named = [f"--{name}-port={free_port()}" for name in ("node-manager", "object-manager")]
        named.append(f"--dashboard-agent-listen-port={free_port()}")
        temp = [f"--temp-dir={self.folder}"] if "--head" in options else []
        command = [str(RAY), "start", "--block", "--node-ip-address=127.0.0.1", "--object-store-memory=80000000", "--disable-usage-stats"]
        with (self.folder / f"node-{len(self.nodes)}.txt").open("wb") as output:
            process = subprocess.Popen([*command, *named, *temp, *options], stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        self.nodes.append(process)

    def command(self, *arguments: str) -> str:
        return subprocess.run([str(RAY), *arguments], capture_output=True, text=True, check=True).stdout


def kill(node: subprocess.Popen) -> None:
    """As when the machine of a node is gone: nothing of it is told to end."""
    processes = [node]
    with contextlib.suppress(psutil.Error):
        processes = [*psutil.Process(node.pid).children(recursive=True), node]
    for process in processes:
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            process.kill()
    node.wait()


@pytest.fixture(scope="module")
def cluster():
    assert RAY.is_file(), f"{RAY} is not there: `make test-ray` installs it"
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        for node in cluster.nodes:
            node.terminate()
        for node in cluster.nodes:
            try:
                node.wait(30)
            except subprocess.TimeoutExpired:
                kill(node)
        shutil.rmtree(folder, ignore_errors=True)


def on(cluster, world, resources=None):
    return Jobs(world.store, world.folder, RayJobs(RayApi(cluster.address), resources))


def row(jobs, run_id):
    return runs.get(jobs.store, run_id)


def reaped(jobs, run_id):
    """The run's row once `reap` has ended it."""
    until(lambda: jobs.reap() == [run_id], 180, every_s=0.5)
    return row(jobs, run_id)


def test_rounds_of_two_projects_train_side_by_side(cluster, judged, tiny_folder, tmp_path, long_config):
    other_folder = DataFolder(tmp_path / "other")
    other = Judged(Database(other_folder.database), other_folder, tiny_folder).fill()
    both = [on(cluster, world, Resources(num_cpus=1)) for world in (judged, other)]
    started = [jobs.start(long_config).id for jobs in both]
    until(lambda: all(steps(jobs.store, run_id) >= 1 for jobs, run_id in zip(both, started, strict=True)), 300)
    for jobs, run_id in zip(both, started, strict=True):
        assert ended(jobs.store, run_id).status == "done"
        job, api = job_of(row(jobs, run_id)), jobs.scheduler.api
        until(lambda api=api, job=job: api.job(job.id).status == "SUCCEEDED")
        assert f"done: tiny-{run_id}" in jobs.log_tail(run_id) and f"done: tiny-{run_id}" in api.logs(job.id)
    first, second = (row(jobs, run_id) for jobs, run_id in zip(both, started, strict=True))
    assert max(first.started_at, second.started_at) < min(first.finished_at, second.finished_at), "one began after the other had ended"
    other.store.close()


def test_a_killed_node_is_a_failed_run_and_resume_finishes_it(cluster, judged, long_config):
    node = cluster.add_node('{"second": 1}')
    jobs = on(cluster, judged, Resources(others={"second": 1}))
    run_id = jobs.start(long_config).id
    until(lambda: steps(jobs.store, run_id) >= 1, 300)
    worker = row(jobs, run_id).pid
    kill(node)
    failed = reaped(jobs, run_id)
    print("after its node was killed:", failed.status, "|", failed.error)
    assert failed.status == "failed" and f"its Ray job {job_of(failed).id} failed" in failed.error and "resume" in failed.error
    until(lambda: not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE)
    done = steps(jobs.store, run_id)
    again = on(cluster, judged)
    again.resume(run_id)
    assert ended(again.store, run_id).status == "done"
    assert 1 <= done < 14 == steps(again.store, run_id)


def test_a_killed_worker_is_a_failed_run(cluster, judged, long_config):
    jobs = on(cluster, judged)
    run_id = jobs.start(long_config).id
    until(lambda: steps(jobs.store, run_id) >= 1, 300)
    os.kill(row(jobs, run_id).pid, signal.SIGKILL)
    failed = reaped(jobs, run_id)
    print("after its worker was killed:", failed.status, "|", failed.error)
    assert failed.status == "failed" and re.search(r"failed with exit code (-9|137)", failed.error)


def test_a_job_that_waits_for_a_resource_says_so_and_is_cancelled(cluster, judged):
    jobs = on(cluster, judged, Resources(others={"nowhere": 1}))
    run_id = jobs.start(judged.config()).id
    until(lambda: jobs.reap() == [] and job_of(row(jobs, run_id)).state == "pending", 60)
    print("while it waits:", job_of(row(jobs, run_id)).message)
    assert "waiting for resources" in job_of(row(jobs, run_id)).message
    jobs.cancel(run_id)
    assert reaped(jobs, run_id).status == "cancelled"


def test_a_job_that_is_stopped_in_ray_is_a_cancelled_run(cluster, judged, long_config):
    jobs = on(cluster, judged)
    run_id = jobs.start(long_config).id
    until(lambda: steps(jobs.store, run_id) >= 1, 300)
    cluster.command("job", "stop", f"--address={cluster.address}", job_of(row(jobs, run_id)).id)
    stopped = until(lambda: jobs.reap() is not None and (r := row(jobs, run_id)).status != "running" and r, 120, every_s=0.5)
    print("after `ray job stop`:", stopped.status, "|", stopped.error)
    assert stopped.status == "cancelled" and "cancelled; resume goes on" in jobs.log_tail(run_id)


def test_a_worker_of_another_machine_leaves_the_store_alone(cluster, judged, monkeypatch):
    jobs = on(cluster, judged)
    monkeypatch.setattr(ray_jobs, "machine", lambda: "6ba7b810-9dad-11d1-80b4-00c04fd430c8")
    run_id = jobs.start(judged.config()).id
    failed = reaped(jobs, run_id)
    assert failed.status == "failed" and "this is another machine than the one that submitted the job" in jobs.log_tail(run_id)


def test_a_round_ends_well_while_the_dashboard_does_not_answer(cluster, judged, long_config):
    jobs = on(cluster, judged)
    run_id = jobs.start(long_config).id
    until(lambda: steps(jobs.store, run_id) >= 1, 300)
    until(lambda: jobs.reap() == [] and job_of(row(jobs, run_id)).state == "running")
    (dashboard,) = {c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == cluster.dashboard}
    # Not killed: `ray start --block` ends the whole node if one of its processes dies.
    os.kill(dashboard, signal.SIGSTOP)
    try:
        seen = until(lambda: jobs.reap() == [] and (j := job_of(row(jobs, run_id))).state == "unreachable" and j, 60)
        print("while the dashboard does not answer:", seen.message)
        assert seen.message == "no answer within 10 s" and ended(jobs.store, run_id).status == "done"
    finally:
        os.kill(dashboard, signal.SIGCONT)
