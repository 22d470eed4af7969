"""The reward model: it learns a rule that can be learned, scores a row the same in any company, and touches nothing else."""

from dataclasses import replace

import pytest
import torch
from learning import user
from torch.testing import assert_close

from rlhf.backbone import Backbone
from rlhf.config import AdapterConfig, RewardConfig
from rlhf.pairs import PreferencePair
from rlhf.reward import ADAPTER, RewardModel, fit

CONFIG = RewardConfig(adapter=AdapterConfig(rank=4, alpha=8), depth=1.0, probe_l2=0.03, epochs=4, batch_size=8, learning_rate=5e-3)


def pair(chosen, rejected, question="Q"):
    return PreferencePair(user(question), chosen, rejected, 1.0, "train", "human", 1)


@pytest.fixture
def rule_pairs():
    """More b than a is better; lengths vary, so that length is no way out."""
    rng = torch.Generator().manual_seed(0)

    def text(good, n):
        ones = torch.rand(n, generator=rng) < (0.7 if good else 0.3)
        return "".join("b" if one else "a" for one in ones.tolist())

    return [pair("b" + text(True, 5 + i % 7), "a" + text(False, 5 + (3 * i) % 7), f"Q{i}") for i in range(48)]


def learned(backbone, pairs, tmp_path, config=CONFIG, seed=0):
    log = []
    model = fit(backbone, pairs, config, seed=seed, scratch=tmp_path / "scratch",
                report=lambda step, total, figures, model: log.append((step, total, figures)))
    return model, log


def rows_of(model, pairs):
    backbone = model.backbone
    return [model.row(backbone.encode(p.prompt), backbone.encode_answer(t)) for p in pairs for t in (p.chosen, p.rejected)]


@pytest.fixture
def untrained(backbone):
    backbone.add_adapter(ADAPTER, CONFIG.adapter, seed=0)
    return RewardModel(backbone, CONFIG, seed=0)


@pytest.mark.slow
def test_a_learnable_rule_is_learned(backbone, rule_pairs, tmp_path):
    model, log = learned(backbone, rule_pairs, tmp_path)
    assert [step for step, _, _ in log] == list(range(1, 25)) and log[0][1] == 24
    assert {"reward/loss", "reward/accuracy"} == set(log[0][2])
    loss = [figures["reward/loss"] for _, _, figures in log]
    assert sum(loss[-6:]) < 0.5 * sum(loss[:6])
    scores = model.score(rows_of(model, rule_pairs))
    assert (scores[0::2] > scores[1::2]).float().mean() > 0.9


@pytest.mark.slow
def test_only_the_adapter_and_the_head_learn(backbone, rule_pairs, tmp_path):
    base = {n: p.clone() for n, p in backbone.base.state_dict().items()}
    backbone.add_adapter("policy", CONFIG.adapter, seed=5)
    policy = {n: p.clone() for n, p in backbone.parameters("policy").items()}
    model, _ = learned(backbone, rule_pairs[:16], tmp_path)
    after = backbone.base.state_dict()
    for name, value in base.items():
        wrapped = name.removesuffix(".weight") + ".base_layer.weight"
        assert torch.equal(after[wrapped if wrapped in after else name], value), name
    assert all(torch.equal(p, policy[n]) for n, p in backbone.parameters("policy").items())
    moved = [n for n, p in backbone.parameters(ADAPTER).items() if ".lora_B." in n and p.abs().max() > 0]
    assert len(moved) == sum(".lora_B." in n for n in backbone.parameters(ADAPTER)), "B starts at 0 and must have moved"
    assert not backbone.base.training
    assert model.head.weight.isfinite().all()


def test_the_probe_alone_leaves_the_adapter_as_it_was(backbone, rule_pairs, tmp_path):
    config = replace(CONFIG, epochs=0)
    model, log = learned(backbone, rule_pairs, tmp_path, config)
    assert log == []
    assert all(p.abs().max() == 0 for n, p in backbone.parameters(ADAPTER).items() if ".lora_B." in n)
    scores = model.score(rows_of(model, rule_pairs))
    assert (scores[0::2] > scores[1::2]).float().mean() > 0.9


