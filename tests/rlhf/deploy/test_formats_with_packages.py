"""The formats whose packages rankloop does not bring: `make test-exports` installs them, 2.3 GB in all, and runs these tests alone."""

import json
import subprocess
import sys

import pytest
from learning import scramble, user

from rlhf.config import AdapterConfig
from rlhf.deploy import export as exports
from rlhf.deploy import packages
from rlhf.deploy.export import CLIENTS
from rlhf.deploy.formats import FORMATS, XLLAMACPP
from rlhf.models.backbone import Backbone
from storage.content import policies, prompts
from storage.project import runs

pytestmark = [pytest.mark.slow, pytest.mark.packages]


CHECKED = {name: form.packages for name, form in FORMATS.items() if form.packages} | {"gguf": (XLLAMACPP,)}
"""By format: what it needs, or what its best check needs."""


@pytest.mark.parametrize("name", CHECKED)
def test_an_export_answers_as_the_policy_and_its_client_runs(store, tiny_folder, tmp_path, monkeypatch, name):
    installed = packages.install(CHECKED[name], print)
    if name == "gguf":
        # As where a user has installed it.
        monkeypatch.syspath_prepend(installed)
        monkeypatch.setenv("PYTHONPATH", str(installed))
    prompts.add(store, [prompts.NewPrompt(user(f"Question {i}?"), split="heldout") for i in range(3)], source="test")
    runs.create(store, "run", config={}, seed=7, versions={"torch": "2.13.0"})
    maker = Backbone.load(tiny_folder, "cpu", "float32")
    maker.add_adapter("policy", AdapterConfig(rank=4), seed=1)
    scramble(maker, "policy", seed=1, scale=0.5)
    maker.save_adapter("policy", folder := store.path.parent / "runs" / "run" / "policy")
    version = policies.register_tuned(store, name="tuned", base_model=str(tiny_folder), adapter_path=folder, run_id="run")
    form, out = FORMATS[name], tmp_path / "out"
    check = exports.export(store, version, form, out, weights=form.weights[0], say=lambda what, done: None)
    assert check.passed and check.same == len(check.prompts) == 3
    assert check.max_difference < (0.1 if name == "gguf" else 1e-4), "weights, keys and values of 16 bits, and of 32"
    assert check.runtime == {"gguf": "llama.cpp"}.get(name, form.runtime)

    # The tiny model's own generation config names no end token, and the clients need one.
    (out / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 1]}))
    environment = packages.environment_with(installed)
    done = subprocess.run([sys.executable, str(CLIENTS / f"{name}_client.py")], cwd=out, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
