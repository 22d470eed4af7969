"""The validation of the reward model is stored once, before the policy stage."""

from dataclasses import replace

import pytest
import tiny_reward
import torch
from rounds import done, metric, run

from rlhf.analysis import validation
from rlhf.analysis.intervals import wilson
from rlhf.cli import report
from rlhf.reward.outside import Answered, OutsideRewardModel
from rlhf.runs.progress import Cancelled
from rlhf.runs.results import RoundResult
from rlhf.worker import work
from storage.judging import judgments
from storage.people import annotators
from storage.project import runs


def until(stage):
    def stop(now, fraction=0.0, eta=None):
        if now == stage:
            raise KeyboardInterrupt

    return stop


def test_the_validation_is_stored_before_the_policy_is_trained_and_not_computed_again(judged, jobs, monkeypatch):
    run_id = jobs.create(judged.config()).id
    with pytest.raises(KeyboardInterrupt):
        work(jobs.store, jobs.folder, run_id, until("ppo"))
    saved = runs.get(judged.store, run_id).validation
    assert (saved["pairs"], saved["judgments"], saved["prompts"]) == (6, 6, 6), "the pairs on training prompts, none that is held out"
    assert 0 <= saved["accuracy"]["value"] <= 1 and saved["accuracy"]["low"] is None
    simulated = annotators.ensure(judged.store, "sim", kind="simulated", rule=annotators.all_annotators(judged.store)[0].rule)
    assert [(a["annotator_id"], a["pairs"]) for a in saved["by_annotator"]] == [(simulated.id, 6)]
    assert [(k["kind"], k["pairs"]) for k in saved["by_kind"]] == [("test", 6)]

    # The reward model was not kept: it is fitted again, and what was said of it stands.
    (judged.folder.run(run_id) / "reward" / "scale.json").unlink()
    monkeypatch.setattr(validation, "validate", None)
    jobs.requeue(run_id)
    with pytest.raises(KeyboardInterrupt):
        work(jobs.store, jobs.folder, run_id, until("ppo"))
    assert runs.get(judged.store, run_id).validation == saved


def heldout_rows(judged):
    found = [v for v in judgments.active(judged.store, kinds=("simulated",)) if v.prompt.split == "heldout"]
    return [Answered(v.prompt.messages, v.completions[tier[0]].text) for v in found for tier in v.judgment.tiers]


def test_a_reward_model_from_elsewhere_is_compared_with_the_votes_before_it_pays(judged, jobs, tmp_path):
    folder = tiny_reward.decoder(tmp_path / "from elsewhere")
    run_id = jobs.create(judged.config(reward_model_path=str(folder), reward_model_weight=0.25)).id
    with pytest.raises(KeyboardInterrupt):
        work(jobs.store, jobs.folder, run_id, until("ppo"))
    logits = OutsideRewardModel.load(folder, torch.device("cpu"), torch.float32).logits(heldout_rows(judged))
    right = int((logits[0::2] > logits[1::2]).sum())
    saved = runs.get(judged.store, run_id)
    low, high = wilson(right, 3)
    assert saved.validation["outside"] == {
        "name": "from elsewhere",
        "weight": 0.25,
        "agreement": {"value": right / 3, "low": low, "high": high, "cases": 3},
    }
    assert f"from elsewhere, weight 0.25: {100 * right / 3:.1f}% (" in report.table(replace(saved, result=RoundResult().to_json()), [])


@pytest.mark.slow
def test_a_round_that_another_model_scores_resumes_to_the_same_figures(judged, jobs, tmp_path):
    path = str(tiny_reward.decoder(tmp_path / "reward"))
    options = {"seed": 4, "reward_model_path": path, "reward_model_weight": 0.5, "ppo_learning_rate": 0.05, "evaluation_best_of": 2}
    whole = done(jobs, judged.config(**options))
    run_id = jobs.create(judged.config(**options)).id
    with pytest.raises(KeyboardInterrupt):
        work(jobs.store, jobs.folder, run_id, until("evaluate"))
    jobs.requeue(run_id)
    resumed = run(jobs, run_id)
    assert metric(jobs, resumed, "objective/scores") == metric(jobs, whole, "objective/scores")
    same = ("win_rate_by_reward_model", "heldout_accuracy", "kl", "best_of_n")
    assert {name: resumed.result[name] for name in same} == {name: whole.result[name] for name in same}
    learned = done(jobs, judged.config(**options | {"reward_model_path": None}))
    assert metric(jobs, learned, "objective/scores") != metric(jobs, whole, "objective/scores")
    assert learned.result["heldout_accuracy"] == whole.result["heldout_accuracy"], "that of the learned model"
    card = (judged.folder.run(whole.id) / "policy" / "README.md").read_text()
    assert "- scored by: `reward`, a reward model from elsewhere, with a weight of 0.5" in card and str(tmp_path) not in card


def test_a_cancel_is_noticed_between_two_fits(judged, jobs, monkeypatch):
    run_id = jobs.create(judged.config()).id
    fits, real = [], validation.out_of_fold

    def out_of_fold(difference, prompt, judgment, fit, *, seed, on_progress):
        def watched(rows):
            fits.append(len(fits))
            if len(fits) == 3:
                runs.request_cancel(judged.store, run_id)
            return fit(rows)

        return real(difference, prompt, judgment, watched, seed=seed, on_progress=on_progress)

    monkeypatch.setattr(validation, "out_of_fold", out_of_fold)
    monkeypatch.setattr("rlhf.runs.progress.WRITE_EVERY_S", 0.0)
    with pytest.raises(Cancelled):
        work(jobs.store, jobs.folder, run_id)
    assert runs.get(judged.store, run_id).status == "cancelled" and len(fits) == 3
    assert runs.get(judged.store, run_id).validation is None


@pytest.mark.slow
def test_ties_that_are_trained_on_are_not_measured(judged, jobs):
    prompt = judged.prompt("A tie?", "train")
    comparison, ids = judged.comparison(prompt, "one", "other")
    judge = annotators.all_annotators(judged.store)[0]
    judgments.add_simulated(judged.store, comparison, judge.id, tiers=(tuple(ids),))
    run_id = jobs.create(judged.config(reward_ties="davidson")).id
    with pytest.raises(KeyboardInterrupt):
        work(jobs.store, jobs.folder, run_id, until("ppo"))
    saved = runs.get(judged.store, run_id)
    assert saved.snapshot["ties"] == 1 and (saved.validation["pairs"], saved.validation["prompts"]) == (6, 6)


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        ({"value": 0.684, "low": 0.631, "high": 0.739, "pairs": 412, "prompts": 96}, "68.4% (63.1 to 73.9; 412 pairs)"),
        ({"value": 0.6, "low": None, "high": None, "pairs": 40, "prompts": 7}, "60.0% (40 pairs of 7 prompts: too few for an interval)"),
        (None, None),
    ],
)
def test_the_terminals_table_has_the_cross_validated_accuracy(store, accuracy, expected):
    runs.create(store, "r", config={}, seed=0, versions={})
    runs.set_validation(store, "r", {"pairs": 412, "judgments": 400, "prompts": 96, "accuracy": accuracy})
    runs.finish(store, "r", "done", result={})
    lines = [line for line in report.table(runs.get(store, "r"), []).splitlines() if "cross-validated" in line]
    assert [line.split("probe")[1].strip() for line in lines] == ([expected] if expected else [])
