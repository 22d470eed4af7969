"""The losses: each on strengths for which the paper's probabilities are fractions, and the properties that all have."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from rlhf.reward.preference_losses import bradley_terry, davidson, plackett_luce, rao_kupper

log = math.log
SCORES = st.lists(st.floats(-20, 20), min_size=2, max_size=9)
NUMBER = st.floats(-20, 20)


def test_bradley_terry_of_strengths_3_and_1():
    """P = 3 / (3 + 1)."""
    assert_close(bradley_terry(tensor([log(3), -log(3)])), tensor([-log(0.75), -log(0.25)]))


def test_a_margin_asks_for_more():
    assert_close(bradley_terry(tensor([log(3) + 1, log(3)]), margin=tensor([1.0, 0.0])), tensor([-log(0.75), -log(0.75)]))


def test_a_target_is_a_share_of_both_outcomes():
    """With target 1/2, half of -log 3/4 and half of -log 1/4; with 3/4, the entropy, which nothing can be below."""
    found = bradley_terry(tensor([log(3), log(3)]), target=tensor([0.5, 0.75]))
    assert_close(found, tensor([-log(0.75) / 2 - log(0.25) / 2, -0.75 * log(0.75) - 0.25 * log(0.25)]))


def test_rao_kupper_of_strengths_2_and_1_with_theta_2():
    """2/(2+2*1) = 1/2, 1/(2*2+1) = 1/5, and (4-1)*2*1 / ((2+2)(4+1)) = 3/10 for the tie."""
    won, lost, tied = rao_kupper(tensor([log(2), -log(2), log(2)]), tensor([False, False, True]), threshold=log(2))
    assert_close(tensor([won, lost, tied]), -tensor([1 / 2, 1 / 5, 3 / 10]).log())


def test_davidson_of_strengths_4_and_1_with_nu_half():
    """4, 1 and 1/2 * sqrt(4 * 1) = 1, of 6."""
    won, lost, tied = davidson(tensor([log(4), -log(4), log(4)]), tensor([False, False, True]), log_nu=log(0.5))
    assert_close(tensor([won, lost, tied]), -tensor([4 / 6, 1 / 6, 1 / 6]).log())


def test_a_pair_is_a_tie_for_every_member_of_an_ensemble():
    """The members' differences stand in columns, and the marks of ties in one: the same fractions as above, each row a pair."""
    difference, tie = tensor([[log(2), -log(2)], [log(2), log(2)]]), tensor([[False], [True]])
    assert_close(rao_kupper(difference, tie, threshold=log(2)), -tensor([[1 / 2, 1 / 5], [3 / 10, 3 / 10]]).log())
    difference = tensor([[log(4), -log(4)], [log(4), log(4)]])
    assert_close(davidson(difference, tie, log_nu=log(0.5)), -tensor([[4 / 6, 1 / 6], [1 / 6, 1 / 6]]).log())


def test_margins_and_targets_reach_the_tie_terms_too():
    half = tensor([0.5])
    no = tensor([False])
    found = rao_kupper(tensor([log(2) + 1]), no, threshold=log(2), margin=tensor([1.0]), target=half)
    assert_close(found, tensor([-log(1 / 2) / 2 - log(1 / 5) / 2]))
    found = davidson(tensor([log(4) + 1]), no, log_nu=log(0.5), margin=tensor([1.0]), target=half)
    assert_close(found, tensor([-log(4 / 6) / 2 - log(1 / 6) / 2]))


def test_plackett_luce_of_strengths_4_2_1():
    """4/7 for the first pick, 2/3 for the second."""
    differences = tensor([log(4) - log(2), log(4) - log(1), log(2) - log(1)])
    assert_close(plackett_luce(differences, tensor([0, 0, 1])), -tensor([4 / 7, 2 / 3]).log())


def test_plackett_luce_takes_several_columns_and_large_differences():
    differences = tensor([[1000.0, -1000.0], [999.0, -1000.0]])
    assert_close(plackett_luce(differences, tensor([0, 0])), tensor([[0.0, 1000 + log(2)]]))


def ranked(scores):
    """Differences of all pairs of a ranking in this order, and the pick that each belongs to."""
    k = len(scores)
    of = [(i, j) for i in range(k) for j in range(i + 1, k)]
    return tensor([scores[i] - scores[j] for i, j in of], dtype=torch.float64), tensor([i for i, _ in of])


@given(SCORES)
def test_plackett_luce_is_its_definition(scores):
    """Of each pick: log of the sum over all that are left, less the score of the picked one."""
    left = tensor(scores, dtype=torch.float64)
    expected = torch.stack([left[i:].logsumexp(0) - left[i] for i in range(len(scores) - 1)])
    assert_close(plackett_luce(*ranked(scores)), expected)


@given(NUMBER, NUMBER)
def test_all_losses_agree_on_two_completions(first, second):
    differences, stage = ranked([first, second])
    assert_close(plackett_luce(differences, stage), bradley_terry(differences))


@given(SCORES, st.floats(-100, 100))
def test_a_shift_of_all_scores_changes_nothing(scores, shift):
    before, stage = ranked(scores)
    after, _ = ranked([s + shift for s in scores])
    tie = stage % 2 == 0
    close = {"atol": 1e-9, "rtol": 1e-9}
    assert_close(bradley_terry(after), bradley_terry(before), **close)
    assert_close(plackett_luce(after, stage), plackett_luce(before, stage), **close)
    assert_close(rao_kupper(after, tie, threshold=0.3), rao_kupper(before, tie, threshold=0.3), **close)
    assert_close(davidson(after, tie, log_nu=0.3), davidson(before, tie, log_nu=0.3), **close)


@given(NUMBER, st.floats(0, 1), st.floats(0.01, 3), st.floats(-3, 3))
def test_which_side_is_called_chosen_does_not_matter(difference, target, threshold, log_nu):
    d = tensor([difference], dtype=torch.float64)
    for tie in (tensor([True]), tensor([False])):
        assert_close(rao_kupper(d, tie, threshold=threshold, target=target), rao_kupper(-d, tie, threshold=threshold, target=1 - target))
        assert_close(davidson(d, tie, log_nu=log_nu, target=target), davidson(-d, tie, log_nu=log_nu, target=1 - target))
    assert_close(bradley_terry(d, target=target), bradley_terry(-d, target=1 - target))


@given(NUMBER, st.floats(0.01, 3), st.floats(-3, 3))
def test_three_outcomes_have_probability_1_together(difference, threshold, log_nu):
    d = tensor([difference, -difference, difference], dtype=torch.float64)
    outcome = tensor([False, False, True])
    for losses in (rao_kupper(d, outcome, threshold=threshold), davidson(d, outcome, log_nu=log_nu)):
        assert_close((-losses).exp().sum(), tensor(1.0, dtype=torch.float64))


@given(NUMBER)
def test_without_ties_both_tie_models_are_bradley_terry(difference):
    d, no = tensor([difference], dtype=torch.float64), tensor([False])
    assert_close(rao_kupper(d, no, threshold=0.0), bradley_terry(d))
    assert_close(davidson(d, no, log_nu=-math.inf), bradley_terry(d))
