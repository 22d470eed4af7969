"""What options make of pairs: weights, margins, targets, ties, picks, and bootstraps over prompts."""

import math
from dataclasses import replace

import pytest
import torch
from learning import user
from torch import tensor
from torch.testing import assert_close

from rlhf.config import RewardConfig
from rlhf.data.pairs import PreferencePair
from rlhf.reward import targets

log = math.log


def pair(n=1, chosen="a", rejected="b", *, weight=1.0, tie=False, strength=None, judgment=None):
    return PreferencePair(user(f"Q{n}"), chosen, rejected, weight, "train", "human", n if judgment is None else judgment, tie, strength)


def read(pairs, **options):
    return targets.pair_targets(pairs, RewardConfig(**options), seed=0)


def loss(differences, pairs, tie_logit=0.0, **options):
    config = RewardConfig(**options)
    return targets.loss(tensor(differences)[:, None], targets.pair_targets(pairs, config, seed=0), tensor([tie_logit]), config)


def test_by_default_every_pair_is_one_certain_vote():
    votes = read([pair(1), pair(2, strength="slightly")])
    assert votes.weight.tolist() == [[1.0], [1.0]]
    assert votes.margin.tolist() == [0.0, 0.0] and votes.target.tolist() == [1.0, 1.0] and votes.tie.tolist() == [False, False]


def test_only_the_ratio_of_weights_matters():
    assert_close(read([pair(1, weight=0.5), pair(2, weight=1.0), pair(3, weight=1.5)]).weight, tensor([[0.5], [1.0], [1.5]]))
    assert_close(loss([log(3), -log(3)], [pair(1, weight=3.0), pair(2, weight=1.0)]), tensor(-1.5 * log(3 / 4) - 0.5 * log(1 / 4)) / 2)


def test_a_strength_is_a_margin_or_a_soft_label():
    pairs = [pair(i, strength=s) for i, s in enumerate(["significantly", "better", "slightly", "negligibly", None])]
    assert_close(read(pairs, strength="margin").margin, tensor([1, 2 / 3, 1 / 3, 0, 0]))
    assert_close(read(pairs, strength="soft").target, tensor([1, 0.875, 0.75, 0.625, 1]))
    assert_close(loss([log(3) + 1 / 3], [pair(strength="slightly")], strength="margin"), tensor(-log(3 / 4)))
    assert_close(loss([log(3)], [pair(strength="slightly")], strength="soft"), tensor(-0.75 * log(3 / 4) - 0.25 * log(1 / 4)))


def test_a_tie_is_half_a_vote_each_way_or_has_a_term_of_its_own():
    tie = [pair(tie=True, strength="slightly")]
    assert_close(loss([log(3)], tie, ties="soft", strength="soft"), tensor(-0.5 * log(3 / 4) - 0.5 * log(1 / 4)))
    # softplus(0) = log 2, so theta = 2: (4 - 1) * 2 / ((2 + 2)(4 + 1)) for strengths 2 and 1.
    assert_close(loss([log(2)], tie, ties="rao-kupper"), tensor(-log(3 / 10)))
    # nu = exp(0) = 1: sqrt(4) of 4 + 1 + sqrt(4).
    assert_close(loss([log(4)], tie, ties="davidson"), tensor(-log(2 / 7)))


def test_without_a_tie_nothing_is_learned_about_ties():
    config = RewardConfig(ties="davidson")
    assert not targets.fits_tie_logit(read([pair()]), config)
    assert targets.fits_tie_logit(read([pair(), pair(2, tie=True)]), config)
    assert not targets.fits_tie_logit(read([pair(tie=True)]), RewardConfig(ties="soft"))


def ranking(*texts, n=1):
    k = len(texts)
    return [pair(n, texts[i], texts[j], weight=1 / (k - 1)) for i in range(k) for j in range(i + 1, k)]


def test_pairs_and_plackett_luce_agree_on_two_completions():
    pairs = [*ranking("a", "b"), *ranking("c", "a", n=2)]
    found = [loss([0.7, -1.3], pairs, rankings=how) for how in ("pairs", "plackett-luce")]
    assert_close(found[0], found[1])
    assert_close(found[0], tensor((log(1 + math.exp(-0.7)) + log(1 + math.exp(1.3))) / 2))


