"""A whole round: its files, that it resumes after any interruption with the same figures, and how it is started and stopped."""

import os
import signal
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from learning import Judged
from rounds import ended, run, steps
from safetensors import SafetensorError
from safetensors.torch import load_file
from waiting import until

from rlhf.models.backbone import Backbone
from rlhf.models.decoder import Decoder
from rlhf.ppo.trainer import PPO
from rlhf.runs import metric_table, progress
from rlhf.runs.jobs import Jobs, RoundError
from storage.content import policies
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.project import rounds, runs

STAGES = ["snapshot", "reward", "ppo", "evaluate", "register"]


class Killed(BaseException):
    """As a kill -9: nothing gets to write how it ended."""


def metrics_of(jobs, run_id):
    """Everything that a run ends with and that does not depend on when or how fast it ran."""
    done = runs.get(jobs.store, run_id)
    assert done.status == "done", done.error
    result = {k: v for k, v in done.result.items() if k not in ("minutes", "peak_memory_gib", "policy_version")}
    metrics = [m for m in runs.metrics(jobs.store, run_id) if not m.name.startswith("time/")]
    adapter = (jobs.folder.run(run_id) / "policy" / "adapter_model.safetensors").read_bytes()
    return result, metrics, runs.samples(jobs.store, run_id), done.snapshot, adapter


def promote(store, done):
    version = policies.by_name(store, done.result["policy_version"])
    rounds.decide(store, version, "promoted", decided_by="person", reason="It is better.")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, tiny_folder):
    """What a round over this world ends with when nothing happens to it."""
    folder = DataFolder(tmp_path_factory.mktemp("unbroken"))
    store = Database(folder.database)
    jobs = Jobs(store, folder)
    run_id = jobs.create(Judged(store, folder, tiny_folder).fill().config(seed=5)).id
    run(jobs, run_id)
    yield metrics_of(jobs, run_id)
    store.close()


def test_a_round_leaves_a_finished_row_a_version_figures_and_samples(judged, jobs):
    created = jobs.create(judged.config(seed=3))
    assert created.status == "queued" and created.seed == 3
    assert set(created.versions) == {"torch", "transformers", "trl", "peft", "datasets"}
    seen = []
    done = run(jobs, created.id, lambda stage, fraction, eta: seen.append((stage, fraction)))

    assert (done.status, done.progress, done.error, done.eta_s) == ("done", 1.0, None, None)
    assert done.snapshot == {"pairs": 9, "train": 6, "heldout": 3, "simulated": 9, "sha256": done.snapshot["sha256"]}
    assert list(dict.fromkeys(stage for stage, _ in seen)) == STAGES
    fractions = [f for _, f in seen]
    assert fractions == sorted(fractions) and fractions[0] == 0.0 and fractions[-1] < 1.0

    version = policies.latest_tuned(judged.store, str(judged.model))
    assert version.name == f"tiny-{created.id}" == done.result["policy_version"] and version.run_id == created.id
    backbone = Backbone.load(judged.model, "cpu", "float32")
    backbone.load_adapter("v", policies.adapter_folder(judged.store, version))
    assert any(p.abs().max() > 0 for n, p in backbone.parameters("v").items() if ".lora_B." in n), "B starts at 0 and must have moved"

    found = rounds.of_run(judged.store, created.id)
    assert (found.trigger, found.judges, found.version) == ("hand", "people", version)
    assert policies.get(judged.store, found.baseline_version_id).name == "tiny"
    names = [check["name"] for check in done.result["guards"]]
    assert names == ["win_rate", "kl", "length_ratio", "repetition", "unended", "empty", "phrase"]
    assert (found.guards == "passed") == found.is_open

    result = done.result
    assert result["rule"] == "sentiment" and result["pairs"] == {"train": 6, "heldout": 3}
    for name, cases in {"heldout_accuracy": 3, "heldout_accuracy_on_rule": 3, "win_rate": 3, "win_rate_by_reward_model": 3}.items():
        assert result[name]["cases"] == cases and 0 <= result[name]["low"] <= result[name]["value"] <= result[name]["high"] <= 1
    of_options = {"best_of_n", "best_checkpoint", "stopped_by_kl", "win_rate_by_reward_function"}
    assert not of_options & set(result), "with the options off nothing is said of them"
    assert result["minutes"] > 0 and result["peak_memory_gib"] > 0

    metrics = {(m.name, m.step) for m in runs.metrics(judged.store, created.id)}
    assert [name for name, _ in metrics if not metric_table.is_known(name)] == []
    for name in (
        "objective/scores",
        "objective/kl",
        "objective/kl_coef",
        "loss/policy_avg",
        "loss/value_avg",
        "policy/clipfrac_avg",
        "policy/entropy_avg",
        "policy/approxkl_avg",
        "val/ratio",
        "val/response_length",
        "val/explained_variance",
    ):
        assert {step for n, step in metrics if n == name} == {1, 2}, name
    assert {n for n, step in metrics if n.startswith("time/")} == {f"time/{s}" for s in STAGES}
    assert {"reward/loss", "reward/accuracy", "reward/heldout_accuracy"} <= {n for n, _ in metrics}

    samples = runs.samples(judged.store, created.id)
    assert [s.prompt for s in samples] == ["Question 6?", "Question 7?"]
    assert all(None not in (s.before, s.after, s.score_before, s.score_after) for s in samples)


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [0, 1])
def test_every_stage_fills_its_part_of_the_bar_in_small_steps(judged, jobs, monkeypatch, epochs):
    """A batch is as small beside these few rows as it is beside those of a real round."""
    monkeypatch.setattr(progress, "WRITE_EVERY_S", 0.0)
    monkeypatch.setattr("rlhf.reward.model.SCORE_BATCH_SIZE", 2)
    config = judged.config(seed=3)
    seen = []
    run(jobs, jobs.create(replace(config, reward=replace(config.reward, epochs=epochs))).id, lambda *told: seen.append(told))
    for stage, following in pairwise(STAGES[:-1]):
        fractions = [fraction for now, fraction, _ in seen if now == stage]
        fractions.append(next(fraction for now, fraction, _ in seen if now == following))
        whole = fractions[-1] - fractions[0]
        assert max(b - a for a, b in pairwise(fractions)) <= whole / 5, stage


