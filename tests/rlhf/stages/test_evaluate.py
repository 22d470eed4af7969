"""The metrics of the evaluate stage."""

import pytest
from huggingface_hub import ModelCard
from rounds import done

from rlhf.ppo.checkpoint_selection import best_of_n_kl
from rlhf.runs import token_changes
from rlhf.stages.evaluate import declared_rule
from rlhf.stages.snapshot import take_snapshot
from storage.project import runs


def test_the_declared_rule_is_that_of_the_judgments_behind_the_snapshot(judged, jobs):
    run_id = jobs.create(judged.config()).id
    snapshot = take_snapshot(judged.store, run_id, judged.config(), judged.folder.run(run_id))
    assert declared_rule(judged.store, snapshot).name == "sentiment"
    judged.judge(judged.prompt("Later?", "train"), "yes", "no", rule="lexical", name="later")
    assert declared_rule(judged.store, snapshot).name == "sentiment"
    both = take_snapshot(judged.store, run_id, judged.config(), judged.folder.run("another"))
    assert declared_rule(judged.store, both) is None, "two rules are no one rule"
    assert declared_rule(judged.store, []) is None


@pytest.mark.slow
def test_best_of_n_is_compared_with_the_policy(judged, jobs):
    run = done(jobs, judged.config(evaluation_best_of=3, ppo_learning_rate=0.05))
    beside = run.result["best_of_n"]
    assert beside["policy_kl"] == run.result["kl"]
    assert beside["kl"] == pytest.approx(best_of_n_kl(beside["n"])) and beside["n"] <= beside["max_n"] == 3
    assert beside["beyond_max_n"] == (run.result["kl"] > best_of_n_kl(3))
    for name in ("win_rate", "win_rate_by_reward_model"):
        assert beside[name]["cases"] == 3 and 0 <= beside[name]["low"] <= beside[name]["high"] <= 1


@pytest.mark.slow
def test_a_round_leaves_what_tuning_changed_and_a_model_card(judged, jobs):
    run = done(jobs, judged.config(ppo_learning_rate=0.05))
    folder = judged.folder.run(run.id)
    changes = token_changes.read(folder)
    texts = [(change.before.text, change.after.text) for change in changes.samples]
    assert texts == [(sample.before, sample.after) for sample in runs.samples(judged.store, run.id)] and len(texts) == 2
    assert any(change.after.per_token > 0 for change in changes.samples)
    card = ModelCard.load(folder / "policy" / "README.md")
    assert card.data.library_name == "peft" and card.data.tags == ["rankloop", "rlhf", "ppo", "lora"]
    assert f"# {run.result['policy_version']}".replace("_", r"\_") in card.text and "KL to the base" in card.text
