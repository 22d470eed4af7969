"""What is downloaded from a run: the adapter's files as a zip, and metrics as CSV."""

import io
import json
import zipfile

import pytest

from rlhf.runs import run_files
from rlhf.runs.run_files import NoAdapter
from storage.content import policies
from storage.core.data_folder import DataFolder
from storage.core.database import StoreError
from storage.core.records import Metric
from storage.project import runs

LORA = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}


@pytest.fixture
def run(store):
    runs.create(store, "r1", config={}, seed=0, versions={})
    return "r1"


def register(store, run_id, base_model="/home/ann/models/secret-base", **config):
    folder = DataFolder(store.path.parent).run(run_id) / "policy"
    folder.mkdir(parents=True)
    # More than a piece, so that the zip comes in several.
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 5000)
    (folder / "adapter_config.json").write_text(json.dumps(LORA | {"base_model_name_or_path": base_model} | config))
    (folder / "README.md").write_text("pairs of 2 judgments left out (73519400, 73519401)")
    policies.register_tuned(store, name="tuned-1", base_model=base_model, adapter_path=f"runs/{run_id}/policy", run_id=run_id)
    return folder


def test_the_zip_has_what_peft_reads_and_no_folder_and_no_id(store, run):
    folder = register(store, run)
    found = run_files.adapter(store, runs.get(store, run))
    assert found.size_bytes == 1_280_000
    pieces = [*run_files.zipped(found)]
    assert len(pieces) == 3 and max(map(len, pieces)) < 1_100_000
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["adapter_config.json", "adapter_model.safetensors"]
        assert archive.read("adapter_model.safetensors") == (folder / "adapter_model.safetensors").read_bytes()
        assert json.loads(archive.read("adapter_config.json")) == LORA | {"base_model_name_or_path": "secret-base"}
    assert b"/home/ann" not in b"".join(pieces) and b"73519400" not in b"".join(pieces)


@pytest.mark.parametrize(
    ("status", "result", "reason"),
    [
        (None, None, "not_yet"),
        ("failed", None, "ended"),
        ("cancelled", {"stopped_at_chance": True}, "at_chance"),
        ("cancelled", {"stopped_at_chance": "?"}, "ended"),
        ("done", {}, "ended"),
    ],
)
def test_a_run_without_an_adapter_says_why(store, run, status, result, reason):
    if status:
        runs.finish(store, run, status, result=result)
    with pytest.raises(NoAdapter) as error:
        run_files.adapter(store, runs.get(store, run))
    assert error.value.reason == reason


@pytest.mark.parametrize("harm", ["config", "weights", "link", "field"])
def test_an_adapter_that_is_damaged_or_elsewhere_is_not_given_away(store, run, tmp_path, harm):
    folder = register(store, run, **({"auto_mapping": {"x": "y"}} if harm == "field" else {}))
    if harm == "config":
        (folder / "adapter_config.json").write_text("{")
    if harm in ("weights", "link"):
        (folder / "adapter_model.safetensors").unlink()
    if harm == "link":
        secret = tmp_path / "secret"
        secret.write_text("of the machine")
        (folder / "adapter_model.safetensors").symlink_to(secret)
    with pytest.raises(NoAdapter) as error:
        run_files.adapter(store, runs.get(store, run))
    assert error.value.reason == "gone"


def test_a_folder_outside_of_the_data_folder_is_an_error(store, run, tmp_path):
    folder = register(store, run)
    (tmp_path / "else").mkdir()
    folder.rename(tmp_path / "else" / "policy")
    folder.symlink_to(tmp_path / "else" / "policy")
    with pytest.raises(StoreError, match="cannot be used"):
        run_files.adapter(store, runs.get(store, run))


def test_metrics_are_in_the_long_form_by_step():
    metrics = [Metric("b", 2, 0.1), Metric("a", 10, 1e-07), Metric("a", 2, 3.0), Metric('x,"y"', 1, -2.5)]
    assert run_files.metrics_csv(metrics) == 'step,metric,value\n1,"x,""y""",-2.5\n2,a,3.0\n2,b,0.1\n10,a,1e-07\n'
    assert run_files.metrics_csv([]) == "step,metric,value\n"
