"""A tuned version leaves in each format that needs no further packages, and its own runtime answers as the policy does."""

import json

import pytest
from learning import scramble, user
from safetensors.numpy import load_file, save_file

import launch
from rlhf.config import AdapterConfig
from rlhf.deploy import export as exports
from rlhf.deploy.export import MANIFEST, ExportFailed
from rlhf.deploy.formats import FORMATS
from rlhf.model_files import sha256
from rlhf.models.backbone import Backbone
from rlhf.safe_files import ModelError
from storage.content import policies, prompts
from storage.project import runs

# Each export loads torch in one process and the runtime in another.
pytestmark = pytest.mark.slow


@pytest.fixture
def version(store, tiny_folder):
    """A LoRA version whose answers differ from the base's, over three held-out prompts."""
    prompts.add(store, [prompts.NewPrompt(user(f"Question {i}?"), split="heldout") for i in range(3)], source="test")
    return tuned(store, tiny_folder, AdapterConfig(rank=4))


def tuned(store, tiny_folder, config):
    runs.create(store, "run", config={}, seed=7, versions={"torch": "2.13.0"})
    maker = Backbone.load(tiny_folder, "cpu", "float32")
    maker.add_adapter("policy", config, seed=1)
    scramble(maker, "policy", seed=1, scale=0.5)
    folder = store.path.parent / "runs" / "run" / "policy"
    maker.save_adapter("policy", folder)
    return policies.register_tuned(store, name="tuned", base_model=str(tiny_folder), adapter_path=folder, run_id="run")


def exported(store, version, out, name, weights=None):
    said = []
    form = FORMATS[name]
    check = exports.export(store, version, form, out, weights=weights or form.weights[0], say=lambda what, done: said.append(done))
    assert said == sorted(said) and said[-1] == 1.0
    return check


@pytest.mark.parametrize("name, file", [("hf", "model.safetensors"), ("peft", "adapter_model.safetensors"), ("gguf", "model.gguf")])
def test_an_export_answers_as_the_policy_token_for_token(store, version, tmp_path, name, file):
    check = exported(store, version, out := tmp_path / "out", name)
    assert check.passed and check.same == len(check.prompts) == 3
    assert check.max_difference < (0.05 if name == "gguf" else 1e-4)
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest["sha256"] == {
        str(found.relative_to(out)): sha256(found) for found in out.rglob("*") if found.is_file() and found.name != MANIFEST
    }
    assert file in manifest["sha256"] and manifest["version"] == "tuned" and manifest["run"]["seed"] == 7
    assert str(store.path.parent) not in (out / MANIFEST).read_text() + (out / "README.md").read_text()
    assert [folder.name for folder in tmp_path.iterdir() if folder.name.startswith(".out")] == [], "no scratch folder is left"


def test_an_export_that_answers_otherwise_fails_and_says_where(store, version, tmp_path, monkeypatch):
    real = exports._write

    def without_one_weight(*args):
        real(*args)
        file = args[5] / "model.safetensors"
        weights = load_file(file)
        key = next(key for key in weights if "mlp.down_proj" in key)
        save_file(weights | {key: weights[key] * -1}, file, metadata={"format": "pt"})

    monkeypatch.setattr(exports, "_write", without_one_weight)
    check = exported(store, version, out := tmp_path / "out", "hf")
    assert not check.passed and not out.exists() and check.max_difference > 1e-3
    failed = tmp_path / "out.failed"
    assert json.loads((failed / MANIFEST).read_text())["passed"] is False and "FAILED" in (failed / "README.md").read_text()


def test_a_program_that_fails_leaves_nothing(store, version, tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "runtime_of", lambda form: ("no_such_runtime", "none"))
    with pytest.raises(ExportFailed, match="no_such_runtime"):
        exported(store, version, tmp_path / "out", "peft")
    assert not [folder for folder in tmp_path.iterdir() if "out" in folder.name]


def test_a_folder_that_is_there_stays_as_it_is(store, version, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="exists already"):
        exported(store, version, tmp_path / "out", "peft")


def test_a_learned_prompt_leaves_alone_and_is_not_merged(store, tiny_folder, tmp_path):
    prompts.add(store, [prompts.NewPrompt(user("Question?"), split="heldout")], source="test")
    version = tuned(store, tiny_folder, AdapterConfig(kind="prompt", virtual_tokens=3))
    with pytest.raises(ModelError, match="learned prompt"):
        exported(store, version, tmp_path / "out", "hf")
    assert exported(store, version, tmp_path / "out", "peft").passed


def test_the_command_line_exports_and_refuses(store, version, tmp_path, capsys):
    def deploy(*arguments):
        return launch.main(["deploy", *arguments, "--data", str(store.path.parent)])

    assert deploy("tuned", "--to", "peft", "--out", str(tmp_path / "out")) == 0
    assert "3 of 3 greedy answers are the same" in capsys.readouterr().out
    for refused, said in (
        (("tuned", "--to", "peft", "--out", str(tmp_path / "out")), "exists already"),
        (("other", "--to", "hf"), "Choose one of: tuned"),
        (("tuned", "--to", "hf", "--weights", "q4_1"), "float32 or bfloat16 or float16"),
    ):
        assert deploy(*refused) == 2
        assert said in capsys.readouterr().err
