"""The model card, read as the hub's own library reads it."""

import shutil
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from rlhf.analysis import model_card, version_card
from rlhf.config import RoundConfig, with_options
from rlhf.runs.results import Estimate, RoundResult
from storage.content import policies
from storage.core.data_folder import DataFolder
from storage.project import rounds, runs

RESULT = RoundResult(heldout_accuracy=Estimate(0.712, 0.6, 0.8, 73), win_rate=Estimate(0.8, 0.7, 0.9, 20), kl=2.5, rule="senti`ment|x")


def tuned(store, base_model, name="Small-r1", run="r1"):
    config = with_options(RoundConfig(), {"ppo-kl-coef": 0.2, "demo-votes": True, "model": base_model})
    policies.ensure_base(store, base_model)
    runs.create(store, run, config=config.to_dict(), seed=7, versions={"torch": "2.13.0"})
    runs.set_snapshot(store, run, {"pairs": 40, "train": 32, "heldout": 8, "sha256": "ab" * 32, "demo_votes": 3})
    folder = DataFolder(store.path.parent).run(run) / "policy"
    folder.mkdir(parents=True)
    (folder / model_card.NAME).write_text("PEFT's own")
    return policies.register_tuned(store, name=name, base_model=base_model, adapter_path=f"runs/{run}/policy", run_id=run)


def test_the_hub_reads_the_front_matter(store):
    path = model_card.write(store, tuned(store, "default"), RESULT)
    assert path == store.path.parent / "runs" / "r1" / "policy" / "README.md"
    card = ModelCard.load(path)
    assert card.data.to_dict() == {
        "library_name": "peft",
        "license": "apache-2.0",
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "pipeline_tag": "text-generation",
        "tags": ["rankloop", "rlhf", "ppo", "lora"],
    }
    assert [file.name for file in path.parent.iterdir()] == ["README.md"]


def test_the_text_has_data_figures_lineage_and_limits(store):
    text = model_card.write(store, tuned(store, "default"), RESULT).read_text(encoding="utf-8")
    for line in (
        "# Small-r1",
        "- 32 preference pairs for training, 8 held out",
        "- all of them from people",
        "- 3 votes of the Demo page left out",
        f"- SHA-256 of the pairs: `{'ab' * 32}`",
        "| Reward model: held-out accuracy against the votes | 71.2% (60.0% to 80.0%; 73 cases) |",
        "| Win rate over the base under the rule | 80.0% (70.0% to 90.0%; 20 cases) |",
        "| KL to the base, per held-out answer | 2.50 nats |",
        "The rule is `senti'ment|x`.",
        '- packages: `{"torch": "2.13.0"}`',
        '- options that differ from the defaults: `{"demo_votes": true, "ppo.kl_coef": 0.2}`',
        "- It learned from 32 preference pairs, which is little.",
    ):
        assert line in text.splitlines(), line


def test_a_folder_of_this_machine_is_not_named(store, tmp_path):
    base = tmp_path / "secret" / "My *Model*"
    text = model_card.write(store, tuned(store, str(base)), RESULT).read_text(encoding="utf-8")
    assert "secret" not in text and str(tmp_path) not in text
    assert "base_model" not in text and "license: unknown" in text
    assert r"An adapter for My \*Model\*" in text and "do not name its licence" in text


def test_the_licence_in_the_folder_of_the_base_is_taken(store, tmp_path, monkeypatch):
    monkeypatch.setattr(version_card.model_files, "licence", lambda model: "llama3.2")
    card = version_card.of_version(store, tuned(store, "org/name"), result=RESULT)
    assert "license: llama3.2\nbase_model: org/name\n" in model_card.text(card)


def test_a_version_without_a_folder_has_no_card(store):
    with pytest.raises(ValueError, match="only tuned versions"):
        model_card.write(store, policies.ensure_base(store, "default"), RESULT)


def test_a_decision_writes_the_cards_of_its_versions_again(store, caplog):
    first, second = (tuned(store, "default", name, run) for name, run in (("Small-r1", "r1"), ("Small-r2", "r2")))
    card = policies.adapter_folder(store, first) / model_card.NAME
    runs.finish(store, "r1", "done", result=RESULT.to_json())
    model_card.write(store, first)
    assert "It is neither promoted nor rejected yet." in card.read_text() and "80.0% (70.0% to 90.0%" in card.read_text()
    promoted = rounds.decide(store, first, "promoted", decided_by="person", reason="It *is*\nbetter.")
    model_card.write_decided(store, promoted)
    line = f"It was promoted by a person, `{promoted.created_at[:16]}`: It \\*is\\* better."
    assert f"## Decision\n\n{line}\n" in card.read_text()
    rounds.decide(store, second, "promoted", decided_by="person", reason="Better.")
    model_card.write_decided(store, rounds.roll_back(store, "default", reason="It is worse."))
    assert "It was made current again by a person" in card.read_text()
    assert "It was promoted, and taken back by a person" in (policies.adapter_folder(store, second) / model_card.NAME).read_text()
    # A folder that somebody took away is no reason against a decision.
    shutil.rmtree(card.parent)
    model_card.write_decided(store, promoted)
    assert not card.parent.exists() and not caplog.records


def test_where_training_began_is_part_of_the_lineage(store):
    text = model_card.write(store, tuned(store, "default"), replace(RESULT, started_from="Small-r0")).read_text(encoding="utf-8")
    assert "- training began at: `Small-r0`" in text.splitlines()