def test_three_ranked_completions_are_three_pairs_or_two_choices():
    """Strengths 4, 2, 1: picks of probability 4/7 and 2/3; pairs of 2/3, 4/5 and 2/3, each half a vote."""
    differences = [log(2), log(4), log(2)]
    picks = loss(differences, ranking("a", "b", "c"), rankings="plackett-luce")
    assert_close(picks, tensor(-log(4 / 7) - log(2 / 3)) / 2)
    assert_close(loss(differences, ranking("a", "b", "c")), tensor(-log(2 / 3) - log(4 / 5) - log(2 / 3)) / 3)
    beside = [*ranking("a", "b", "c"), *ranking("d", "e", n=2)]
    # Half of a plain pair's, at mean 1; a pick is a vote like any other.
    assert_close(read(beside).weight[:, 0], tensor([0.8, 0.8, 0.8, 1.6]))
    assert_close(read(beside, rankings="plackett-luce").weight[:, 0], torch.ones(4))


def test_a_batch_may_hold_some_of_the_choices():
    config = RewardConfig(rankings="plackett-luce")
    votes = targets.pair_targets([*ranking("a", "b"), *ranking("a", "b", "c", n=2)], config, seed=0)
    part = votes.select(tensor([1, 2, 3]))
    found = targets.loss(tensor([[log(2)], [log(4)], [log(2)]]), part, tensor([0.0]), config)
    assert_close(found, tensor(-log(4 / 7) - log(2 / 3)) / 2)


def test_the_same_answers_ranked_by_two_people_are_two_rankings():
    votes = read([pair(1, judgment=1), pair(1, judgment=2)], rankings="plackett-luce")
    assert votes.ranking.tolist() == [0, 1] and votes.stage.tolist() == [0, 1]


def test_a_bootstrap_resamples_prompts_and_not_pairs():
    pairs = [pair(n, f"a{i}", judgment=10 * n + i) for n in range(20) for i in range(3)]
    weight = read(pairs, ensemble=4).weight
    assert weight.shape == (60, 4)
    assert torch.equal(weight[0::3], weight[1::3]) and torch.equal(weight[0::3], weight[2::3]), "a prompt's pairs stay together"
    # Every prompt has three pairs, so weights at mean 1 are the counts themselves: whole numbers, 20 in all.
    counts = weight[0::3]
    assert_close(counts, counts.round())
    assert (counts.sum(0) == 20).all()
    assert (counts == 0).any(0).all(), "some prompts are left out of each"
    assert len({tuple(c) for c in counts.T.tolist()}) == 4
    assert torch.equal(weight, read(pairs, ensemble=4).weight)
    other = targets.pair_targets(pairs, RewardConfig(ensemble=4), seed=1).weight
    assert not torch.equal(weight, other)


def test_one_head_learns_from_every_pair():
    assert read([pair(n) for n in range(9)]).weight.tolist() == [[1.0]] * 9


def test_members_have_losses_of_their_own():
    config = RewardConfig(ensemble=2)
    votes = targets.pair_targets([pair(1), pair(2)], config, seed=0)._replace(weight=tensor([[2.0, 0.0], [0.0, 2.0]]))
    found = targets.loss(tensor([[log(3), 0.0], [0.0, -log(3)]]), votes, torch.zeros(2), config)
    assert_close(found, tensor(2 * -log(3 / 4) + 2 * -log(1 / 4)) / 4)


@pytest.mark.parametrize("ties", ["rao-kupper", "davidson"])
def test_every_loss_has_finite_gradients_far_out(ties):
    config = RewardConfig(ties=ties)
    votes = targets.pair_targets([pair(1), pair(2, tie=True)], config, seed=0)
    for size in (0.0, 80.0, -80.0):
        difference, tie_logit = tensor([[size], [size]], requires_grad=True), tensor([-5.0], requires_grad=True)
        targets.loss(difference, votes, tie_logit, replace(config)).backward()
        assert difference.grad.isfinite().all() and tie_logit.grad.isfinite().all()
