"""The sequential test: wealth worked out by hand, the laws that its error rate stands on, and coverage by simulation."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.analysis.sequential_test import assess, log_wealth

E2 = math.exp(-2)
"""As alpha, with 200 units at most: the first bet is sqrt(2 * 2 / (1/4 * 100)) = .4."""

OUTCOMES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=60)


def wealth(*outcomes):
    return np.exp(log_wealth(np.array(outcomes), alpha=E2, most=200)).tolist()


def test_the_first_bet_is_two_fifths():
    """1 + .4 * (1 - 1/2), and 1 + .4 * (0 - 1/2)."""
    assert wealth(1.0) == pytest.approx([1.2])
    assert wealth(0.0) == pytest.approx([0.8])


def test_the_second_bet_knows_the_variance_of_the_first_outcome():
    """A win: mean (1/2 + 1) / 2 = 3/4, variance (1/4 + 1/16) / 2 = 5/32. A tie: mean 1/2, variance (1/4 + 0) / 2 = 1/8."""
    assert wealth(1.0, 1.0)[1] == pytest.approx(1.2 * (1 + math.sqrt(4 / (5 / 32 * 100)) / 2))
    assert wealth(0.5, 1.0)[1] == pytest.approx(1 + math.sqrt(4 / (1 / 8 * 100)) / 2)


def test_no_bet_risks_more_than_half_of_the_wealth():
    """After n ties the variance is 1/4 / (n + 1) and the bet .4 sqrt(n + 1): above 1 from the sixth on."""
    assert wealth(*[0.5] * 5, 1.0)[-1] == pytest.approx(1 + 0.4 * math.sqrt(6) / 2)
    assert wealth(*[0.5] * 6, 1.0)[-1] == pytest.approx(1.5)
    assert wealth(*[0.5] * 150, 0.0)[-1] == pytest.approx(0.5)


def test_before_the_first_outcome_nothing_is_known():
    found = assess([])
    assert (found.verdict, found.units, found.win_rate, found.likely_needed) == ("continue", 0, None, None)
    assert (found.low, found.high, found.evidence_better, found.evidence_worse) == (0.0, 1.0, 1.0, 1.0)


def test_nine_wins_in_a_row_promote_and_eight_do_not():
    """By hand, with a loop of its own: the wealth is 18.6 after eight wins and 22.9 after nine; 1 / alpha is 20."""
    total, seen, mean, squares = 1.0, [], 0.5, 0.25
    for n in range(1, 10):
        bet = min(1.0, math.sqrt(2 * math.log(20) / (squares / n * 100)))
        total *= 1 + bet / 2
        seen.append(1.0)
        mean = (0.5 + n) / (n + 1)
        squares += (1 - mean) ** 2
        found = assess(seen)
        assert found.evidence_better == pytest.approx(total)
        assert found.verdict == ("promote" if n == 9 else "continue")
    assert total == pytest.approx(22.9, abs=0.05)
    assert found.likely_needed is None
    assert assess([0.0] * 9).verdict == "reject"


def test_the_last_unit_rejects_what_was_not_promoted():
    assert assess([0.5] * 199).verdict == "continue"
    assert assess([0.5] * 200).verdict == "reject"
    assert assess([0.5] * 3, most=3).verdict == "reject"


def test_outcomes_beyond_the_last_unit_do_not_enter():
    late = assess([0.5] * 20 + [1.0] * 100, most=20)
    assert (late.verdict, late.units, late.win_rate) == ("reject", 20, 0.5)


def test_the_pace_so_far_says_how_many_more_are_likely_needed():
    """Seven of ten: the estimate is right for a version that wins seven of ten, give or take; a draw has no end in sight."""
    assert assess([1, 1, 0, 1, 1, 0, 1, 1, 0, 1]).likely_needed == 36
    assert assess([1, 0] * 10).likely_needed is None
    assert assess([1, 1, 0, 1, 1, 0, 1, 1, 0, 1], most=40).likely_needed is None, "46 are more than 40"


@pytest.mark.parametrize("truth", [0.65, 0.75])
def test_what_is_likely_needed_is_what_is_needed(truth):
    """The median over simulated runs, after 20 units: within a factor of two of the units that they did need."""
    rng = np.random.default_rng(0)
    runs = (rng.random((300, 400)) < truth).astype(float)
    said, needed = [], []
    for run in runs:
        if (found := assess(run[:20].tolist())).verdict == "continue":
            said.append(found.likely_needed or 1000)
            needed.append(int((log_wealth(run, alpha=0.05, most=200) >= math.log(20)).argmax()) - 19)
    assert np.median(needed) / 2 < np.median(said) < 2 * np.median(needed)


@pytest.mark.parametrize("tie", [0.0, 1 / 3, 0.7])
def test_without_a_difference_the_expected_wealth_is_one(tie):
    """Exactly, over all sequences of losses, ties and wins: what makes Ville's inequality hold."""
    runs = np.array(list(product([0.0, 0.5, 1.0], repeat=7)))
    probability = np.where(runs == 0.5, tie, (1 - tie) / 2).prod(axis=1)
    assert probability @ np.exp(log_wealth(runs, alpha=0.05, most=200)) == pytest.approx(np.ones(7))