@pytest.mark.slow
def test_the_last_stage_is_reckoned_by_what_scoring_takes_too(judged, jobs, monkeypatch):
    """Best-of-n reads n times as many answers as are kept: its bar neither stands still then nor is full long before."""
    monkeypatch.setattr(progress, "WRITE_EVERY_S", 0.0)
    monkeypatch.setattr("rlhf.reward.model.SCORE_BATCH_SIZE", 2)
    seen = []
    done = run(jobs, jobs.create(judged.config(evaluation_best_of=3, ppo_learning_rate=0.05)).id, lambda *told: seen.append(told))
    assert done.result["best_of_n"]["n"] == 3, "fewer would leave a part of the stage undone"
    fractions = [fraction for stage, fraction, _ in seen if stage in ("evaluate", "register")]
    whole = fractions[-1] - fractions[0]
    assert max(b - a for a, b in pairwise(fractions)) <= whole / 5


@pytest.mark.slow
def test_the_same_seed_gives_the_same_figures_and_another_others(judged, jobs, unbroken):
    ids = []
    for seed in (5, 6):
        ids.append(jobs.create(judged.config(seed=seed)).id)
        run(jobs, ids[-1])
    same, other = (metrics_of(jobs, i) for i in ids)
    assert same == unbroken
    assert other[4] != unbroken[4] and other[0] != unbroken[0]


@pytest.mark.slow
def test_gradient_checkpointing_reaches_the_layers_and_changes_no_figure(judged, jobs, monkeypatch, unbroken):
    again = []
    plain = Decoder._checkpointed
    monkeypatch.setattr(Decoder, "_checkpointed", lambda *args, **kwargs: again.append(1) or plain(*args, **kwargs))
    run_id = jobs.create(judged.config(seed=5, gradient_checkpointing=True)).id
    run(jobs, run_id)
    assert metrics_of(jobs, run_id) == unbroken and again


