"""What a run is trained on is frozen once."""

import pytest

from rlhf.stages.snapshot import take_snapshot
from storage.project import runs


class Killed(BaseException):
    """As a kill -9: nothing gets to write how it ended."""


def test_a_snapshot_that_was_frozen_before_a_kill_reaches_the_row(judged, jobs, monkeypatch):
    run_id = jobs.create(judged.config()).id

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(runs, "set_snapshot", die)
        with pytest.raises(Killed):
            take_snapshot(judged.store, run_id, judged.config(), judged.folder.run(run_id))
    take_snapshot(judged.store, run_id, judged.config(), judged.folder.run(run_id))
    assert runs.get(judged.store, run_id).snapshot["pairs"] == 9
