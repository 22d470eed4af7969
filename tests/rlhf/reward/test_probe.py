"""The probe finds the maximum-likelihood weights, for all pair weights and targets."""

import math

import torch
from torch import tensor
from torch.testing import assert_close

from rlhf.reward.probe import fit_probe

EXACT = {"atol": 1e-3, "rtol": 0}


def pairs(*differences):
    """Pairs on one feature, with these differences."""
    chosen = tensor(differences)[:, None]
    return chosen, torch.zeros_like(chosen)


def test_three_of_four_votes_are_log_odds_of_3():
    """sigmoid(w) = 3/4 where the loss is smallest."""
    assert_close(fit_probe(*pairs(1.0, 1.0, 1.0, -1.0), l2=0.0), tensor([math.log(3)]), **EXACT)


def test_a_weight_is_as_many_votes():
    assert_close(fit_probe(*pairs(1.0, -1.0), l2=0.0, weights=tensor([3.0, 1.0])), tensor([math.log(3)]), **EXACT)
    assert_close(fit_probe(*pairs(1.0, -1.0), l2=0.0, weights=tensor([0.6, 0.2])), tensor([math.log(3)]), **EXACT)


def test_a_target_is_a_share_of_a_vote():
    """On average 3/4 for the chosen side."""
    assert_close(fit_probe(*pairs(1.0, 1.0), l2=0.0, targets=tensor([1.0, 0.5])), tensor([math.log(3)]), **EXACT)


def test_the_penalty_is_on_standardised_features():
    """A feature in other units gives the same scores."""
    torch.manual_seed(0)
    chosen, rejected = torch.randn(40, 3) + 0.3, torch.randn(40, 3)
    units = tensor([1.0, 100.0, 0.01])
    plain, scaled = fit_probe(chosen, rejected, l2=0.1), fit_probe(chosen * units, rejected * units, l2=0.1)
    assert_close((chosen * units) @ scaled, chosen @ plain, **EXACT)
    assert fit_probe(chosen, rejected, l2=10.0).norm() < 0.2 * plain.norm()


def test_equal_weights_and_certain_targets_say_nothing_new():
    torch.manual_seed(1)
    chosen, rejected = torch.randn(40, 3) + 0.3, torch.randn(40, 3)
    plain = fit_probe(chosen, rejected, l2=0.1)
    assert_close(fit_probe(chosen, rejected, l2=0.1, weights=torch.full((40,), 2.0), targets=torch.ones(40)), plain, **EXACT)


def test_a_feature_that_never_varies_is_harmless():
    chosen, rejected = torch.tensor([[1.0, 5.0], [1.0, 5.0]]), torch.tensor([[0.0, 5.0], [0.0, 5.0]])
    weight = fit_probe(chosen, rejected, l2=0.1)
    assert weight.isfinite().all() and weight[0] > 0 and weight[1] == 0
