"""Rounds whose workers are jobs of a Ray cluster: what becomes of a run by what Ray says and what its worker wrote.

The cluster is `ray_site`; `test_real_ray.py` does the same with Ray's own programs.
"""

import argparse
import json
import os
import shlex
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from ray_site import DIED, PENDING, RaySite
from rounds import ended, steps
from waiting import until

from rlhf.runs import jobs as jobs_module
from rlhf.runs import ray_jobs
from rlhf.runs.jobs import Jobs, RoundError
from rlhf.runs.ray_api import AddressError, RayApi
from rlhf.runs.ray_jobs import RayJobs, Resources, SchedulerOptionError
from rlhf.runs.scheduler import LocalProcesses, job_of
from rlhf.worker import NotQueued, work
from storage.core.records import QueuedRound
from storage.project import queued_rounds, runs


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "ray"
    folder.mkdir()
    site = RaySite(folder)
    yield site
    site.close()


@pytest.fixture
def jobs(judged, site, monkeypatch):
    """Looks at the cluster at each `reap`."""
    monkeypatch.setattr(ray_jobs, "ASK_EVERY_S", 0.0)
    return Jobs(judged.store, judged.folder, RayJobs(RayApi(site.address)))


@pytest.fixture
def waiting(judged, jobs, site):
    """A run whose job waits for resources."""
    site.full = True
    return jobs.start(judged.config()).id


def row(jobs, run_id):
    return runs.get(jobs.store, run_id)


def silent(jobs, run_id, seconds=3_600):
    at = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
    with jobs.store.atomic() as connection:
        connection.conn.execute("UPDATE runs SET heartbeat_at = ? WHERE id = ?", [at, run_id])


# Starting.


