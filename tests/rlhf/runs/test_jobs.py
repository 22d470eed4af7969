"""Runs as rows: who may start, resume and cancel them, and how a worker that is gone is noticed."""

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from waiting import until

from rlhf.config import ConfigError
from rlhf.data.pairs import NotEnoughPairs
from rlhf.runs import jobs as jobs_module
from rlhf.runs.jobs import RoundError
from storage.content import policies
from storage.project import rounds, runs

# Starting.


def test_too_few_pairs_are_refused_with_numbers_before_there_is_a_row(judged, jobs):
    with pytest.raises(NotEnoughPairs, match=r"6 teach · 3 measure: .* 20 preference pairs that teach.* Judge 14 more"):
        jobs.create(judged.config(min_pairs=20))
    with pytest.raises(NotEnoughPairs, match="0 teach · 0 measure"):
        jobs.create(judged.config(include_simulated=False))
    assert runs.all_runs(judged.store) == []


def test_options_that_contradict_each_other_are_refused_before_a_row_is_written(judged, jobs):
    config = judged.config()
    with pytest.raises(ConfigError):
        jobs.create(replace(config, ppo=replace(config.ppo, minibatch_size=3)))
    assert runs.all_runs(judged.store) == []


def test_a_second_round_is_refused_while_one_waits_or_runs(judged, jobs):
    first = jobs.create(judged.config()).id
    with pytest.raises(RoundError, match=f"{first} is queued"):
        jobs.create(judged.config())
    runs.mark_started(judged.store, first, os.getpid())
    with pytest.raises(RoundError, match=f"{first} is running: wait for it, or cancel it first"):
        jobs.create(judged.config())
    runs.finish(judged.store, first, "failed")
    second = jobs.create(judged.config()).id
    with pytest.raises(RoundError, match=f"{second} is queued"):
        jobs.requeue(first)


def test_a_run_begins_a_round_beside_the_current_policy(judged, jobs):
    first = rounds.of_run(judged.store, jobs.create(judged.config()).id)
    base = rounds.current(judged.store, str(judged.model))
    assert (first.trigger, first.judges, first.baseline_version_id, base.name) == ("hand", "people", base.id, "tiny")
    runs.finish(judged.store, first.run_id, "done", result={})
    version = policies.register_tuned(
        judged.store, name="t", base_model=str(judged.model), adapter_path="runs/x/policy", run_id=first.run_id
    )
    rounds.decide(judged.store, version, "promoted", decided_by="person", reason="Because.")
    second = rounds.of_run(judged.store, jobs.create(judged.config(), trigger="loop", judges="simulated").id)
    assert (second.trigger, second.judges, second.baseline_version_id) == ("loop", "simulated", version.id)


def test_a_round_that_is_done_cannot_be_resumed(judged, jobs):
    run_id = jobs.create(judged.config()).id
    runs.finish(judged.store, run_id, "done", result={})
    with pytest.raises(RoundError, match="is done"):
        jobs.requeue(run_id)


def process(*arguments):
    return subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(600)", *arguments], stdout=subprocess.PIPE)


def started(jobs, config, pid):
    run_id = jobs.create(config).id
    runs.mark_started(jobs.store, run_id, pid)
    return run_id


def silent(jobs, run_id):
    with jobs.store.atomic() as connection:
        connection.conn.execute("UPDATE runs SET heartbeat_at = '2020-01-01T00:00:00.000+00:00' WHERE id = ?", [run_id])


def test_a_run_whose_process_is_gone_is_lost(judged, jobs):
    dead = process()
    run_id = started(jobs, judged.config(), dead.pid)
    dead.kill()
    # A zombie first, then no process at all.
    until(lambda: jobs.reap() == [run_id])
    assert jobs.reap() == []
    assert runs.get(judged.store, run_id).status == "lost" and "resume" in runs.get(judged.store, run_id).error
    dead.communicate()
    jobs.requeue(run_id)
    runs.mark_started(judged.store, run_id, dead.pid)
    assert jobs.reap() == [run_id]


def test_a_reused_process_id_is_not_the_worker(judged, jobs):
    run_id = started(jobs, judged.config(), 0)
    stranger = process()
    # The system knows a process's age to the second only: when it booted is kept as a whole number of them.
    earlier = (datetime.now(UTC) - timedelta(seconds=5)).isoformat()
    try:
        with judged.store.atomic() as connection:
            connection.conn.execute("UPDATE runs SET pid = ?, started_at = ? WHERE id = ?", [stranger.pid, earlier, run_id])
        assert jobs.reap() == [run_id]
    finally:
        stranger.kill()
        stranger.communicate()


def test_a_live_worker_is_not_lost_without_heartbeats(judged, jobs):
    """As after the machine slept: the process is there, its last beat is old."""
    run_id = jobs.create(judged.config()).id
    alive = process(run_id)
    try:
        runs.mark_started(judged.store, run_id, alive.pid)
        silent(jobs, run_id)
        assert jobs.reap() == [] and runs.get(judged.store, run_id).status == "running"
    finally:
        alive.kill()
        alive.communicate()


def test_a_round_inside_an_older_process_is_not_lost(judged, jobs):
    """As with `train --debug`: the run's id is not among the arguments of the process."""
    run_id = started(jobs, judged.config(), os.getpid())
    silent(jobs, run_id)
    assert jobs.reap() == [] and runs.get(judged.store, run_id).status == "running"


def test_a_worker_that_never_started_is_lost_after_a_while(judged, jobs, monkeypatch):
    run_id = jobs.create(judged.config()).id
    assert jobs.reap() == []
    monkeypatch.setattr(jobs_module, "STALE_S", -1.0)
    assert jobs.reap() == [run_id]


def test_the_end_of_a_log_is_read_without_the_rest(judged, jobs):
    assert jobs.log_tail("nobody") == ""
    log = judged.folder.run_log("r1")
    log.parent.mkdir(parents=True)
    log.write_bytes(b"".join(b"line %d\n" % i for i in range(20_000)) + b"caf\xe9\n")
    assert jobs.log_tail("r1", 2) == "line 19999\ncaf\N{REPLACEMENT CHARACTER}"
