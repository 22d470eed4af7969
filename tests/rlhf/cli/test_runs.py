"""`rankloop run`: one run's name and note, and its metrics as a file."""

import pytest

import launch
from storage.project import runs


@pytest.fixture
def rankloop(capsys, store):
    def call(*arguments, status=0):
        assert launch.main([*arguments, "--data", str(store.path.parent)]) == status
        said = capsys.readouterr()
        return said.out + said.err

    return call


def test_a_run_is_named_and_listed_with_its_name(rankloop, store):
    runs.create(store, "r1", config={}, seed=0, versions={})
    runs.finish(store, "r1", "failed", error="It stopped.")
    assert "r1 Lower KL" in rankloop("run", "name", "r1", "--name", "Lower KL")
    rankloop("run", "name", "r1", "--note", "Half the\ncoefficient.")
    assert runs.get(store, "r1").name == "Lower KL"
    assert rankloop("runs").startswith("r1 Lower KL  failed")
    one = rankloop("runs", "r1")
    assert "r1 Lower KL: failed" in one and "note: Half the\\u000acoefficient." in one
    rankloop("run", "name", "r1", "--name", "")
    assert rankloop("runs").startswith("r1  failed")


def test_nothing_to_write_and_an_unknown_run_are_refused(rankloop, store):
    runs.create(store, "r1", config={}, seed=0, versions={})
    assert "give --name, --note or both" in rankloop("run", "name", "r1", status=2)
    assert "no run r9" in rankloop("run", "name", "r9", "--name", "x", status=2)
    assert "at most 80" in rankloop("run", "name", "r1", "--name", "n" * 81, status=2)


def test_metrics_are_written_as_csv_or_for_tensorboard(rankloop, store, tmp_path):
    runs.create(store, "r1", config={}, seed=0, versions={})
    assert "has logged no metrics" in rankloop("run", "metrics", "r1", "--out", str(tmp_path / "m.csv"), status=2)
    assert not (tmp_path / "m.csv").exists()
    runs.log_metrics(store, "r1", 1, {"objective/kl": 0.5, "objective/scores": 1.5})
    assert "2 values written to" in rankloop("run", "metrics", "r1", "--out", str(tmp_path / "m.csv"))
    assert (tmp_path / "m.csv").read_text() == "step,metric,value\n1,objective/kl,0.5\n1,objective/scores,1.5\n"
    board = tmp_path / "board"
    assert str(board / "r1") in rankloop("run", "metrics", "r1", "--to", "tensorboard", "--out", str(board))
    (file,) = (board / "r1").iterdir()
    assert b"objective/kl" in file.read_bytes()
    assert "no run r9" in rankloop("run", "metrics", "r9", "--out", str(board), status=2)
