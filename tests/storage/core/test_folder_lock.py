"""One serve for each folder, by a lock that ends with its process."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.core import folder_lock
from storage.core.data_folder import DataFolder
from storage.core.database import StoreError
from storage.exchange import backup

HOLD = """
import sys
from pathlib import Path
from storage.core import folder_lock
from storage.core.data_folder import DataFolder
with folder_lock.exclusive(DataFolder(Path(sys.argv[1])), "serve") as tell:
    tell("http://127.0.0.1:4711")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(store):
    return DataFolder(store.path.parent)


@pytest.fixture
def holder(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_with_the_holders_name(folder, holder):
    told = rf"rankloop serve \(process {holder.pid}, http://127.0.0.1:4711\)\. Stop that"
    with pytest.raises(folder_lock.FolderInUse, match=told):
        with folder_lock.exclusive(folder, "serve"):
            pass


def test_nothing_is_restored_under_a_serve(folder, holder, store, tmp_path):
    backup.backup(store, tmp_path / "copy.db")
    store.close()
    before = folder.database.read_bytes()
    with pytest.raises(StoreError, match=rf"process {holder.pid}"):
        backup.restore(folder, tmp_path / "copy.db", force=True)
    assert folder.database.read_bytes() == before


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_the_lock_ends_with_its_process(folder, holder, end):
    if end:
        holder.send_signal(end)
    holder.communicate()
    with folder_lock.exclusive(folder, "serve"):
        pass
    assert not list(folder.root.glob(".holder*"))


def test_child_processes_do_not_inherit_the_lock(folder):
    with folder_lock.exclusive(folder, "serve"):
        child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    with folder_lock.exclusive(folder, "serve"):
        pass
    child.communicate()


def test_a_file_system_without_locks_is_used_with_a_warning(folder, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with folder_lock.exclusive(folder, "serve"):
        pass
    assert "cannot be locked (Operation not supported)" in caplog.text
