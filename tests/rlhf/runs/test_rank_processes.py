"""The processes of one run on this machine: which of them ends how, and what the run's row says then."""

import os
import signal
import sys

import psutil
import pytest
from rounds import done, ended, metric, steps
from waiting import until

from rlhf.runs import rank_processes
from rlhf.runs.rank_processes import environment, in_words
from storage.project import runs

SLEEP = "import time; time.sleep(600)"


def ranks_of(programs):
    """A command that runs another Python program on each rank."""
    return [sys.executable, "-c", f"import os; exec({programs!r}[int(os.environ['RANK'])])"]


@pytest.fixture
def running(judged, jobs):
    run_id = jobs.create(judged.config()).id
    runs.mark_started(judged.store, run_id, os.getpid())
    return run_id


@pytest.mark.parametrize(
    ("programs", "status", "says"),
    [
        (["pass", "pass"], 0, None),
        ([SLEEP, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"], "failed", "rank 1 of 2 ended with signal 9 (SIGKILL)"),
        ([SLEEP, "raise SystemExit(3)"], "failed", "rank 1 of 2 ended with status 3, for a reason that the run's log has"),
        (["import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", SLEEP], "failed", "rank 0 of 2 ended with signal 11 (SIGSEGV)"),
        (["raise SystemExit(1)", SLEEP], "failed", "rank 0 of 2 ended with status 1, for a reason that the run's log has"),
    ],
)
def test_a_rank_that_ends_early_ends_all_and_the_row_says_which_and_how(judged, running, programs, status, says):
    found = rank_processes.train(judged.store, running, ranks_of(programs), 2)
    row = runs.get(judged.store, running)
    if status == 0:
        assert (found, row.status) == (0, "running"), "rank 0 itself writes that it is done"
    else:
        assert found and (row.status, row.error) == (status, f"{says}; resume goes on from the last checkpoint")
    assert not psutil.Process().children(recursive=True)


def test_what_rank_0_wrote_about_its_own_end_stays(judged, running):
    runs.finish(judged.store, running, "failed", error="ModelError: no weights")
    assert rank_processes.train(judged.store, running, ranks_of(["raise SystemExit(1)", SLEEP]), 2) == 1
    assert runs.get(judged.store, running).error == "ModelError: no weights"


def test_a_rank_that_is_asked_to_stop_stops_rank_0_in_its_own_way_and_the_run_is_cancelled(judged, running, tmp_path):
    ready = str(tmp_path / "ready")
    stops = (
        f"import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(130)); open({ready!r}, 'w').close(); time.sleep(600)"
    )
    after = f"import os, time\nwhile not os.path.exists({ready!r}): time.sleep(0.02)\nraise SystemExit(130)"
    assert rank_processes.train(judged.store, running, ranks_of([stops, after]), 2) == 130
    assert (runs.get(judged.store, running).status, runs.get(judged.store, running).error) == ("cancelled", None)


def test_the_environment_is_that_of_a_launcher_and_the_users_own_threads_win(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = environment(1, 2, tmp_path / "meet")
    place = {name: found[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANKLOOP_RENDEZVOUS")}
    assert list(place.values()) == ["1", "1", "2", "2", str(tmp_path / "meet")] and found["OMP_NUM_THREADS"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert environment(0, 2, tmp_path)["OMP_NUM_THREADS"] == "3"
    assert environment(0, 8, tmp_path)["OMP_NUM_THREADS"] == "1"
    assert in_words(3, 4, -250).startswith("rank 3 of 4 ended with signal 250;")


def rank_process(run_id, rank):
    """The process of one rank of a run."""
    for process in psutil.process_iter():
        try:
            if run_id in process.cmdline() and process.environ().get("RANK") == str(rank):
                return process
        except psutil.Error:
            continue
    return None


@pytest.mark.slow
def test_a_round_of_two_processes_is_cancelled_survives_a_killed_rank_and_ends_as_one_process_does(judged, jobs):
    """Through the worker as people start it: cancel, resume, kill -9 of rank 1, resume; its first metrics are those of one process."""
    store = judged.store
    options = {"seed": 4, "ppo_batch_size": 8, "sampling_max_new_tokens": 16}
    alone = done(jobs, judged.config(ppo_steps=2, **options))

    def trains_beyond(step):
        found = until(lambda: steps(store, run_id) > step or runs.get(store, run_id).finished_at, 300)
        assert found is True, f"{runs.get(store, run_id).error}\n{jobs.log_tail(run_id)}"

    run_id = jobs.start(judged.config(launcher="accelerate", processes=2, ppo_steps=60, **options)).id
    trains_beyond(1)
    jobs.cancel(run_id)
    assert ended(store, run_id).status == "cancelled"
    until(lambda: rank_process(run_id, 0) is rank_process(run_id, 1) is None, 60)

    reached = steps(store, run_id)
    jobs.resume(run_id)
    trains_beyond(reached)
    os.kill(rank_process(run_id, 1).pid, signal.SIGKILL)
    failed = until(lambda: (r := runs.get(store, run_id)).error and "rank" in r.error and r, 60)
    assert (failed.status, failed.error) == ("failed", "rank 1 of 2 ended with signal 9 (SIGKILL); resume goes on from the last checkpoint")
    until(lambda: rank_process(run_id, 0) is None, 60)

    jobs.resume(run_id)
    assert ended(store, run_id).status == "done", jobs.log_tail(run_id)
    assert steps(store, run_id) == 60
    for name in ("reward/loss", "objective/scores", "objective/kl", "loss/policy_avg", "loss/value_avg", "policy/grad_norm"):
        first, second = metric(jobs, alone, name), metric(jobs, runs.get(store, run_id), name)
        assert second[:2] == pytest.approx(first[:2], rel=1e-3, abs=1e-4), name
