"""Where things are in the data folder, and that no name leads out of it."""

from pathlib import Path

import pytest

from storage.core.data_folder import DataFolder, inside, is_run_id
from storage.core.database import StoreError


def test_the_folder_has_the_paths():
    folder = DataFolder(Path("d"))
    assert folder.database == Path("d/rankloop.db")
    assert folder.run_log("r1") == Path("d/runs/r1/log.txt")


@pytest.mark.parametrize("run_id", ["r1127-0907-a4e3", "my run_2.b", "a" * 64])
def test_names_that_runs_may_have(run_id):
    assert is_run_id(run_id)
    assert DataFolder(Path("d")).run(run_id) == Path("d/runs") / run_id


@pytest.mark.parametrize("run_id", ["", ".", "..", "../x", "a/b", "-x", " x", "a" * 65, "é", "x\n", None, 3])
def test_names_that_no_run_has(run_id):
    assert not is_run_id(run_id)
    with pytest.raises(StoreError, match="is not a run's id"):
        DataFolder(Path("d")).run(run_id)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "out").symlink_to(tmp_path)
    (tmp_path / "runs" / "in").symlink_to(tmp_path / "runs" / "other")
    with pytest.raises(StoreError, match="'out' leads out of the folder runs"):
        DataFolder(tmp_path).run("out")
    assert DataFolder(tmp_path).run("in") == tmp_path / "runs" / "in"
    (tmp_path / "runs" / "round").symlink_to(tmp_path / "runs" / "round")
    with pytest.raises(StoreError, match="cannot be resolved"):
        inside(tmp_path / "runs" / "round", tmp_path / "runs")
