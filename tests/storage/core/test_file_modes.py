"""Other users of the machine cannot read a data folder."""

import os
import stat
from pathlib import Path

import pytest

from storage.core import file_modes
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.exchange import backup

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX modes")


def mode(path):
    return stat.S_IMODE(Path(path).stat().st_mode)


@pytest.fixture(autouse=True)
def open_umask():
    before = os.umask(0o000)
    yield
    os.umask(before)


def test_a_new_store_and_its_copies_are_their_owners_alone(tmp_path):
    store = Database(tmp_path / "data" / "rankloop.db")
    assert mode(tmp_path / "data") == 0o700
    assert {path.name: mode(path) for path in (tmp_path / "data").iterdir()} == dict.fromkeys(
        ("rankloop.db", "rankloop.db-wal", "rankloop.db-shm"), 0o600
    )
    backup.backup(store, tmp_path / "copy.db")
    store.close()
    backup.restore(DataFolder(tmp_path / "new"), tmp_path / "copy.db")
    assert mode(tmp_path / "copy.db") == mode(tmp_path / "new" / "rankloop.db") == 0o600
    assert mode(tmp_path / "new") == 0o700


def old_store(root):
    Database(root / "rankloop.db").close()
    for name in ("runs", "logs"):
        (root / name).mkdir(mode=0o777)
    (root / "rankloop-before-2026.db").touch(0o666)
    (root / "rankloop.db").chmod(0o644)
    root.chmod(0o755)


def test_the_files_of_an_older_store_are_restricted_and_reported(tmp_path):
    root = tmp_path / "data"
    old_store(root)
    said = file_modes.restrict_to_owner(root, root / "rankloop.db")
    assert said == ["data", "logs", "rankloop-before-2026.db", "rankloop.db", "runs"]
    assert not any(mode(path) & 0o077 for path in (root, *root.iterdir()))
    assert file_modes.restrict_to_owner(root, root / "rankloop.db") == []


@pytest.mark.parametrize("shared", ["other things", "everybody writes"])
def test_a_folder_that_holds_more_than_the_store_stays_open(tmp_path, shared):
    root = tmp_path / "data"
    old_store(root)
    if shared == "other things":
        (root / "notes.txt").touch()
    else:
        root.chmod(0o1777)
    before = mode(root)
    assert file_modes.restrict_to_owner(root, root / "rankloop.db") == ["logs", "rankloop-before-2026.db", "rankloop.db", "runs"]
    assert mode(root) == before