@pytest.mark.slow
def test_the_same_seed_learns_the_same_bits(tiny_folder, rule_pairs, tmp_path):
    first, second, other = (
        learned(Backbone.load(tiny_folder, "cpu", "float32"), rule_pairs[:16], tmp_path, seed=seed)[0] for seed in (3, 3, 4)
    )
    assert torch.equal(first.head.weight, second.head.weight)
    for (name, a), b in zip(first.backbone.parameters(ADAPTER).items(), second.backbone.parameters(ADAPTER).values(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(first.head.weight, other.head.weight)


def test_a_score_does_not_depend_on_the_company(untrained):
    rows = [untrained.row([5] * n, list(range(10, 10 + m))) for n, m in [(3, 1), (9, 20), (1, 7), (30, 2)]]
    together = untrained.score(rows)
    alone = torch.cat([untrained.score([row]) for row in rows])
    assert_close(together, alone, atol=1e-5, rtol=0)
    assert_close(untrained.score(rows[::-1]), together.flip(0), atol=1e-5, rtol=0)
    assert together.std() > 0.01, "different rows score differently"


def test_more_rows_than_one_batch_come_back_in_their_order(untrained):
    rows = [untrained.row([5, 6], [10 + i % 200] * (1 + (7 * i) % 13)) for i in range(70)]
    ticks = []
    found = untrained.score(rows, tick=lambda: ticks.append(1))
    assert len(ticks) == 3
    assert_close(found[[0, 33, 69]], torch.cat([untrained.score([rows[i]]) for i in (0, 33, 69)]), atol=1e-5, rtol=0)
    assert untrained.score([]).shape == (0,)


def test_a_score_reads_the_answer_through_the_prompt_and_not_the_prompt_itself(untrained):
    backbone = untrained.backbone
    ids, mask, starts = untrained.batch([untrained.row([5, 6, 7], [20, 21])])
    with backbone.using(ADAPTER), torch.no_grad():
        hidden = backbone.hidden(ids, mask, depth=untrained.depth)[0]
        expected = untrained.head(hidden[3:6].mean(0))
        assert_close(untrained.raw(ids, mask, starts), expected, atol=1e-5, rtol=0)


def test_a_row_ends_with_exactly_one_end_token(untrained):
    eos = untrained.backbone.eos_id
    assert untrained.row([5, 6], [7, 8]) == ([5, 6, 7, 8, eos], 2)
    assert untrained.row([5, 6], [7, 8, eos]) == ([5, 6, 7, 8, eos], 2), "whether or not the model ended the answer itself"
    assert untrained.row([5, 6], []) == ([5, 6, eos], 2)
    assert untrained.row([5, eos], [eos]) == ([5, eos, eos], 2), "the prompt's own are its own"


def test_an_end_token_that_is_also_padding_is_read(eos_pad_backbone):
    eos_pad_backbone.add_adapter(ADAPTER, CONFIG.adapter, seed=0)
    model = RewardModel(eos_pad_backbone, CONFIG, seed=0)
    short, long = model.row([5], [10]), model.row([5], [10, 11, 12, 13])
    _, mask, _ = model.batch([short, long])
    assert mask.sum(-1).tolist() == [3, 6]
    assert_close(model.score([short, long])[:1], model.score([short]), atol=1e-5, rtol=0)


def test_normalised_scores_have_mean_0_and_standard_deviation_1(untrained):
    rows = [untrained.row([5, 6], [10 + i] * (1 + i % 5)) for i in range(40)]
    raw = untrained.score(rows)
    untrained.normalise(rows)
    scores = untrained.score(rows)
    assert_close(scores.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    assert_close(scores.std(unbiased=False), torch.tensor(1.0), atol=1e-5, rtol=0)
    assert torch.equal(scores.argsort(), raw.argsort())
    untrained.normalise(rows)
    assert_close(untrained.score(rows), scores, atol=1e-5, rtol=0)


def test_samples_that_all_score_alike_give_no_scale(untrained):
    row = untrained.row([5], [6])
    untrained.normalise([row])
    assert untrained.std == 1.0
    other = untrained.score([untrained.row([5], [90, 91])])
    assert other.abs() < 100


def test_a_saved_reward_model_scores_the_same(backbone, tiny_folder, rule_pairs, tmp_path):
    model, _ = learned(backbone, rule_pairs[:16], tmp_path)
    rows = rows_of(model, rule_pairs)
    model.normalise(rows)
    folder = tmp_path / "reward"
    assert not RewardModel.is_saved(folder)
    model.save(folder)
    assert RewardModel.is_saved(folder)
    loaded = RewardModel.load(Backbone.load(tiny_folder, "cpu", "float32"), CONFIG, folder)
    assert torch.equal(loaded.score(rows), model.score(rows))
    assert (loaded.mean, loaded.std) == (model.mean, model.std)


def test_a_cancel_arrives_through_the_report(backbone, rule_pairs, tmp_path):
    def stop(step, total, figures, model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(backbone, rule_pairs[:8], CONFIG, seed=0, scratch=tmp_path, report=stop)


@pytest.mark.slow
def test_scoring_while_it_is_fitted_leaves_the_fit_alone(tiny_folder, rule_pairs, tmp_path):
    def fitted(report):
        return fit(Backbone.load(tiny_folder, "cpu", "float32"), rule_pairs[:16], CONFIG, seed=0, scratch=tmp_path, report=report)

    quiet = fitted(lambda *_: None)
    measured = fitted(lambda step, total, figures, model: model.score([model.row([5], [6])]))
    assert torch.equal(quiet.head.weight, measured.head.weight)
