"""From a run to its judgments and back, by the snapshot in the run's folder; what is not known is named."""

import pytest

from rlhf.data import lineage, pairs
from rlhf.data.pairs import PreferencePair
from storage.core.data_folder import DataFolder
from storage.core.database import StoreError
from storage.project import runs


def pair(judgment_id):
    return PreferencePair(({"role": "user", "content": "Q"},), "good", "bad", 1.0, "train", "human", judgment_id)


@pytest.fixture
def folder(store):
    return DataFolder(store.path.parent)


@pytest.fixture
def learned(store, folder):
    def learn(run_id, *judgment_ids):
        runs.create(store, run_id, config={}, seed=1, versions={})
        frozen = [pair(judgment_id) for judgment_id in judgment_ids]
        pairs.write_snapshot(frozen, folder.run(run_id))
        runs.set_snapshot(store, run_id, pairs.manifest(frozen).to_json())
        return runs.get(store, run_id)

    return learn


def test_a_run_s_judgments_are_those_of_its_snapshot(learned, folder):
    assert lineage.judgments_of(folder, learned("r1", 7, 3, 7, 9)) == [3, 7, 9]


def test_a_judgment_s_runs_are_those_whose_snapshots_name_it(store, learned, folder):
    learned("r1", 1, 2), learned("r2", 2, 3), learned("r3", 4)
    runs.create(store, "queued", config={}, seed=1, versions={})
    assert lineage.uses_of(store, folder, 2) == lineage.Uses(["r1", "r2"], [])
    assert lineage.uses_of(store, folder, 9) == lineage.Uses([], [])


def test_a_snapshot_that_is_gone_or_another_is_named(store, learned, folder):
    gone, other = learned("r1", 1), learned("r2", 1)
    learned("r3", 1)
    (folder.run("r1") / pairs.PAIRS_FILE).unlink()
    pairs.write_snapshot([pair(5)], folder.run("r2"))
    assert lineage.uses_of(store, folder, 1) == lineage.Uses(["r3"], ["r1", "r2"])
    with pytest.raises(StoreError, match="judgments of run r1 are not known: its snapshot cannot be read"):
        lineage.judgments_of(folder, gone)
    with pytest.raises(StoreError, match="r2.*is not the snapshot that it learned from. Restore a backup"):
        lineage.judgments_of(folder, other)
