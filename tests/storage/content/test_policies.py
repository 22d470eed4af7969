from pathlib import Path

import pytest

from storage.content import policies
from storage.core.database import Database, StoreError
from storage.project import runs


@pytest.fixture
def run(store):
    return runs.create(store, "r1", config={}, seed=1, versions={}).id


def test_a_base_is_named_after_its_model_and_made_once(store):
    first = policies.ensure_base(store, "HuggingFaceTB/SmolLM2-135M-Instruct")
    assert (first.name, first.kind, first.adapter_path, first.run_id) == ("SmolLM2-135M-Instruct", "base", None, None)
    assert policies.ensure_base(store, "HuggingFaceTB/SmolLM2-135M-Instruct") == first
    assert policies.all_versions(store) == [first]


def test_a_base_is_found_without_being_made_and_a_version_by_its_id(store):
    assert policies.base(store, "a/tiny") is None and policies.all_versions(store) == []
    first = policies.ensure_base(store, "a/tiny")
    assert policies.base(store, "a/tiny") == policies.get(store, first.id) == first
    with pytest.raises(StoreError, match="no policy version with the id 9"):
        policies.get(store, 9)


def test_bases_of_the_same_last_name_stay_apart(store):
    names = [policies.ensure_base(store, model).name for model in ("a/tiny", "/models/tiny/", r"C:\models\tiny")]
    assert names == ["tiny", "tiny-2", "tiny-3"]


def test_external_versions_are_known_by_name(store):
    gpt = policies.ensure_external(store, "gpt-x")
    assert (gpt.kind, policies.ensure_external(store, "gpt-x")) == ("external", gpt)
    policies.ensure_base(store, "a/tiny")
    with pytest.raises(StoreError, match="tiny is a base version.*another name"):
        policies.ensure_external(store, "tiny")


def test_an_adapter_is_kept_relative_to_the_data_folder(store, run):
    folder = store.path.parent / "runs" / "r1" / "adapter"
    version = policies.register_tuned(store, name="t1", base_model="a/tiny", adapter_path=folder, run_id=run)
    assert (version.kind, version.adapter_path, version.run_id) == ("tuned", "runs/r1/adapter", "r1")
    assert policies.by_name(store, "t1") == version
    assert policies.adapter_folder(store, version) == folder
    same = policies.register_tuned(store, name="t1", base_model="a/tiny", adapter_path="runs/r1/adapter", run_id=run)
    assert same == version


def test_a_relative_data_folder_works_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Database("data/rankloop.db")
    runs.create(store, "r1", config={}, seed=1, versions={})
    for name, path in (("a", "data/runs/a"), ("b", "runs/b"), ("c", Path("data/runs/c").resolve())):
        version = policies.register_tuned(store, name=name, base_model="m", adapter_path=path, run_id="r1")
        assert version.adapter_path == f"runs/{name}"
    store.close()


def test_refuses_adapters_outside_the_data_folder(store, run):
    def register(name="t1", adapter_path="runs/r1/adapter", run_id=run):
        return policies.register_tuned(store, name=name, base_model="a/tiny", adapter_path=adapter_path, run_id=run_id)

    with pytest.raises(StoreError, match="outside the data folder"):
        register(adapter_path="/elsewhere/adapter")
    with pytest.raises(StoreError, match="leads out of the data folder"):
        register(adapter_path="../adapter")
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        register(run_id="no such run")
    register()
    with pytest.raises(StoreError, match="t1 already: choose another name"):
        register(adapter_path="runs/r2/adapter")
    assert [version.name for version in policies.all_versions(store)] == ["t1"]


def test_by_name_names_the_known_ones(store):
    with pytest.raises(StoreError, match="no policy version x. Choose one of: none yet"):
        policies.by_name(store, "x")
    policies.ensure_base(store, "a/tiny")
    policies.ensure_external(store, "gpt-x")
    with pytest.raises(StoreError, match="Choose one of: tiny, gpt-x"):
        policies.by_name(store, "x")


def test_latest_tuned_is_the_newest_over_that_base(store, run):
    assert policies.latest_tuned(store, "a/tiny") is None
    for name, base in (("one", "a/tiny"), ("two", "a/tiny"), ("three", "b/other")):
        policies.register_tuned(store, name=name, base_model=base, adapter_path=f"runs/{name}", run_id=run)
    assert policies.latest_tuned(store, "a/tiny").name == "two"