# A step has 15 ticks: 8 tokens, 1 batch of scores, 2 minibatches read by the reference, 2 epochs of 2 updates.
@pytest.mark.slow
@pytest.mark.parametrize(
    "stage, nth",
    [("snapshot", 4), ("reward", 2), ("ppo", 20), ("between figures and checkpoint", 2), ("evaluate", 9), ("register", 1)],
)
def test_a_round_that_was_killed_anywhere_ends_with_the_figures_of_an_unbroken_one(judged, jobs, monkeypatch, unbroken, stage, nth):
    broken = jobs.create(judged.config(seed=5)).id
    seen = []

    def kill(now, fraction=0.0, eta=None):
        seen.append(now)
        if seen.count(stage) == nth and now == stage:
            raise Killed

    def save(trainer, folder, real=PPO.save):
        kill("between figures and checkpoint")
        real(trainer, folder)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(progress, "WRITE_EVERY_S", 0.0)
        patch.setattr(PPO, "save", save)
        run(jobs, broken, kill)
    assert runs.get(judged.store, broken).status == "running"
    runs.finish(judged.store, broken, "lost")
    # What happens meanwhile is none of this round's business.
    judged.prompt("Another held-out question?", "heldout")
    judged.judge(judged.prompt("Another question?", "train"), "good", "bad")
    judged.judge(judged.prompt("One more?", "train"), "yes", "no", rule="lexical", name="somebody else")
    jobs.requeue(broken)
    run(jobs, broken)
    assert metrics_of(jobs, broken) == unbroken
    folder = {f.name for f in judged.folder.run(broken).iterdir()}
    assert not {n for n in folder if n.endswith((".part", ".old"))}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ppo", "dpo", "grpo"])
def test_the_next_round_begins_at_the_promoted_version_and_is_held_to_it(judged, jobs, method):
    """Without a step size nothing moves from where the round began."""
    first = run(jobs, jobs.create(judged.config(seed=3, ppo_learning_rate=0.05)).id)
    promote(judged.store, first)
    still = {f"{name}_learning_rate": 0.0 for name in ("ppo", "dpo", "group")}
    second = run(jobs, jobs.create(judged.config(seed=4, method=method, policy_start="current", **still)).id)
    weights = [load_file(judged.folder.run(one.id) / "policy" / "adapter_model.safetensors") for one in (first, second)]
    assert weights[0].keys() == weights[1].keys() and all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert second.result["started_from"] == first.result["policy_version"]
    assert second.result["kl_to_start"] == pytest.approx(0, abs=1e-4) and second.result["kl"] > 0.01
    assert "started_from" not in first.result and "kl_to_start" not in first.result
    card = (judged.folder.run(second.id) / "policy" / "README.md").read_text()
    assert f"began at: `{first.result['policy_version']}`" in card


@pytest.mark.slow
def test_a_round_that_began_at_a_version_resumes_there_to_the_same_bits(judged, jobs, monkeypatch):
    promote(judged.store, run(jobs, jobs.create(judged.config(seed=3, ppo_learning_rate=0.05)).id))
    options = {"seed": 4, "policy_start": "current", "ppo_learning_rate": 0.05}
    whole = run(jobs, jobs.create(judged.config(**options)).id)
    broken = jobs.create(judged.config(**options)).id
    saves = []

    def save(trainer, folder, real=PPO.save):
        real(trainer, folder)
        saves.append(folder)
        if len(saves) == 1:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(PPO, "save", save)
        run(jobs, broken)
    runs.finish(judged.store, broken, "lost")
    # What is promoted meanwhile is where the next round begins, and not this one.
    promote(judged.store, whole)
    jobs.requeue(broken)
    run(jobs, broken)
    assert metrics_of(jobs, broken) == metrics_of(jobs, whole.id)


@pytest.mark.slow
def test_figures_of_a_step_that_will_be_taken_again_are_not_shown_meanwhile(judged, jobs, monkeypatch):
    run_id = jobs.create(judged.config()).id
    saves = []

    def save(trainer, folder, real=PPO.save):
        saves.append(folder)
        if len(saves) == 2:
            raise Killed
        real(trainer, folder)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(PPO, "save", save)
        run(jobs, run_id)
    assert steps(judged.store, run_id) == 2
    runs.finish(judged.store, run_id, "lost")
    jobs.requeue(run_id)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PPO, "step", interrupt)
        run(jobs, run_id)
    assert steps(judged.store, run_id) == 1
    assert any(m.name.startswith("reward/") for m in runs.metrics(judged.store, run_id)), "those of other stages stay"


