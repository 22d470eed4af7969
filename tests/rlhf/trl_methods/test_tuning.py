"""A whole round by each method of TRL."""

import pytest
from safetensors.torch import load_file

from feedback_ui.training.charts import POLICY_CHARTS
from rlhf.config import ConfigError, RoundConfig, with_options
from rlhf.data.demonstrations import NoDemonstrations
from rlhf.runs import progress
from rlhf.runs.jobs import Jobs
from rlhf.runs.progress import Cancelled
from rlhf.worker import work
from storage.content import comparisons, policies
from storage.core.records import Details, IdealAnswer
from storage.judging import judgments, presentations
from storage.people import annotators
from storage.project import runs

METHODS = ["dpo", "rloo", "grpo", "sft"]


def write_ideal_answers(judged, n=4):
    person = annotators.ensure(judged.store, "Ann")
    for i in range(n):
        comparison, (first, second) = judged.comparison(judged.prompt(f"Question {i}?", "train"), f"good {i}", f"bad {i}")
        shown = presentations.record(judged.store, comparisons.get(judged.store, comparison), person.id)
        said = Details(ideal=IdealAnswer(f"best of all {i}"))
        judgments.save(judged.store, shown.id, person.id, verdict="rank", tiers=((first,), (second,)), details=said)


def tiny_round(judged, method, **options):
    values = {
        "method": method,
        "dpo_batch_size": 4,
        "dpo_epochs": 1,
        "group_steps": 2,
        "group_batch_size": 8,
        "group_minibatch_size": 4,
        "group_num_generations": 2,
        "sft_min_answers": 2,
        "sft_batch_size": 2,
        "sft_epochs": 1,
        "reward_epochs": 0,
    } | options
    return judged.config(**values)


KEPT = {
    "dpo": {"dpo/loss", "dpo/rewards/margins", "dpo/rewards/accuracies"},
    "rloo": {"objective/scores", "objective/kl", "policy/entropy_avg", "val/response_length", "val/finished", "loss/policy_avg"},
    "grpo": {"objective/scores", "objective/kl", "policy/entropy_avg", "val/response_length", "val/finished", "loss/policy_avg"},
    "sft": {"sft/loss", "sft/mean_token_accuracy"},
}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_round_by_each_method(judged, method):
    if method == "sft":
        write_ideal_answers(judged)
    jobs = Jobs(judged.store, judged.folder)
    run_id = jobs.create(tiny_round(judged, method)).id
    stages = []
    work(judged.store, judged.folder, run_id, lambda stage, *_: stages.append(stage))
    run = runs.get(judged.store, run_id)
    assert run.status == "done", run.error
    assert {"win_rate", "win_rate_by_reward_model", "heldout_accuracy", "kl", "minutes"} <= set(run.result)
    assert list(dict.fromkeys(stages)) == ["snapshot", "reward", method, "evaluate", "register"]
    assert KEPT[method] | {chart.metric.name for chart in POLICY_CHARTS[method]} <= {m.name for m in runs.metrics(judged.store, run_id)}
    version = policies.by_name(judged.store, run.result["policy_version"])
    assert version.run_id == run_id
    tuned = load_file(judged.folder.run(run_id) / "policy" / "adapter_model.safetensors")
    assert all(w.abs().max() > 0 for name, w in tuned.items() if ".lora_B." in name), "B starts at 0 and must have moved"


@pytest.mark.slow
def test_a_round_that_was_cut_short_ends_as_an_unbroken_one(judged, monkeypatch):
    """The method's stage is repeated whole; once it has ended it is not repeated."""
    jobs = Jobs(judged.store, judged.folder)
    unbroken = jobs.create(tiny_round(judged, "grpo")).id
    work(judged.store, judged.folder, unbroken)

    # Otherwise a cancel is looked for once a second.
    monkeypatch.setattr(progress, "WRITE_EVERY_S", 0.0)
    broken = jobs.create(tiny_round(judged, "grpo")).id
    for where, updates in (("grpo", 12), ("evaluate", 1)):
        seen = []

        def cancel_there(stage, *_, where=where, updates=updates, seen=seen):
            seen.append(stage)
            if seen.count(where) == updates:
                runs.request_cancel(judged.store, broken)

        with pytest.raises(Cancelled):
            work(judged.store, judged.folder, broken, cancel_there)
        assert runs.get(judged.store, broken).status == "cancelled"
        jobs.requeue(broken)
    seen = []
    work(judged.store, judged.folder, broken, lambda stage, *_: seen.append(stage))
    assert seen.count("grpo") == 1, "it was passed over"
    kept = [[m for m in runs.metrics(judged.store, r) if not m.name.startswith(("time/", "grpo/step_time"))] for r in (unbroken, broken)]
    assert [(m.name, m.step, m.value) for m in kept[0]] == [(m.name, m.step, m.value) for m in kept[1]]
    adapters = [judged.folder.run(r) / "policy" / "adapter_model.safetensors" for r in (unbroken, broken)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "sft"])
def test_a_cancel_is_noticed_between_updates(judged, monkeypatch, method):
    write_ideal_answers(judged)
    monkeypatch.setattr(progress, "WRITE_EVERY_S", 0.0)
    jobs = Jobs(judged.store, judged.folder)
    run_id = jobs.create(tiny_round(judged, method)).id

    def cancel(stage, *_):
        if stage == method:
            runs.request_cancel(judged.store, run_id)

    with pytest.raises(Cancelled):
        work(judged.store, judged.folder, run_id, cancel)
    assert runs.get(judged.store, run_id).stage == method
    assert not (judged.folder.run(run_id) / "tuned").exists()


def test_sft_without_ideal_answers_is_refused_with_what_to_do(judged):
    jobs = Jobs(judged.store, judged.folder)
    with pytest.raises(NoDemonstrations, match=r"^0 ideal answers on training prompts, need 20: .* choose another --method$"):
        jobs.create(tiny_round(judged, "sft", sft_min_answers=20))
    write_ideal_answers(judged, 2)
    with pytest.raises(NoDemonstrations, match=r"^2 ideal answers on training prompts, need 20: .* or pass --sft-min-answers 2$"):
        jobs.create(tiny_round(judged, "sft", sft_min_answers=20))
    jobs.create(tiny_round(judged, "sft", sft_min_answers=2))


@pytest.mark.parametrize(
    "values, said",
    [
        ({"method": "reinforce"}, "--method reinforce: choose one of ppo, rloo, grpo, dpo, sft"),
        ({"group-num-generations": 1}, "--group-num-generations 1: must be at least 2"),
        ({"group-batch-size": 30}, "--group-batch-size 30 is no multiple of --group-minibatch-size 16"),
        ({"group-batch-size": 48, "group-num-generations": 5}, "--group-batch-size 48 is no multiple of --group-num-generations 5"),
        ({"dpo-batch-size": 0}, "--dpo-batch-size 0: must be greater than 0"),
        ({"group-minibatch-size": 0}, "--group-minibatch-size 0: must be greater than 0"),
        ({"group-batch-size": 0}, "--group-batch-size 0"),
    ],
)
def test_options_that_contradict_each_other_are_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        with_options(RoundConfig(), values)
