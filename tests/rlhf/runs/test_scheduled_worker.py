"""A worker that a cluster started: it stays away from a store of another machine, and its output is in the run's log too."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from waiting import until

from rlhf.runs import scheduled_worker
from rlhf.runs.scheduled_worker import WrongMachine
from storage.core.data_folder import DataFolder

ROOT = Path(__file__).parents[3]


def test_a_store_is_opened_on_the_machine_that_submitted_alone(store, monkeypatch):
    folder = DataFolder(store.path.parent)
    here = scheduled_worker.machine()
    scheduled_worker.require_store(folder, here)
    scheduled_worker.require_store(folder, "")
    if here:
        with pytest.raises(WrongMachine, match="--entrypoint-resources"):
            scheduled_worker.require_store(folder, "6ba7b810-9dad-11d1-80b4-00c04fd430c8")
    monkeypatch.setattr(scheduled_worker, "BOOT_ID", folder.root / "none")
    assert scheduled_worker.machine() == ""
    scheduled_worker.require_store(folder, "6ba7b810-9dad-11d1-80b4-00c04fd430c8")


def test_a_worker_without_a_store_says_so_and_makes_none(tmp_path):
    command = [sys.executable, "-m", "rlhf.worker", "--data", str(tmp_path / "data"), "--job", "j1", "r1"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 1 and f"there is no store at {tmp_path / 'data' / 'rankloop.db'}" in ended.stderr
    assert not (tmp_path / "data").exists()


def test_what_is_written_after_a_signal_to_all_processes_is_in_the_log_too(tmp_path):
    log = tmp_path / "runs" / "r1" / "log.txt"
    program = (
        "import os, signal, subprocess, sys; from pathlib import Path\n"
        "from rlhf.runs.scheduled_worker import copy_output\n"
        "def end(*_):\n"
        "    subprocess.run(['sh', '-c', 'echo child']); print('ended', file=sys.stderr); os._exit(3)\n"
        "copy_output(Path(sys.argv[1])); print('begun', flush=True)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('ready', flush=True); signal.pause()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(log)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    until(lambda: log.is_file() and "ready" in log.read_text())
    for each in [*psutil.Process(process.pid).children(), process]:
        os.kill(each.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 3 and output == "begun\nready\nchild\nended\n"
    until(lambda: log.read_text() == output)