@pytest.mark.slow
def test_a_finished_stage_is_not_done_again(judged, jobs, monkeypatch):
    run_id = jobs.create(judged.config()).id

    def stop(stage, fraction, eta):
        if stage == "evaluate":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(jobs, run_id, stop)
    cancelled = runs.get(judged.store, run_id)
    assert (cancelled.status, cancelled.error) == ("cancelled", None)
    for name in ("rlhf.reward.model.fit", "rlhf.reward.model.RewardModel.normalise", "rlhf.ppo.trainer.PPO.step"):
        monkeypatch.setattr(name, None)
    jobs.requeue(run_id)
    assert run(jobs, run_id).status == "done"


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_read_fails_the_stage_that_reads_it(judged, jobs):
    run_id = jobs.create(judged.config()).id

    def stop(stage, fraction, eta):
        if stage == "evaluate":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(jobs, run_id, stop)
    (values,) = (judged.folder.run(run_id) / "checkpoint").rglob("value_head.safetensors")
    values.write_bytes(b"no tensors")
    jobs.requeue(run_id)
    with pytest.raises(SafetensorError):
        run(jobs, run_id)
    failed = runs.get(judged.store, run_id)
    assert (failed.status, failed.stage) == ("failed", "ppo")


@pytest.mark.slow
def test_what_fails_before_the_first_stage_failed_in_none(judged, jobs, monkeypatch):
    run_id = jobs.create(judged.config()).id

    def stop(stage, fraction, eta):
        if stage == "reward":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(jobs, run_id, stop)
    assert runs.get(judged.store, run_id).stage == "reward"
    jobs.requeue(run_id)
    monkeypatch.setattr(Backbone, "load", None)
    with pytest.raises(TypeError):
        run(jobs, run_id)
    failed = runs.get(judged.store, run_id)
    assert (failed.status, failed.stage) == ("failed", None)


@pytest.mark.slow
def test_a_store_without_held_out_prompts_gives_what_can_be_known(empty_world):
    jobs = Jobs(empty_world.store, empty_world.folder)
    empty_world.fill(train=6, heldout=0)
    done = run(jobs, jobs.create(empty_world.config()).id)
    assert done.status == "done" and done.result["pairs"] == {"train": 6, "heldout": 0}
    assert not {"kl", "win_rate", "heldout_accuracy"} & set(done.result), "nothing was measured, and nothing is said"


@pytest.mark.slow
def test_one_training_prompt_is_enough_to_take_a_scale_from(empty_world):
    jobs = Jobs(empty_world.store, empty_world.folder)
    prompt = empty_world.prompt("The only one?", "train")
    for i in range(4):
        empty_world.judge(prompt, f"good {i}", f"bad {i}")
    run_id = jobs.create(empty_world.config()).id
    run(jobs, run_id)
    scores = [m.value for m in runs.metrics(empty_world.store, run_id) if m.name == "objective/scores"]
    assert all(abs(s) < 50 for s in scores), "scores are of unit scale, not divided by nothing"


# Real processes.


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_of_ppo_is_lost_and_resumes_to_the_same_bits(judged, jobs, long_config):
    store = judged.store
    unbroken = jobs.start(long_config).id
    assert ended(store, unbroken).status == "done", jobs.log_tail(unbroken)

    broken = jobs.start(long_config).id
    until(lambda: steps(store, broken) >= 3, 300)
    with pytest.raises(RoundError, match="is running"):
        jobs.create(long_config)
    pid = runs.get(store, broken).pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: jobs.reap() == [broken])
    lost = runs.get(store, broken)
    assert lost.status == "lost" and 3 <= steps(store, broken) < 14
    assert runs.active(store) is None

    jobs.resume(broken)
    assert ended(store, broken).status == "done", jobs.log_tail(broken)
    assert metrics_of(jobs, broken) == metrics_of(jobs, unbroken)
