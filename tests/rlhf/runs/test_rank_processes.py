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
def run_id(judged, jobs):
    return jobs.create(judged.config()).id


def as_rank_0(judged, run_id, then):
    """A program that takes the run as a worker does, and then does something with its row."""
    return (
        "import os; from pathlib import Path; from storage.core.database import Database; from storage.project import runs\n"
        f"store, run_id = Database(Path({str(judged.store.path)!r})), {run_id!r}\n"
        f"assert runs.claim(store, run_id, os.getpid())\n{then}"
    )


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
def test_a_rank_that_ends_early_ends_all_and_the_row_says_which_and_how(judged, run_id, programs, status, says):
    others = set(psutil.Process().children(recursive=True))
    found = rank_processes.train(judged.store, run_id, ranks_of(programs), 2)
    row = runs.get(judged.store, run_id)
    if status == 0:
        assert (found, row.status) == (0, "queued"), "rank 0 itself writes how it goes"
    else:
        assert found and (row.status, row.error) == (status, f"{says}; resume goes on from the last checkpoint")
    assert not set(psutil.Process().children(recursive=True)) - others


def test_what_rank_0_wrote_about_its_own_end_stays(judged, run_id):
    wrote = as_rank_0(judged, run_id, "runs.finish(store, run_id, 'failed', error='ModelError: no weights'); raise SystemExit(1)")
    assert rank_processes.train(judged.store, run_id, ranks_of([wrote, SLEEP]), 2) == 1
    assert runs.get(judged.store, run_id).error == "ModelError: no weights"


def test_the_loss_of_a_connection_gives_way_to_its_cause_and_a_resumed_run_is_left_alone(judged, run_id, tmp_path):
    lost = "runs.finish(store, run_id, 'failed', error='RuntimeError: Connection closed'); open({!r}, 'w').close(); "
    for name, resumed, expected in (("a", "", ("failed", True)), ("b", "runs.requeue(store, run_id); ", ("queued", False))):
        ready = str(tmp_path / name)
        first = as_rank_0(judged, run_id, lost.format(ready).replace("open", f"{resumed}open") + SLEEP)
        dies = f"import os, time\nwhile not os.path.exists({ready!r}): time.sleep(0.02)\nos.kill(os.getpid(), 9)"
        assert rank_processes.train(judged.store, run_id, ranks_of([first, dies]), 2) != 0
        row = runs.get(judged.store, run_id)
        assert (row.status, (row.error or "").startswith("rank 1 of 2 ended with signal 9")) == expected
        if name == "a":
            runs.requeue(judged.store, run_id)


def test_a_rank_that_is_asked_to_stop_stops_rank_0_in_its_own_way_and_the_run_is_cancelled(judged, run_id, tmp_path):
    ready = str(tmp_path / "ready")
    stops = (
        f"import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(130)); open({ready!r}, 'w').close(); time.sleep(600)"
    )
    after = f"import os, time\nwhile not os.path.exists({ready!r}): time.sleep(0.02)\nraise SystemExit(130)"
    assert rank_processes.train(judged.store, run_id, ranks_of([stops, after]), 2) == 130
    assert (runs.get(judged.store, run_id).status, runs.get(judged.store, run_id).error) == ("cancelled", None)


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
def test_a_round_of_two_processes_survives_a_killed_rank_and_ends_with_the_metrics_of_one_process(judged, jobs):
    """Through the worker as people start it: kill -9 of rank 1, resume, done; the first steps' metrics are those of one process."""
    store = judged.store
    options = {"seed": 4, "ppo_batch_size": 8, "sampling_max_new_tokens": 16}
    alone = done(jobs, judged.config(ppo_steps=2, **options))
    run_id = jobs.start(judged.config(launcher="accelerate", processes=2, ppo_steps=20, **options)).id
    found = until(lambda: steps(store, run_id) > 1 or runs.get(store, run_id).finished_at, 300)
    assert found is True, f"{runs.get(store, run_id).error}\n{jobs.log_tail(run_id)}"
    os.kill(rank_process(run_id, 1).pid, signal.SIGKILL)
    failed = until(lambda: (r := runs.get(store, run_id)).error and "rank" in r.error and r, 60)
    assert (failed.status, failed.error) == ("failed", "rank 1 of 2 ended with signal 9 (SIGKILL); resume goes on from the last checkpoint")
    until(lambda: rank_process(run_id, 0) is None, 60)
    reached = steps(store, run_id)

    jobs.resume(run_id)
    assert ended(store, run_id).status == "done", jobs.log_tail(run_id)
    assert 1 < reached < steps(store, run_id) == 20
    for name in ("reward/loss", "objective/scores", "objective/kl", "loss/policy_avg", "loss/value_avg", "policy/grad_norm"):
        first, second = metric(jobs, alone, name), metric(jobs, runs.get(store, run_id), name)
        assert second[:2] == pytest.approx(first[:2], rel=1e-3, abs=1e-4), name
