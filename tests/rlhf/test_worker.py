"""The process of one round: its heartbeat, its failures, kills and cancels."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rounds import ended, run, steps
from waiting import until

from rlhf import worker
from rlhf.runs.jobs import Jobs
from rlhf.runs.progress import Cancelled
from storage.content import policies, prompts
from storage.core.data_folder import DataFolder
from storage.core.database import Database, StoreError
from storage.project import runs

ROOT = Path(__file__).parents[2]

PAIRS = 5_000
"""Rows of the file that is imported beside a round; `benchmarks/import_beside_judging.py --round` imports 200,000."""


# Stopping and dying.


def test_a_cancel_that_was_asked_for_before_the_start_is_kept(judged, jobs):
    run_id = jobs.create(judged.config()).id
    jobs.cancel(run_id)
    with pytest.raises(Cancelled):
        run(jobs, run_id)
    assert runs.get(judged.store, run_id).status == "cancelled"
    jobs.requeue(run_id)
    assert run(jobs, run_id).status == "done"


@pytest.mark.slow
def test_a_failure_is_kept_with_its_text_and_can_be_resumed(judged, jobs, tmp_path, monkeypatch):
    model = shutil.copytree(judged.model, tmp_path / "model")
    run_id = jobs.create(judged.config(model=str(model))).id
    (model / "model.safetensors").unlink()
    monkeypatch.setattr(sys, "argv", ["worker", "--data", str(judged.folder.root), run_id])
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert worker.main() == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    failed = runs.get(judged.store, run_id)
    assert failed.status == "failed" and failed.error.startswith(f"ModelError: {model}: no *.safetensors")
    shutil.copy(judged.model / "model.safetensors", model)
    jobs.requeue(run_id)
    assert run(jobs, run_id).status == "done"


def test_an_engine_that_cannot_be_imported_is_a_failure_with_its_text(judged, jobs, monkeypatch):
    run_id = jobs.create(judged.config()).id
    monkeypatch.setitem(sys.modules, "rlhf.round", None)
    with pytest.raises(ImportError):
        run(jobs, run_id)
    failed = runs.get(judged.store, run_id)
    assert failed.status == "failed" and "rlhf.round" in failed.error


def started(jobs, config, pid):
    run_id = jobs.create(config).id
    runs.mark_started(jobs.store, run_id, pid)
    return run_id


def silent(jobs, run_id):
    with jobs.store.atomic() as connection:
        connection.conn.execute("UPDATE runs SET heartbeat_at = '2020-01-01T00:00:00.000+00:00' WHERE id = ?", [run_id])


def test_heartbeats_go_on_after_one_that_failed(judged, jobs, monkeypatch):
    run_id = started(jobs, judged.config(), os.getpid())
    monkeypatch.setattr(worker, "HEARTBEAT_S", 0.01)
    beats, real = [], runs.beat

    def beat(store, run_id):
        beats.append(run_id)
        if len(beats) == 1:
            raise StoreError("locked")
        real(store, run_id)

    monkeypatch.setattr(runs, "beat", beat)
    silent(jobs, run_id)
    with worker.heartbeat(judged.store, run_id):
        until(lambda: runs.get(judged.store, run_id).heartbeat_at > "2021")
    count = len(beats)
    time.sleep(0.05)
    assert len(beats) == count, "and end with the round"


# Real processes.


@pytest.mark.slow
def test_a_cancel_stops_the_worker_before_its_last_step_and_sigterm_does_the_same(judged, jobs, long_config):
    store = judged.store
    run_id = jobs.start(long_config).id
    until(lambda: steps(store, run_id) >= 1, 300)
    jobs.cancel(run_id)
    assert ended(store, run_id).status == "cancelled"
    done = steps(store, run_id)

    jobs.resume(run_id)
    until(lambda: steps(store, run_id) > done, 300)
    os.kill(runs.get(store, run_id).pid, signal.SIGTERM)
    cancelled = ended(store, run_id)
    assert (cancelled.status, cancelled.error) == ("cancelled", None)
    assert "cancelled; resume goes on from the last checkpoint" in jobs.log_tail(run_id)
    assert done < steps(store, run_id) < 14


@pytest.mark.slow
def test_a_worker_outlives_the_process_that_started_it(judged):
    code = (
        "import sys; from pathlib import Path\n"
        "from rlhf.runs.jobs import Jobs; from rlhf.config import RoundConfig; from storage.core.data_folder import DataFolder\n"
        "from storage.core.database import Database\n"
        "import json; folder = DataFolder(Path(sys.argv[1])); store = Database(folder.database)\n"
        "print(Jobs(store, folder).start(RoundConfig.from_dict(json.loads(sys.argv[2]))).id)"
    )
    config = json.dumps(judged.config().to_dict())
    parent = subprocess.run(
        [sys.executable, "-c", code, str(judged.folder.root), config], capture_output=True, text=True, check=True, timeout=300
    )
    run_id = parent.stdout.strip()
    assert ended(judged.store, run_id).status == "done"
    assert policies.latest_tuned(judged.store, str(judged.model)).run_id == run_id


@pytest.mark.slow
def test_a_round_can_be_run_by_hand(judged, jobs):
    run_id = jobs.create(judged.config()).id
    command = [sys.executable, "-m", "rlhf.worker", "--data", str(judged.folder.root), run_id]
    by_hand = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert by_hand.returncode == 0, by_hand.stderr
    assert f"done: tiny-{run_id}" in by_hand.stderr
    assert prompts.of_split(judged.store, "heldout")
    assert Database(DataFolder(judged.folder.root).database).row("SELECT 1 FROM policy_versions WHERE run_id = ?", [run_id])


@pytest.mark.slow
def test_a_round_trains_on_while_a_large_file_is_imported_and_both_end_well(empty_world, tmp_path):
    world = empty_world.fill(train=24, heldout=6)
    store, jobs = world.store, Jobs(world.store, world.folder)
    file = tmp_path / "pairs.jsonl"
    rows = ({"prompt": f"Question {n}: {'why ' * 40}", "chosen": f"so {n} {'so ' * 80}", "rejected": "no " * 80} for n in range(PAIRS))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_id = jobs.start(world.config(seed=4, ppo_steps=60, ppo_batch_size=16, sampling_max_new_tokens=24)).id
    until(lambda: steps(store, run_id) >= 1, 300)
    command = [sys.executable, "launch.py", "import", str(file), "--format", "trl", "--data", str(world.folder.root)]
    importing = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while_written = set()
    while importing.poll() is None:
        if store.value("SELECT 1 FROM unfinished_imports"):
            while_written.add(steps(store, run_id))
        time.sleep(0.05)
    assert importing.returncode == 0 and f"{PAIRS} comparisons added, {PAIRS} judgments" in importing.stdout.read()
    assert len(while_written) > 1, "the round must write while the import is half done"
    # Which of the two ends first is the machine's affair.
    done = ended(store, run_id, 300)
    assert (done.status, done.error, steps(store, run_id)) == ("done", None, 60)
    assert store.value("SELECT count(*) FROM votes WHERE import_id IS NOT NULL") == PAIRS
