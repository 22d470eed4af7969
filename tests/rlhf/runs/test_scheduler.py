"""A cluster's job as a run's row has it, and runs whose cluster this process may not ask. `test_jobs.py` has local processes."""

from datetime import UTC, datetime, timedelta

import pytest

from rlhf.runs import scheduler
from rlhf.runs.scheduler import Job, job_of
from storage.core.database import now
from storage.project import runs

JOB = {"scheduler": "ray", "address": "http://h:8265", "id": "rankloop-r1-ab12cd", "state": "pending", "since": now(), "message": "Wait."}


@pytest.fixture
def run_id(judged, jobs):
    made = jobs.create(judged.config()).id
    runs.set_job(judged.store, made, JOB)
    return made


def silent(store, run_id, seconds):
    at = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
    with store.atomic() as connection:
        connection.conn.execute("UPDATE runs SET heartbeat_at = ? WHERE id = ?", [at, run_id])


def test_a_row_has_the_job_that_was_written_or_none(judged, run_id):
    assert job_of(runs.get(judged.store, run_id)) == Job(**JOB)
    for wrong in (
        {"state": "dreaming"},
        {"since": "once"},
        {"id": "../version"},
        {"id": "raysubmit_1"},
        {"address": None},
        {"scheduler": "x"},
    ):
        runs.set_job(judged.store, run_id, JOB | wrong)
        assert job_of(runs.get(judged.store, run_id)) is None, wrong
    runs.finish(judged.store, run_id, "failed")
    runs.requeue(judged.store, run_id)
    assert runs.get(judged.store, run_id).job is None


def test_every_state_is_told_in_words():
    assert scheduler.in_words(Job(**JOB)) == "job rankloop-r1-ab12cd waits on the Ray cluster at http://h:8265: Wait."
    gone = Job(**JOB | {"state": "unreachable", "since": "2026-11-28T04:50:00.000+00:00", "message": "no connection"})
    assert scheduler.in_words(gone) == (
        "the Ray cluster at http://h:8265 cannot be reached since 2026-11-28T04:50:00.000+00:00: no connection; "
        "the run goes on if its worker does"
    )
    assert scheduler.in_words(Job(**JOB | {"state": "running"})) == "job rankloop-r1-ab12cd of the Ray cluster at http://h:8265"


def test_an_id_is_another_for_each_attempt_and_reads_as_one():
    first, second = (scheduler.new_job_id("my run.1") for _ in range(2))
    assert first != second and all(scheduler.JOB_ID.fullmatch(name) for name in (first, second)) and first.startswith("rankloop-my-run-1-")


@pytest.mark.parametrize("status", ["queued", "running"])
def test_a_run_on_a_cluster_is_ended_by_nobody_who_cannot_ask_it(judged, jobs, run_id, status):
    if status == "running":
        # The process id of another machine is nobody's here.
        runs.mark_started(judged.store, run_id, 2**22 + 1)
    silent(judged.store, run_id, 3_600)
    assert jobs.reap() == [] and runs.get(judged.store, run_id).status == status


def test_a_cancel_ends_such_a_run_once_its_worker_has_been_silent(judged, jobs, run_id):
    runs.mark_started(judged.store, run_id, 1)
    jobs.cancel(run_id)
    assert jobs.reap() == []
    silent(judged.store, run_id, 61)
    assert jobs.reap() == [run_id]
    ended = runs.get(judged.store, run_id)
    assert ended.status == "cancelled" and "job rankloop-r1-ab12cd of the cluster at http://h:8265 was not asked to stop" in ended.error


def test_a_heartbeat_far_in_the_future_counts_as_long_ago(judged, run_id):
    silent(judged.store, run_id, -3_600)
    assert scheduler.silent_s(runs.get(judged.store, run_id)) == float("inf")
    silent(judged.store, run_id, 20)
    assert 20 <= scheduler.silent_s(runs.get(judged.store, run_id)) < 50
