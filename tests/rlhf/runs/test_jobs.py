"""Runs as rows: who may start, resume and cancel them, how a worker that is gone is noticed, and the queue of rounds."""

import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from waiting import until

from rlhf.config import ConfigError
from rlhf.data.pairs import NotEnoughPairs
from rlhf.runs import jobs as jobs_module
from rlhf.runs.jobs import Jobs, RoundError
from storage.content import policies
from storage.core.records import QueuedRound, Run
from storage.project import queued_rounds, rounds, runs

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


# The queue.


class Workerless(Jobs):
    """Keeps the ids of the runs whose workers it would start."""

    def __init__(self, store, folder):
        super().__init__(store, folder)
        self.workers = []

    def spawn(self, run_id, reward=None):
        self.workers.append(run_id)


@pytest.fixture
def queue(judged):
    return Workerless(judged.store, judged.folder)


def end(queue, run_id, status="done"):
    assert runs.claim(queue.store, run_id, os.getpid())
    runs.finish(queue.store, run_id, status)


def waiting(queue):
    return [one.id for one in queued_rounds.waiting(queue.store)]


def test_a_round_begins_at_once_if_none_trains_and_waits_otherwise(judged, queue):
    first = queue.start(judged.config())
    assert isinstance(first, Run) and queue.workers == [first.id]
    second, third = (queue.start(judged.config(seed=seed), judges="simulated") for seed in (2, 3))
    assert isinstance(second, QueuedRound) and waiting(queue) == [second.id, third.id]
    queue.start_next()
    assert queue.workers == [first.id], "one trains at a time"
    end(queue, first.id, "failed")
    queue.start_next()
    queue.start_next()
    (_, run_id) = queue.workers
    begun = rounds.of_run(queue.store, run_id)
    assert (runs.get(queue.store, run_id).seed, begun.judges, begun.trigger) == (2, "simulated", "hand")
    assert queued_rounds.get(queue.store, second.id).run_id == run_id and waiting(queue) == [third.id]


def test_a_round_waits_behind_those_that_wait(judged, queue):
    first = queue.start(judged.config())
    second = queue.start(judged.config(seed=2))
    end(queue, first.id)
    third = queue.start(judged.config(seed=3))
    assert isinstance(third, QueuedRound) and queued_rounds.get(queue.store, second.id).state == "started"


def test_a_round_that_is_taken_out_does_not_begin(judged, queue):
    first = queue.start(judged.config())
    second, third = (queue.start(judged.config(seed=seed)) for seed in (2, 3))
    queued_rounds.take_out(queue.store, second.id)
    end(queue, first.id)
    queue.start_next()
    assert runs.get(queue.store, queue.workers[-1]).seed == 3 and queued_rounds.get(queue.store, third.id).state == "started"


def test_a_round_that_cannot_begin_says_why_once_and_the_next_has_its_turn(judged, queue, caplog):
    first = queue.start(judged.config())
    reasons = {
        json.dumps(judged.config(min_pairs=20).to_dict()): "6 teach · 3 measure: a round needs 20 preference pairs that teach",
        json.dumps(judged.config().to_dict() | {"banana": 1}): "RoundConfig has no banana",
        json.dumps(replace(judged.config(), reward_function="os:system").to_dict()): "no page runs code",
    }
    refused = [queued_rounds.add(queue.store, json.loads(config), trigger="schedule").id for config in reasons]
    last = queue.start(judged.config(seed=7))
    end(queue, first.id)
    queue.start_next()
    for queued_id, reason in zip(refused, reasons.values(), strict=True):
        row = queued_rounds.get(queue.store, queued_id)
        assert row.state == "not started" and reason in row.reason
    assert queued_rounds.get(queue.store, last.id).state == "started"
    queue.start_next()
    assert caplog.text.count("was not started") == 3


def test_too_few_pairs_and_code_are_refused_before_there_is_a_row(judged, queue):
    with pytest.raises(NotEnoughPairs):
        queue.start(judged.config(min_pairs=20))
    with pytest.raises(RoundError, match="no page runs code"):
        queue.start(replace(judged.config(), reward_function="os:system"))
    assert waiting(queue) == [] and queued_rounds.not_started(queue.store) == []


def test_a_worker_that_cannot_be_started_is_a_failed_run_and_the_next_has_its_turn(judged, queue, monkeypatch):
    first = queue.start(judged.config())
    second, third = (queue.start(judged.config(seed=seed)) for seed in (2, 3))
    end(queue, first.id)

    def no_memory(*_):
        raise OSError("Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(queue, "spawn", partial(Jobs.spawn, queue))
        patch.setattr(queue.scheduler, "start", no_memory)
        queue.start_next()
    failed = runs.get(queue.store, queued_rounds.get(queue.store, second.id).run_id)
    assert (failed.status, failed.error) == ("failed", "its worker could not be started: Cannot allocate memory")
    queue.start_next()
    assert queued_rounds.get(queue.store, third.id).run_id == queue.workers[-1]


def test_a_run_whose_process_died_before_its_worker_began_is_begun_by_another(judged, queue, monkeypatch):
    monkeypatch.setattr(jobs_module, "ORPHAN_S", -1.0)
    asked = queued_rounds.add(queue.store, judged.config().to_dict(), trigger="hand")
    run_id = queue._begin_next()
    assert queue.workers == []
    runs.finish(queue.store, run_id, "lost")
    queue.start_next()
    assert queue.workers == [run_id] and runs.get(queue.store, run_id).status == "queued"
    queue.start_next()
    assert queue.workers == [run_id] and queued_rounds.get(queue.store, asked.id).state == "started"


def test_two_processes_that_look_at_once_begin_one_round(judged, queue, monkeypatch):
    for seed in (1, 2):
        queued_rounds.add(queue.store, judged.config(seed=seed).to_dict(), trigger="hand")
    # Both have read the queue when either goes on.
    both = threading.Barrier(2)
    monkeypatch.setattr(jobs_module, "require_material", lambda store, config: both.wait(60))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: queue.start_next(), range(2)))
    (run,) = runs.all_runs(queue.store)
    assert queue.workers == [run.id] and run.seed == 1 and len(waiting(queue)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("act", ["ask", "next"])
def test_a_process_that_is_killed_at_any_step_starts_nothing_twice_and_loses_nothing(judged, tmp_path, act):
    template = tmp_path / "template"
    judged.store.close()
    shutil.copytree(judged.folder.root, template)
    script = Path(__file__).parents[2] / "support" / "queue_kills.py"
    played = subprocess.run(
        [sys.executable, str(script), act, str(template), json.dumps(judged.config().to_dict())],
        capture_output=True,
        text=True,
        cwd=script.parents[2],
        env=os.environ | {"PYTHONPATH": str(script.parents[2])},
    )
    assert played.returncode == 0, played.stderr
    told = json.loads(played.stdout)
    assert len(told) > 20 and not told[-1]["died"]
    asked = 2 if act == "next" else 1
    for kill in told:
        if act == "ask" and kill["states"] == []:
            # Killed before the row was written: nobody was told that the round was queued.
            assert (kill["died"], kill["runs"], kill["workers"]) == (True, 0, 0)
            continue
        assert kill["states"] == ["started", *["waiting"] * (asked - 1)], kill
        assert (kill["runs"], kill["rounds"], kill["begun"]) == (1, 1, 1), kill
    assert any(kill["workers"] == 2 for kill in told), "a worker that was started before the kill, and the one that another started"
