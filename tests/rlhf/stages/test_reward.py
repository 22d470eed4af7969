"""The validation of the reward model is stored once, before the policy stage."""

import pytest

from rlhf.analysis import validation
from rlhf.cli import report
from rlhf.runs.progress import Cancelled
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
