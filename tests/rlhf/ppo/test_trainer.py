"""A step of PPO, and its checkpoints."""

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learning import user, watch_logprobs
from safetensors.torch import load_file, save_file
from small_ppo import ADAPTER_CONFIG, CONFIG, PROMPTS, SAMPLING, ByteReward, everything, read_alone, scrambled, taken, trainer
from torch import nn
from torch.testing import assert_close

import rlhf.ppo.trainer as ppo_module
from rlhf.config import PPOConfig, RewardConfig, SamplingConfig, ScoringConfig
from rlhf.data.pairs import PreferencePair
from rlhf.generation.sampling import GeneratedSequence
from rlhf.model_files import ModelError
from rlhf.models.backbone import Backbone
from rlhf.ppo.rollout import Rollout, collect
from rlhf.ppo.trainer import PPO
from rlhf.reward import model as reward_model
from rlhf.reward.model import ADAPTER
from rlhf.reward.scoring import RewardShaper
from rlhf.runs.work import Work
from storage.core.records import Sampling


@pytest.mark.parametrize("minibatch_size", [8, 2])
def test_the_ratio_is_1_before_the_first_update(tiny_folder, monkeypatch, minibatch_size):
    ppo = scrambled(trainer(tiny_folder, replace(CONFIG, minibatch_size=minibatch_size)))
    seen = watch_logprobs(monkeypatch)
    ppo.step()
    assert len(seen) == 2 * 8 // minibatch_size
    assert_close(seen[0][0].exp() / seen[0][1].exp(), torch.ones_like(seen[0][0]), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(seen[-1][0], seen[-1][1], atol=1e-3), "later ones have moved"


def test_advantages_are_whitened_over_the_batch_and_rewards_end_in_the_score(tiny_folder, monkeypatch):
    ppo = trainer(tiny_folder)
    seen = {}

    def spy(rollout, advantages, returns, on_progress=None):
        seen.update(rollout=rollout, advantages=advantages, returns=returns)
        return {}

    monkeypatch.setattr(ppo, "update", spy)
    metrics = ppo.step()
    rollout, advantages = seen["rollout"], seen["advantages"][seen["rollout"].mask]
    assert_close(advantages.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    assert_close(advantages.std(unbiased=False), torch.tensor(1.0), atol=1e-3, rtol=0)
    # The policy is the reference and values are 0: each return is the score, decayed by lambda once a token.
    for i, n in enumerate(rollout.mask.sum(-1).tolist()):
        expected = rollout.scores[i] * 0.95 ** torch.arange(n - 1, -1, -1)
        assert_close(seen["returns"][i, :n], expected, atol=1e-5, rtol=0)
    assert metrics["objective/scores"] == pytest.approx(float(rollout.scores.mean()))
    assert metrics["objective/kl"] == pytest.approx(0, abs=1e-5)
    assert metrics["val/response_length"] == pytest.approx(float(rollout.mask.sum(-1).float().mean()))
    # KL 0 is below the target: the error is clipped to -.2, over 8 completions of a horizon of 2000.
    assert ppo.kl_coef == pytest.approx(0.05 * (1 - 0.2 * 8 / 2000))
    assert metrics["objective/kl_coef"] == 0.05


def test_gradient_clipping_changes_the_step(tiny_folder):
    def moved(max_grad_norm):
        ppo = trainer(tiny_folder, replace(CONFIG, epochs=1, minibatch_size=8, max_grad_norm=max_grad_norm))
        before = {n: p.detach().clone() for n, p in ppo.policy.items()}
        norm = ppo.step()["policy/grad_norm"]
        return max(float((p.detach() - before[n]).abs().max()) for n, p in ppo.policy.items()), norm

    free, norm = moved(1e9)
    # Adam forgets the scale of a gradient down to its eps of 1e-5: far below it, the step shrinks with the gradient.
    held, same_norm = moved(1e-9)
    assert norm == same_norm > 1e-3, "the norm is told as it was before clipping"
    assert free == pytest.approx(CONFIG.learning_rate, rel=0.05)
    assert held < 1e-3 * free


@pytest.mark.slow
def test_ppo_learns_what_the_reward_asks_for_and_leaves_the_reference_alone(tiny_folder):
    config = replace(
        CONFIG,
        batch_size=64,
        minibatch_size=16,
        learning_rate=2e-2,
        value_learning_rate=1e-2,
        kl_coef=0.01,
        kl_target=0.0,
    )
    ppo = trainer(tiny_folder, config, sampling=SamplingConfig(max_new_tokens=4, temperature=1.0))
    base = {n: p.clone() for n, p in ppo.backbone.base.state_dict().items() if ".lora_" not in n}
    metrics = [ppo.step() for _ in range(16)]
    scores = [f["objective/scores"] for f in metrics]
    assert sum(scores[:2]) / 2 < 0.3 and sum(scores[-2:]) / 2 > 0.5, scores
    assert metrics[0]["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert metrics[-1]["objective/kl"] > 1
    assert metrics[-1]["policy/entropy_avg"] < metrics[0]["policy/entropy_avg"]
    for name, value in ppo.backbone.base.state_dict().items():
        if ".lora_" not in name:
            assert torch.equal(value, base[name]), name
    rollout = taken(ppo)
    reference = Backbone.load(tiny_folder, "cpu", "float32")
    n = int(rollout.mask[0].sum())
    assert_close(rollout.ref_logprobs[0, :n], read_alone(reference, PROMPTS[0], rollout.responses[0, :n].tolist(), 0.7), atol=1e-5, rtol=0)


def test_a_kl_penalty_holds_the_policy_back(tiny_folder):
    def final_kl(kl_coef):
        ppo = trainer(tiny_folder, replace(CONFIG, batch_size=32, minibatch_size=16, learning_rate=1e-2, kl_coef=kl_coef, kl_target=0.0))
        return [ppo.step() for _ in range(6)][-1]["objective/kl"]

    assert final_kl(2.0) < 0.5 * final_kl(0.0)


def test_only_the_policy_learns_beside_a_learned_reward(tiny_folder):
    ppo = trainer(tiny_folder, learned_reward=True)
    reward = {n: p.clone() for n, p in ppo.backbone.parameters(ADAPTER).items()}
    head = ppo.reward_model.head.weight.clone()
    policy = {n: p.clone() for n, p in ppo.policy.items()}
    ppo.step()
    assert all(torch.equal(p, reward[n]) for n, p in ppo.backbone.parameters(ADAPTER).items())
    assert torch.equal(ppo.reward_model.head.weight, head)
    assert all(not torch.equal(p, policy[n]) for n, p in ppo.policy.items() if ".lora_B." in n)
    assert ppo.value_head.weight.abs().max() > 0


# Checkpoints.


@pytest.mark.parametrize("learned_reward", [False, True])
def test_a_resumed_step_is_the_unbroken_one_bit_for_bit(tiny_folder, tmp_path, learned_reward):
    unbroken = trainer(tiny_folder, learned_reward=learned_reward)
    unbroken.step()
    unbroken.save(tmp_path / "checkpoint")
    expected_figures = [unbroken.step(), unbroken.step()]

    resumed = trainer(tiny_folder, learned_reward=learned_reward)
    torch.manual_seed(12345)
    assert resumed.load(tmp_path / "checkpoint")
    assert resumed.step_done == 1
    metrics = [resumed.step(), resumed.step()]

    assert metrics == expected_figures
    assert resumed.kl_coef == unbroken.kl_coef
    expected, found = everything(unbroken), everything(resumed)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_there_is_nothing_to_load_before_the_first_save(tiny_folder, tmp_path):
    ppo = trainer(tiny_folder)
    assert ppo.load(tmp_path / "checkpoint") is False
    assert ppo.step_done == 0


class Kill(BaseException):
    """As if the process had died there."""


def killed_at(monkeypatch, operation: int):
    """Dies before the given one of the moves and removals that a save makes."""
    calls = [0]

    def counted(real):
        def wrapper(*args, **kwargs):
            calls[0] += 1
            if calls[0] == operation:
                raise Kill
            return real(*args, **kwargs)

        return wrapper

    monkeypatch.setattr(shutil, "rmtree", counted(shutil.rmtree))
    monkeypatch.setattr(Path, "rename", counted(Path.rename))


@pytest.mark.parametrize("second", [None, 2, 3, 4])
@pytest.mark.parametrize("first", [1, 2, 3, 4, 5])
def test_a_save_that_is_cut_short_leaves_a_checkpoint(tiny_folder, tmp_path, monkeypatch, first, second):
    """At any point, and once more at any point of the next save: what is loaded is the last step or the one before."""
    folder = tmp_path / "checkpoint"
    ppo = trainer(tiny_folder)
    ppo.step_done = 1
    ppo.save(folder)
    steps = 1
    for operation in (first, second):
        if operation is None:
            break
        ppo.step_done += 1
        with monkeypatch.context() as patch:
            killed_at(patch, operation)
            with suppress(Kill):
                ppo.save(folder)
        fresh = PPO.__new__(PPO)
        fresh.__dict__.update(ppo.__dict__)
        assert fresh.load(folder), f"nothing is left after a kill at operation {operation}"
        assert fresh.step_done in (steps, ppo.step_done)
        steps = ppo.step_done = fresh.step_done
    ppo.step_done += 1
    ppo.save(folder)
    assert ppo.load(folder) and ppo.step_done == steps + 1
    assert [f.name for f in tmp_path.iterdir()] == ["checkpoint"]


def test_a_checkpoint_holds_no_pickle(tiny_folder, tmp_path):
    ppo = trainer(tiny_folder)
    ppo.step()
    ppo.save(tmp_path / "checkpoint")
    assert {f.suffix for f in (tmp_path / "checkpoint").iterdir()} <= {".safetensors", ".json", ".md"}
    assert load_file(tmp_path / "checkpoint" / "optimizer.safetensors")


# What each step asks.


def test_every_pass_asks_every_prompt_once_in_an_order_of_its_own(tiny_folder):
    ppo = trainer(tiny_folder, replace(CONFIG, batch_size=4))
    asked = [i for step in range(7) for i in ppo.batch_indexes(step)]
    passes = [asked[k * 7 : k * 7 + 7] for k in range(4)]
    assert all(sorted(p) == list(range(7)) for p in passes)
    assert len({tuple(p) for p in passes}) == 4
    assert ppo.batch_indexes(3) == trainer(tiny_folder, replace(CONFIG, batch_size=4)).batch_indexes(3)
    assert [trainer(tiny_folder, replace(CONFIG, batch_size=4), seed=1).batch_indexes(s) for s in range(3)] != [
        ppo.batch_indexes(s) for s in range(3)
    ]


def test_every_step_draws_from_a_stream_of_its_own(tiny_folder, monkeypatch):
    def streams(seed):
        drawn = []

        def spy(*arguments, **options):
            drawn.append(arguments[5].initial_seed())
            return collect(*arguments, **options)

        monkeypatch.setattr(ppo_module, "collect", spy)
        ppo = trainer(tiny_folder, replace(CONFIG, epochs=1), seed=seed, sampling=replace(SAMPLING, max_new_tokens=2))
        for _ in range(3):
            ppo.step()
        return drawn

    first = streams(0)
    assert len(set(first)) == 3 and streams(0) == first and not set(first) & set(streams(1))


def test_a_batch_larger_than_the_prompts_asks_them_again(tiny_folder):
    ppo = trainer(tiny_folder, replace(CONFIG, batch_size=20, minibatch_size=20))
    assert [ppo.batch_indexes(0).count(i) for i in range(7)].count(3) == 6


def test_an_answer_that_never_ended_gets_the_score_for_that():
    byte_reward = ByteReward()
    sampled = [GeneratedSequence([1, 200], "stop"), GeneratedSequence([1, 2], "length")]
    for missing_eos_score, expected in ((-3.0, [0.5, -3.0]), (0.0, [0.5, 0.0]), (None, [0.5, 1.0])):
        assert RewardShaper(byte_reward, ScoringConfig(missing_eos_score=missing_eos_score))([[5], [6]], sampled).tolist() == expected


def test_missing_eos_score_reaches_the_rollout(tiny_folder):
    ppo = trainer(tiny_folder, sampling=replace(SAMPLING, max_new_tokens=2), scoring=ScoringConfig(missing_eos_score=-7.0))
    metrics = ppo.step()
    assert metrics["objective/scores"] == pytest.approx(-7 * (1 - metrics["val/finished"]), abs=1)


def test_whitened_rewards_keep_their_mean(tiny_folder, monkeypatch):
    seen = []
    real = ppo_module.gae

    def spy(rewards, values, mask, **options):
        seen.append(rewards[mask])
        return real(rewards, values, mask, **options)

    monkeypatch.setattr(ppo_module, "gae", spy)
    for whiten_rewards in (False, True):
        scrambled(trainer(tiny_folder, replace(CONFIG, whiten_rewards=whiten_rewards))).step()
    plain, whitened = seen
    assert_close(whitened.std(unbiased=False), torch.tensor(1.0), atol=1e-3, rtol=0)
    assert_close(whitened.mean(), plain.mean(), atol=1e-5, rtol=0)
    assert abs(plain.std(unbiased=False) - 1) > 0.1


def test_a_model_whose_end_is_its_padding_is_tuned_alike(eos_pad_folder, tmp_path):
    ppo = trainer(eos_pad_folder, replace(CONFIG, batch_size=32, minibatch_size=8), sampling=replace(SAMPLING, max_new_tokens=16))
    eos = ppo.backbone.eos_id
    assert eos == ppo.backbone.pad_id
    ppo.backbone.base.lm_head.register_forward_hook(
        lambda _, __, out: out.index_add(-1, torch.tensor([eos]), torch.full((*out.shape[:-1], 1), 4.0))
    )
    rollout = taken(ppo, 32)
    assert rollout.finished.any()
    for i in rollout.finished.nonzero()[:, 0].tolist():
        n = int(rollout.mask[i].sum())
        assert rollout.responses[i, n - 1] == eos and eos not in rollout.responses[i, : n - 1].tolist()
    metrics = ppo.step()
    assert all(torch.isfinite(torch.tensor(v)) for v in metrics.values())
    assert 0 < metrics["val/finished"] < 1


def test_ticks_come_all_the_way_through_a_step(tiny_folder):
    ticks = []
    trainer(tiny_folder).step(Work(ticks.append))
    assert sum(ticks) == pytest.approx(1), "the step reports its whole work, however early its responses end"
    # 8 positions at most, a batch of scores, 2 minibatches of the reference, 2 epochs of 2 updates.
    assert 3 + 4 < len([amount for amount in ticks if amount > 1e-9]) <= 8 + 1 + 2 + 4 + 1


def test_the_value_head_starts_at_0(tiny_folder):
    ppo = trainer(tiny_folder)
    assert ppo.value_head.weight.abs().sum() == 0 and ppo.value_head.bias == 0
    assert taken(ppo).values.abs().sum() == 0


def test_a_checkpoint_whose_values_another_version_read_is_refused_and_leaves_the_policy_alone(tiny_folder, tmp_path):
    ppo = scrambled(trainer(tiny_folder))
    ppo.save(tmp_path / "checkpoint")
    save_file({"weight": torch.zeros(1, 32), "bias": torch.zeros(1)}, tmp_path / "checkpoint" / "value_head.safetensors")
    fresh = trainer(tiny_folder)
    before = {n: p.detach().clone() for n, p in fresh.policy.items()}
    with pytest.raises(ModelError, match="another version made this checkpoint.*delete that folder and resume"):
        fresh.load(tmp_path / "checkpoint")
    assert all(torch.equal(p, before[n]) for n, p in fresh.policy.items()) and fresh.step_done == 0


# Details that are easily lost; docs/research/ppo.md says where each comes from.


def test_tokens_are_drawn_from_the_whole_distribution(tiny_folder, monkeypatch):
    assert (Sampling().top_k, Sampling().top_p) == (0, 1.0)
    seen = []

    def spy(*arguments, **options):
        seen.append(arguments[4])
        return collect(*arguments, **options)

    monkeypatch.setattr(ppo_module, "collect", spy)
    trainer(tiny_folder).step()
    assert seen == [Sampling(temperature=0.7, top_p=1.0, top_k=0, max_new_tokens=8)]


def test_a_step_never_sees_text(tiny_folder):
    """What was sampled is what is learned from: no tokenizer, no second tokenisation."""
    ppo = trainer(tiny_folder)
    ppo.backbone.tokenizer = None
    ppo.step()


def test_dropout_is_off_after_the_reward_model_was_trained(tiny_folder, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.5}))
    backbone = Backbone.load(folder, "cpu", "float32")
    pairs = [PreferencePair(user(f"{i}?"), "good", "bad", 1.0, "train", "human", i) for i in range(2)]
    model = reward_model.fit(backbone, pairs, RewardConfig(epochs=1, batch_size=2), seed=0, scratch=tmp_path, report=lambda *_: None)
    seen = watch_logprobs(monkeypatch)
    PPO(backbone, model, PROMPTS, CONFIG, ADAPTER_CONFIG, sampling=SAMPLING, seed=0).step()
    assert_close(seen[0][0].exp() / seen[0][1].exp(), torch.ones_like(seen[0][0]), atol=1e-5, rtol=1e-5)
    assert not any(m.training for m in backbone.base.modules() if isinstance(m, nn.Dropout))


def test_the_optimiser_and_its_defaults_are_those_of_the_implementation_details(tiny_folder):
    groups = trainer(tiny_folder).optimizer.param_groups
    assert [(g["eps"], g["weight_decay"], g["betas"]) for g in groups] == [(1e-5, 0.0, (0.9, 0.999))] * 2
    assert [g["lr"] for g in groups] == [CONFIG.learning_rate, CONFIG.value_learning_rate]
    default = PPOConfig()
    assert (default.gamma, default.lam, default.clip, default.value_clip, default.value_coef) == (1.0, 0.95, 0.2, 0.2, 0.1)
    # What is not as there is said in docs/research/ppo.md.
    assert (default.epochs, default.kl_coef, default.kl_target, default.whiten_rewards) == (2, 0.05, 6.0, False)


def test_every_epoch_reads_every_row_once_in_an_order_of_its_own(tiny_folder, monkeypatch):
    taken_rows = []
    real = Rollout.select

    def spy(rollout, rows):
        taken_rows.append(rows.tolist())
        return real(rollout, rows)

    ppo = trainer(tiny_folder)
    rollout = taken(ppo)
    monkeypatch.setattr(Rollout, "select", spy)
    zeros = torch.zeros_like(rollout.logprobs)
    for ppo.step_done in (0, 1):
        ppo.update(rollout, zeros, zeros)
    passes = [[*taken_rows[i], *taken_rows[i + 1]] for i in range(0, 8, 2)]
    assert all(sorted(p) == list(range(8)) for p in passes)
    assert len({tuple(p) for p in passes}) == 4