@given(OUTCOMES)
def test_wins_and_losses_are_treated_alike(outcomes):
    found, turned = assess(outcomes), assess([1 - x for x in outcomes])
    assert (found.evidence_better, found.evidence_worse) == pytest.approx((turned.evidence_worse, turned.evidence_better))
    assert (found.low, found.high) == pytest.approx((1 - turned.high, 1 - turned.low), abs=1e-9)
    assert found.likely_needed == turned.likely_needed
    assert {found.verdict, turned.verdict} in ({"continue"}, {"promote", "reject"})


@given(OUTCOMES, OUTCOMES)
def test_a_verdict_stays_whatever_comes_after_it(seen, later):
    verdict = assess(seen).verdict
    assert verdict in ("continue", assess(seen + later).verdict)


@given(OUTCOMES)
def test_the_interval_is_one(outcomes):
    found = assess(outcomes)
    assert 0 <= found.low <= found.high <= 1


def test_at_the_lower_end_half_of_the_wealth_is_the_goal():
    """Twenty wins, five losses: the gambler who bets that the mean is above `low` has 2 / alpha."""
    x = [1.0] * 20 + [0.0] * 5
    low, total, squares, seen = assess(x).low, 1.0, 0.25, 0.5
    for n, outcome in enumerate(x, start=1):
        total *= 1 + min(0.5 / low, math.sqrt(2 * math.log(40) / (squares / n * 100))) * (outcome - low)
        seen += outcome
        squares += (outcome - seen / (n + 1)) ** 2
    assert 0.4 < low < 0.6
    assert total == pytest.approx(40)


@pytest.mark.parametrize("truth", [0.5, 0.8])
def test_the_intervals_of_all_looks_together_cover_the_truth(truth):
    rng = np.random.default_rng(1)
    runs = (rng.random((300, 100)) < truth).astype(float)
    looks = [[assess(run[:n].tolist()) for n in range(10, 101, 10)] for run in runs]
    missed = np.mean([any(not look.low <= truth <= look.high for look in of_run) for of_run in looks])
    assert missed <= 0.05
    assert np.mean([of_run[-1].high - of_run[-1].low for of_run in looks]) < 0.35


def test_no_difference_is_promoted_in_one_run_of_twenty_at_most():
    rng = np.random.default_rng(2)
    runs = rng.choice([0.0, 0.5, 1.0], p=[0.35, 0.3, 0.35], size=(4000, 200))
    promoted = (log_wealth(runs, alpha=0.05, most=200) >= math.log(20)).any(axis=1).mean()
    assert 0.02 < promoted <= 0.05


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"outcomes": [1.5]}, "outcome 1.5: must be from 0"),
        ({"outcomes": [float("nan")]}, "outcome nan"),
        ({"outcomes": [], "alpha": 0.0}, "alpha 0.0: must be above 0"),
        ({"outcomes": [], "most": 0}, "most 0: must be at least 1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        assess(**arguments)