def test_a_job_is_the_worker_where_it_is_and_reserves_what_was_asked_for(judged, site, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HF_HOME", "/models")
    site.full = True
    jobs = Jobs(judged.store, judged.folder, RayJobs(RayApi(site.address), Resources(2, 0.5, {"store": 1})))
    run_id = jobs.create(judged.config()).id
    jobs.spawn(run_id, "rewards:brevity", at_chance="continue")
    (request,) = [job.request for job in site.jobs.values()]
    change, command = request["entrypoint"].split(" && exec ")
    assert change == f"cd {shlex.quote(os.getcwd())}"
    options = shlex.split(command)
    assert options[1:6] == ["-m", "rlhf.worker", "--data", str(judged.folder.root), run_id]
    assert options[-4:] == ["--reward", "rewards:brevity", "--at-chance", "continue"]
    assert (request["entrypoint_num_cpus"], request["entrypoint_num_gpus"], request["entrypoint_resources"]) == (2, 0.5, {"store": 1})
    assert request["submission_id"] == job_of(row(jobs, run_id)).id == options[options.index("--job") + 1]
    variables = request["runtime_env"]["env_vars"]
    # Ray sets the number of threads by the cores that are reserved.
    assert variables["HF_HOME"] == "/models" and "OMP_NUM_THREADS" not in variables and "secret" not in json.dumps(request)


def test_a_job_without_reserved_cores_has_as_many_threads_as_a_worker_here(jobs, site, waiting, monkeypatch):
    assert site.newest.request["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "1", "as these tests set it"
    assert not any(name.startswith("entrypoint_") for name in site.newest.request)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert ray_jobs._variables(Resources())["OMP_NUM_THREADS"] == str(os.cpu_count())


def test_a_cluster_that_cannot_be_used_begins_nothing(judged, jobs, site, caplog):
    site.go_down()
    for act in (lambda: jobs.create(judged.config()), lambda: jobs.start(judged.config())):
        with pytest.raises(RoundError, match=rf"The Ray cluster at {site.address} cannot be used: no connection"):
            act()
    assert runs.all_runs(jobs.store) == [] and queued_rounds.waiting(jobs.store) == []
    asked = queued_rounds.add(jobs.store, judged.config().to_dict(), trigger="schedule")
    for _ in range(3):
        jobs.start_next()
    assert queued_rounds.get(jobs.store, asked.id).state == "waiting" and caplog.text.count("rounds wait: The Ray cluster") == 1
    site.full = True
    site.come_back()
    jobs.start_next()
    assert row(jobs, queued_rounds.get(jobs.store, asked.id).run_id).status == "queued" and len(site.jobs) == 1


def test_a_submission_that_is_refused_is_a_failed_run(judged, jobs, site, monkeypatch):
    run_id = jobs.create(judged.config()).id
    site.answer = 400, {}, b"Traceback\nValueError: entrypoint_resources must be a dict\n"
    with pytest.raises(RoundError, match="did not take it: HTTP 400: ValueError: entrypoint_resources must be a dict"):
        jobs.spawn(run_id)
    assert row(jobs, run_id).status == "failed"


def test_a_submission_without_an_answer_is_looked_for(judged, jobs, site):
    run_id = jobs.create(judged.config()).id
    site.answer = 504, {}, b""
    jobs.spawn(run_id)
    job = job_of(row(jobs, run_id))
    assert (job.state, job.message) == ("submitted", "a proxy before it answers HTTP 504, after the submission")
    site.answer = None
    assert jobs.reap() == [] and row(jobs, run_id).status == "queued"
    silent(jobs, run_id, 61)
    assert jobs.reap() == [run_id]
    assert row(jobs, run_id).status == "lost" and f"knows no job {job.id}" in row(jobs, run_id).error


def test_a_job_that_waits_is_not_submitted_again(judged, jobs, waiting, site, monkeypatch):
    """Even where the process that submitted it died before it could write so."""
    monkeypatch.setattr(jobs_module, "ORPHAN_S", -1.0)
    with jobs.store.atomic() as connection:
        connection.conn.execute("DROP TRIGGER queued_rounds_start_once")
        connection.conn.execute("UPDATE queued_rounds SET worker_at = NULL")
    jobs.start_next()
    assert len(site.jobs) == 1


# Waiting.


def test_a_job_that_waits_says_for_what_and_is_never_lost(jobs, waiting, site):
    silent(jobs, waiting)
    assert jobs.reap() == []
    job = job_of(row(jobs, waiting))
    assert (row(jobs, waiting).status, job.state, job.message) == ("queued", "pending", PENDING)


def test_a_cancel_reaches_a_job_that_waits_and_it_trains_nothing_when_it_begins(judged, jobs, waiting, site):
    jobs.cancel(waiting)
    assert jobs.reap() == [waiting] and site.newest.stopping
    assert (row(jobs, waiting).status, row(jobs, waiting).error) == ("cancelled", None)
    old = job_of(row(jobs, waiting)).id
    jobs.resume(waiting)
    # Ray begins the old job as soon as it can.
    with pytest.raises(NotQueued, match="only by the job that it was given to"):
        work(jobs.store, jobs.folder, waiting, job=old)
    assert row(jobs, waiting).status == "queued"
    work(jobs.store, jobs.folder, waiting, job=job_of(row(jobs, waiting)).id)
    assert row(jobs, waiting).status == "done"


def test_a_cluster_out_of_reach_ends_no_run_and_says_since_when(jobs, waiting, site):
    runs.mark_started(jobs.store, waiting, 1)
    site.go_down()
    silent(jobs, waiting)
    assert jobs.reap() == []
    first = job_of(row(jobs, waiting))
    assert first.state == "unreachable" and first.message.startswith("no connection")
    site.come_back()
    site.answer = 503, {}, b""
    assert jobs.reap() == []
    still = job_of(row(jobs, waiting))
    assert still.message == "a proxy before it answers HTTP 503" and (still.state, still.since) == (first.state, first.since)
    site.answer = None
    site.newest.set_status = "RUNNING", "Job is currently running."
    assert jobs.reap() == []
    back = row(jobs, waiting)
    assert (back.status, job_of(back).state) == ("running", "running") and back.heartbeat_at > "2026", "it is alive: Ray says so"
    jobs.cancel(waiting)
    site.go_down()
    assert jobs.reap() == [], "its worker may still read the cancel"
    silent(jobs, waiting)
    assert jobs.reap() == [waiting] and "could not be asked" in row(jobs, waiting).error
    site.come_back()


def test_a_cluster_is_asked_at_most_once_in_a_while(jobs, waiting, site, monkeypatch):
    jobs.reap()
    monkeypatch.setattr(ray_jobs, "ASK_EVERY_S", 3_600.0)
    before = len(site.asked)
    jobs.reap()
    jobs.reap()
    assert len(site.asked) == before


def test_a_process_with_another_address_does_not_judge_the_run(judged, jobs, waiting, site):
    other = RaySite(site.folder)
    try:
        silent(jobs, waiting)
        assert Jobs(judged.store, judged.folder, RayJobs(RayApi(other.address))).reap() == [] and other.asked == []
    finally:
        other.close()


# Ending.


def test_a_job_that_ended_is_believed_only_once_its_worker_is_silent(jobs, waiting, site):
    runs.mark_started(jobs.store, waiting, 1)
    site.newest.set_status = "FAILED", DIED
    assert jobs.reap() == [], "it wrote a heartbeat just now"
    silent(jobs, waiting, ray_jobs.SILENT_S + 1)
    assert jobs.reap() == [waiting]
    failed = row(jobs, waiting)
    assert failed.status == "failed" and failed.error == (
        f"its Ray job {job_of(failed).id} failed: Job supervisor actor died: The actor died unexpectedly before finishing this task. "
        "The actor died because its node has died. Node Id: 51ba the actor's node was terminated unexpectedly: health check failed due to "
        "missing too many heartbeats; resume continues from the last checkpoint"
    )


@pytest.mark.parametrize(
    "status, asked, becomes, words",
    [
        ("STOPPED", False, "cancelled", "was stopped in Ray"),
        ("STOPPED", True, "cancelled", None),
        ("SUCCEEDED", False, "lost", "ended in Ray without a result"),
    ],
)
def test_a_job_that_ended_otherwise(jobs, waiting, site, status, asked, becomes, words):
    runs.mark_started(jobs.store, waiting, 1)
    if asked:
        jobs.cancel(waiting)
    silent(jobs, waiting)
    site.newest.set_status = status, "Job finished successfully."
    assert jobs.reap() == [waiting]
    found = row(jobs, waiting)
    assert found.status == becomes and (found.error is None if words is None else words in found.error)


def test_a_worker_that_hangs_is_stopped_by_a_cancel(jobs, waiting, site):
    runs.mark_started(jobs.store, waiting, 1)
    site.newest.set_status = "RUNNING", "Job is currently running."
    jobs.cancel(waiting)
    jobs.reap()
    assert not site.newest.stopping, "a worker that writes heartbeats reads the cancel itself"
    silent(jobs, waiting)
    jobs.reap()
    assert site.newest.stopping


def test_a_worker_that_never_began_leaves_rays_log_in_the_runs(judged, jobs, site, tmp_path, monkeypatch):
    monkeypatch.setattr("rlhf.runs.ray_jobs.worker_command", lambda *_: ["sh", "-c", "echo no such interpreter; exit 127"])
    run_id = jobs.start(judged.config()).id
    until(lambda: jobs.reap() == [run_id])
    failed = row(jobs, run_id)
    assert failed.status == "failed" and "failed: Job entrypoint command failed with exit code 127; resume" in failed.error
    assert jobs.log_tail(run_id).splitlines()[-1] == "no such interpreter"


def test_what_the_worker_wrote_stands(judged, jobs, waiting, site):
    """It ended between the look at the row and the look at the job."""
    before = row(jobs, waiting)
    runs.mark_started(jobs.store, waiting, 1)
    runs.finish(jobs.store, waiting, "done", result={})
    found = jobs.scheduler.look(jobs.store, jobs.folder, before)
    assert not jobs._end(before, found._replace(state="ended", status="lost")) and row(jobs, waiting).status == "done"


@pytest.mark.slow
def test_a_worker_that_is_stopped_in_ray_is_cancelled_and_one_that_is_killed_has_failed(judged, jobs, site, long_config):
    run_id = jobs.start(long_config).id
    until(lambda: steps(jobs.store, run_id) >= 1, 300)
    # As `ray job stop` does.
    site.reply("POST", f"/api/jobs/{job_of(row(jobs, run_id)).id}/stop", "", b"")
    stopped = ended(jobs.store, run_id)
    assert (stopped.status, stopped.error) == ("cancelled", None)
    site.newest.process.wait()
    assert "cancelled; resume goes on from the last checkpoint" in jobs.log_tail(run_id)
    assert "cancelled; resume goes on from the last checkpoint" in site.newest.log.read_text(), "and Ray has the log too"
    assert 1 <= steps(jobs.store, run_id) < 14

    jobs.resume(run_id)
    until(lambda: row(jobs, run_id).status == "running")
    os.kill(row(jobs, run_id).pid, signal.SIGKILL)
    site.newest.process.wait()
    silent(jobs, run_id)
    assert jobs.reap() == [run_id]
    failed = row(jobs, run_id)
    assert failed.status == "failed" and "failed: Job entrypoint command failed with exit code -9" in failed.error


# Options.


def options(*arguments):
    parser = argparse.ArgumentParser()
    ray_jobs.add_options(parser)
    return ray_jobs.from_options(parser.parse_args(arguments))


def test_the_options_name_the_scheduler(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert isinstance(options(), LocalProcesses)
    found = options(
        "--scheduler", "ray", "--address", "http://h:8265/", "--entrypoint-num-gpus", "1", "--entrypoint-resources", "store=1, disk=.5"
    )
    assert found.api.address == "http://h:8265" and found.resources == Resources(None, 1.0, {"store": 1.0, "disk": 0.5})
    assert found.resources.as_request() == {"entrypoint_num_gpus": 1.0, "entrypoint_resources": {"store": 1.0, "disk": 0.5}}


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--address", "http://h:8265"], "are for --scheduler ray"),
        (["--entrypoint-num-cpus", "2"], "are for --scheduler ray"),
        (["--scheduler", "ray"], "needs --address"),
        (["--scheduler", "ray", "--address", "h"], "not the address of a Ray dashboard"),
        *[
            (["--scheduler", "ray", "--address", "http://h", "--entrypoint-resources", bad], "NAME=AMOUNT")
            for bad in ("store", "=1", "a=0", "a=nan")
        ],
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments, words):
    with pytest.raises((SchedulerOptionError, AddressError), match=words):
        options(*arguments)


def test_a_round_that_waits_behind_another_goes_to_the_same_cluster(judged, jobs, waiting, site):
    asked = jobs.start(replace(judged.config(), seed=9))
    assert isinstance(asked, QueuedRound)
    jobs.cancel(waiting)
    jobs.start_next()
    begun = queued_rounds.get(jobs.store, asked.id)
    assert job_of(row(jobs, begun.run_id)).id in site.jobs and len(site.jobs) == 2
