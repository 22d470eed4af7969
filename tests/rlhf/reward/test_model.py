"""The reward model: it learns a rule that can be learned, scores a row the same in any batch, and changes nothing else."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learning import user
from torch import tensor
from torch.testing import assert_close
from torch.utils.data import SequentialSampler
from trl import RewardTrainer

from rlhf.config import AdapterConfig, RewardConfig
from rlhf.data.pairs import PreferencePair
from rlhf.models.backbone import Backbone
from rlhf.reward import model as reward_model
from rlhf.reward import targets
from rlhf.reward.model import ADAPTER, RankingBatchSampler, RewardModel, TokenizedExample, fit
from rlhf.reward.probe import Features, fit_probe
from rlhf.runs.work import Work

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
    model = fit(
        backbone,
        pairs,
        config,
        seed=seed,
        scratch=tmp_path / "scratch",
        report=lambda step, total, metrics, model: log.append((step, total, metrics)),
    )
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
    loss = [metrics["reward/loss"] for _, _, metrics in log]
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


@pytest.mark.parametrize("kind", ["lora", "prompt"])
def test_the_probe_alone_reads_the_base_whatever_adapter_is_named(backbone, rule_pairs, tmp_path, kind):
    """A learned prompt that nobody taught anything would bend what the probe was fitted to."""
    config = replace(CONFIG, epochs=0, adapter=AdapterConfig(kind=kind, rank=4))
    model, log = learned(backbone, rule_pairs, tmp_path, config)
    assert log == [] and backbone.adapters == []
    rows = rows_of(model, rule_pairs)
    scores = model.score(rows)
    assert (scores[0::2] > scores[1::2]).float().mean() > 0.9
    with torch.no_grad():
        assert_close(scores, torch.cat([model(*model.batch([row])) for row in rows])[:, 0], atol=1e-4, rtol=0)
    model.save(tmp_path / "kept")
    assert torch.equal(RewardModel.load(backbone, config, tmp_path / "kept").score(rows), scores)


@pytest.mark.slow
def test_the_same_seed_learns_the_same_bits(tiny_folder, rule_pairs, tmp_path):
    first, second, other = (
        learned(Backbone.load(tiny_folder, "cpu", "float32"), rule_pairs[:16], tmp_path, seed=seed)[0] for seed in (3, 3, 4)
    )
    assert torch.equal(first.head.weight, second.head.weight)
    for (name, a), b in zip(first.backbone.parameters(ADAPTER).items(), second.backbone.parameters(ADAPTER).values(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(first.head.weight, other.head.weight)


def test_a_score_does_not_depend_on_the_batch(untrained):
    rows = [untrained.row([5] * n, list(range(10, 10 + m))) for n, m in [(3, 1), (9, 20), (1, 7), (30, 2)]]
    together = untrained.score(rows)
    alone = torch.cat([untrained.score([row]) for row in rows])
    assert_close(together, alone, atol=1e-5, rtol=0)
    assert_close(untrained.score(rows[::-1]), together.flip(0), atol=1e-5, rtol=0)
    assert together.std() > 0.01, "different rows score differently"


def test_more_rows_than_one_batch_come_back_in_their_order(untrained):
    rows = [untrained.row([5, 6], [10 + i % 200] * (1 + (7 * i) % 13)) for i in range(70)]
    ticks = []
    found = untrained.score(rows, on_progress=Work(ticks.append))
    assert ticks == pytest.approx([32 / 70, 32 / 70, 6 / 70])
    assert_close(found[[0, 33, 69]], torch.cat([untrained.score([rows[i]]) for i in (0, 33, 69)]), atol=1e-5, rtol=0)
    assert untrained.score([]).shape == (0,)


def test_a_score_pools_the_answer_and_not_the_prompt(untrained):
    backbone = untrained.backbone
    ids, mask, starts = untrained.batch([untrained.row([5, 6, 7], [20, 21])])
    with torch.no_grad():
        hidden = backbone.hidden(ids, mask, depth=untrained.depth, adapter=ADAPTER)[0]
        expected = untrained.head(hidden[3:6].mean(0))
        assert_close(untrained(ids, mask, starts)[0], expected, atol=1e-5, rtol=0)
        last = RewardModel(backbone, replace(CONFIG, pooling="last"), seed=0)
        longer = last.batch([last.row([5, 6, 7], [20, 21]), last.row([5], [20] * 9)])
        assert_close(last(*longer)[0], last.head(hidden[5]), atol=1e-5, rtol=0)


def test_a_row_ends_with_exactly_one_end_token(untrained):
    eos = untrained.backbone.eos_id
    assert untrained.row([5, 6], [7, 8]) == TokenizedExample([5, 6, 7, 8, eos], 2)
    assert untrained.row([5, 6], [7, 8, eos]) == TokenizedExample([5, 6, 7, 8, eos], 2), "whether or not the model ended the answer itself"
    assert untrained.row([5, 6], []) == TokenizedExample([5, 6, eos], 2)
    assert untrained.row([5, eos], [eos]) == TokenizedExample([5, eos, eos], 2), "the prompt's own are its own"


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


def test_one_raw_score_is_one_standard_deviation_of_the_references(untrained):
    """Raw 1, 3 and 5: mean 3, standard deviation sqrt(8/3)."""
    rows = [untrained.row([5], [6 + i]) for i in range(3)]
    raw = {len(r.ids): torch.tensor([[1.0], [3.0], [5.0]]) for r in rows}
    untrained.forward = lambda ids, mask, starts, known: raw[ids.shape[1]]
    untrained.normalise(rows)
    assert_close(untrained.score(rows), tensor([-2.0, 0.0, 2.0]) / math.sqrt(8 / 3))


@pytest.mark.slow
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
    assert torch.equal(loaded.mean, model.mean) and torch.equal(loaded.std, model.std)


def test_a_scale_written_as_numbers_is_read(untrained, tiny_folder, tmp_path):
    """As it was before there were ensembles."""
    untrained.save(tmp_path)
    (tmp_path / "scale.json").write_text(json.dumps({"mean": 0.5, "std": 2.0}))
    loaded = RewardModel.load(Backbone.load(tiny_folder, "cpu", "float32"), CONFIG, tmp_path)
    rows = [untrained.row([5], [6, 7])]
    assert loaded.mean.shape == loaded.std.shape == (1,)
    assert_close(loaded.score(rows), (untrained.score(rows) - 0.5) / 2)


@pytest.mark.slow
def test_a_cancel_arrives_through_the_report(backbone, rule_pairs, tmp_path):
    def stop(step, total, metrics, model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(backbone, rule_pairs[:8], CONFIG, seed=0, scratch=tmp_path, report=stop)


@pytest.mark.slow
def test_scoring_while_it_is_fitted_leaves_the_fit_alone(tiny_folder, rule_pairs, tmp_path):
    def fitted(report):
        return fit(Backbone.load(tiny_folder, "cpu", "float32"), rule_pairs[:16], CONFIG, seed=0, scratch=tmp_path, report=report)

    quiet = fitted(lambda *_: None)
    measured = fitted(lambda step, total, metrics, model: model.score([model.row([5], [6])]))
    assert torch.equal(quiet.head.weight, measured.head.weight)


# ---- what the probe is fitted to


def features_of(model, differences):
    """Pairs that differ in the first feature alone."""
    chosen = torch.zeros(len(differences), model.backbone.hidden_size)
    chosen[:, 0] = tensor(differences)
    return Features(chosen, torch.zeros_like(chosen))


def votes_on(model, ties):
    pairs = [replace(pair("b", "a", f"Q{i}"), tie=tie) for i, tie in enumerate(ties)]
    return targets.pair_targets(pairs, model.config, seed=0)


@pytest.mark.parametrize("how", ["davidson", "rao-kupper"])
def test_the_probe_learns_how_easily_answers_tie(backbone, how):
    """Two ties in four votes between equals: nu / (2 + nu) = 1/2 for nu = 2; (theta - 1) / (theta + 1) = 1/2 for theta = 3.

    Both are found at log 2: exp of it is nu, and softplus of it, log(1 + 2), is log theta.
    """
    model = RewardModel(backbone, replace(CONFIG, ties=how, probe_l2=0.0), seed=0)
    tie_logit = model.init_head_from_probe(features_of(model, [1.0, -1.0, 0.0, 0.0]), votes_on(model, [False, False, True, True]))
    assert_close(tie_logit, tensor([math.log(2)]), atol=1e-3, rtol=0)
    assert model.head.weight[0, 0].abs() < 1e-3


def test_a_soft_tie_pulls_the_probe_back(backbone):
    """Of d = 1: one vote for it and one half vote each way is 3/4."""
    model = RewardModel(backbone, replace(CONFIG, ties="soft", probe_l2=0.0), seed=0)
    model.init_head_from_probe(features_of(model, [1.0, 1.0]), votes_on(model, [False, True]))
    assert_close(model.head.weight[0, 0], tensor(math.log(3)), atol=1e-3, rtol=0)


def test_the_features_are_handed_on_in_the_order_of_the_pairs(backbone, rule_pairs, tmp_path):
    given_, config = [], replace(CONFIG, epochs=0)
    pairs = [*rule_pairs[:5], rule_pairs[0]]
    model = fit(backbone, pairs, config, seed=0, scratch=tmp_path, report=lambda *_: None, on_features=given_.append)
    [features] = given_
    with torch.no_grad():
        alone = torch.cat([model.features(*model.batch([row]), adapter=None) for row in rows_of(model, pairs)])
    assert_close(features.chosen, alone[0::2], atol=1e-5, rtol=0)
    assert_close(features.rejected, alone[1::2], atol=1e-5, rtol=0)
    assert torch.equal(model.head.weight[0], fit_probe(*features, l2=config.probe_l2))


# ---- ensembles


def test_one_head_has_no_disagreement(untrained):
    rows = [untrained.row([5], [6 + i]) for i in range(3)]
    ensemble_scores = untrained.ensemble_scores(rows)
    assert ensemble_scores.shape == (1, 3) and torch.equal(ensemble_scores[0], untrained.score(rows))
    assert untrained.disagreement(ensemble_scores).tolist() == [0.0] * 3


def test_a_conservative_score_subtracts_the_standard_deviation_of_the_heads(backbone):
    """Members say 1, 3 and 3, 3: means 2 and 3, standard deviations 1 and 0."""
    model = RewardModel(backbone, replace(CONFIG, ensemble=2, std_penalty=0.5), seed=0)
    ensemble_scores = tensor([[1.0, 3.0], [3.0, 3.0]])
    assert_close(model.disagreement(ensemble_scores), tensor([1.0, 0.0]))
    assert_close(model.conservative(ensemble_scores), tensor([1.5, 3.0]))
    backbone.add_adapter(ADAPTER, CONFIG.adapter, seed=0)
    rows = [model.row([5], [6 + i]) for i in range(4)]
    each = model.ensemble_scores(rows)
    assert each.shape == (2, 4) and each.std(0).min() > 0
    assert_close(model.score(rows), each.mean(0) - 0.5 * (each[0] - each[1]).abs() / 2)


def test_each_head_is_the_probe_of_its_own_bootstrap(backbone, rule_pairs, tmp_path):
    config = replace(CONFIG, ensemble=3, epochs=0)
    seen = []
    model = fit(backbone, rule_pairs, config, seed=4, scratch=tmp_path, report=lambda *_: None, on_features=seen.append)
    weights = targets.pair_targets(rule_pairs, config, seed=4).weight
    for i in range(3):
        alone = fit_probe(*seen[0], l2=config.probe_l2, weights=weights[:, i])
        assert_close(model.head.weight[i], alone, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(model.head.weight[0], model.head.weight[1], atol=1e-2)


@pytest.mark.slow
def test_an_ensemble_learns_and_is_saved_with_a_scale_for_each_head(tiny_folder, rule_pairs, tmp_path):
    config = replace(CONFIG, ensemble=3)
    model, _ = learned(Backbone.load(tiny_folder, "cpu", "float32"), rule_pairs, tmp_path, config)
    rows = rows_of(model, rule_pairs)
    model.normalise(rows)
    ensemble_scores = model.ensemble_scores(rows)
    assert_close(ensemble_scores.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    assert_close(ensemble_scores.std(1, unbiased=False), torch.ones(3), atol=1e-4, rtol=0)
    assert ((ensemble_scores[:, 0::2] > ensemble_scores[:, 1::2]).float().mean(1) > 0.9).all()
    model.save(tmp_path / "reward")
    loaded = RewardModel.load(Backbone.load(tiny_folder, "cpu", "float32"), config, tmp_path / "reward")
    assert torch.equal(loaded.ensemble_scores(rows), ensemble_scores)


# ---- what TRL trains


def trainer_of(backbone, pairs, config, tmp_path, monkeypatch):
    """The trainer as it stands when training would begin."""
    found = []
    monkeypatch.setattr(reward_model.PreferenceTrainer, "train", lambda self: found.append(self))
    fit(backbone, pairs, config, seed=0, scratch=tmp_path, report=lambda *_: None)
    return found[0]


def ranking(*texts, n=1, strength=None):
    k = len(texts)
    return [
        PreferencePair(user(f"Q{n}"), texts[i], texts[j], 1 / (k - 1), "train", "human", n, strength=strength)
        for i in range(k) for j in range(i + 1, k)
    ]  # fmt: skip


def test_plain_votes_have_the_loss_of_trl(backbone, rule_pairs, tmp_path, monkeypatch):
    trainer = trainer_of(backbone, rule_pairs[:12], CONFIG, tmp_path, monkeypatch)
    for inputs in trainer.get_train_dataloader():
        ours = trainer.compute_loss(trainer.model, dict(inputs))
        theirs = RewardTrainer.compute_loss(trainer, trainer.model, dict(inputs))
        assert torch.equal(ours, theirs) and ours > 0
    seen = trainer._metrics["train"]["accuracy"]
    assert seen[0::2] == seen[1::2], "and its accuracy"


def test_margins_have_the_loss_of_trl(backbone, rule_pairs, tmp_path, monkeypatch):
    pairs = [replace(p, strength="better" if i < 3 else "significantly") for i, p in enumerate(rule_pairs[:8])]
    trainer = trainer_of(backbone, pairs, replace(CONFIG, strength="margin"), tmp_path, monkeypatch)
    [inputs] = trainer.get_train_dataloader()
    margin = torch.where(inputs["pairs"] < 3, 2 / 3, 1.0)
    ours = trainer.compute_loss(trainer.model, dict(inputs))
    theirs = RewardTrainer.compute_loss(trainer, trainer.model, dict(inputs) | {"margin": margin})
    assert_close(ours, theirs)


def test_ties_have_a_loss_and_no_accuracy(backbone, rule_pairs, tmp_path, monkeypatch):
    pairs = [replace(p, tie=i >= 3) for i, p in enumerate(rule_pairs[:8])]
    trainer = trainer_of(backbone, pairs, replace(CONFIG, ties="soft"), tmp_path, monkeypatch)
    with torch.no_grad():
        trainer.reward_model.head.weight.zero_()
        [inputs] = trainer.get_train_dataloader()
        assert_close(trainer.compute_loss(trainer.model, dict(inputs)), tensor(math.log(2)))
        # Scores that fall from the first row on: every chosen side lies before its rejected one.
        trainer.reward_model.forward = lambda ids, mask, starts, cached=None: -torch.arange(len(ids), dtype=torch.float32)[:, None]
        trainer.compute_loss(trainer.model, dict(inputs))
        trainer.compute_loss(trainer.model, dict(inputs) | {"chosen": torch.where(inputs["pairs"] < 1, 15, 0)})
        trainer.compute_loss(trainer.model, dict(inputs) | {"pairs": torch.full((8,), 7)})
    assert trainer._metrics["train"]["accuracy"] == [0.0, 1.0, pytest.approx(2 / 3)]


def test_a_ranking_is_read_once_and_whole(backbone, tmp_path, monkeypatch):
    pairs = [*ranking("a", "ab", "abb", "b"), *ranking("aa", "bb", n=2), *ranking("a", "b", "ba", n=3)]
    trainer = trainer_of(backbone, pairs, replace(CONFIG, batch_size=5), tmp_path, monkeypatch)
    batches = list(trainer.get_train_dataloader())
    assert len(batches) == len(trainer.get_train_dataloader()) == 2, "10 pairs, of which the 6 of one ranking count as 5"
    groups = [{0, 1, 2, 3, 4, 5}, {6}, {7, 8, 9}]
    found = [set(b["pairs"].tolist()) for b in batches]
    assert set.union(*found) == set(range(10)) and sum(map(len, found)) == 10
    assert all(group <= b or not group & b for group in groups for b in found)
    for batch, ensemble_scores in zip(batches, found, strict=True):
        completions = sum(k for group, k in zip(groups, (4, 2, 3), strict=True) if group <= ensemble_scores)
        assert len(batch["input_ids"]) == completions
    scores = trainer.reward_model.score(rows_of(trainer.reward_model, pairs))
    for batch in batches:
        logits = trainer.model(**batch).logits[:, 0]
        for side, offset in (("chosen", 0), ("rejected", 1)):
            assert_close(logits[batch[side]], scores[2 * batch["pairs"] + offset], atol=1e-5, rtol=0)


@given(st.lists(st.integers(1, 36), min_size=1, max_size=40), st.integers(1, 20))
def test_no_ranking_is_cut_and_none_is_lost(sizes, batch_size):
    sampler = RankingBatchSampler(SequentialSampler(sizes), sizes, batch_size)
    batches = list(sampler)
    assert [i for batch in batches for i in batch] == list(range(len(sizes)))
    assert len(batches) == len(sampler) and all(batches)
    for batch in batches:
        assert sum(min(sizes[i], batch_size) for i in batch[1:]) <= batch_size


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"ties": "soft"}, {"ties": "rao-kupper"}, {"ties": "davidson", "strength": "soft"}, {"strength": "margin", "ensemble": 2},
     {"rankings": "plackett-luce"}, {"pooling": "last"}],
    ids=lambda options: "-".join(options.values() if all(isinstance(v, str) for v in options.values()) else options),
)  # fmt: skip
def test_every_loss_learns_the_rule(backbone, rule_pairs, tmp_path, options):
    ties = [replace(pair("ab", "ba", f"T{i}"), tie=True, judgment_id=i) for i in range(6)] if "ties" in options else []
    votes = [replace(p, strength="better") for p in rule_pairs]
    model, log = learned(backbone, [*votes, *ties], tmp_path, replace(CONFIG, **options))
    scores = model.score(rows_of(model, rule_pairs))
    assert (scores[0::2] > scores[1::2]).float().mean() > 0.9
    assert all(math.isfinite(metrics["reward/loss"]) for _, _, metrics in log)
