"""Style of completions, and Bradley-Terry with it as covariates: hand-counted texts, closed forms, and judges who are partial to length."""

import math

import numpy as np
import pytest

from rlhf.analysis.leaderboard import strengths
from rlhf.analysis.style import NAMES, StyledPairs, difference, effects, fit, of_text


def pairs(first, second, score, differ=None, prompt=None):
    """Pairs with these columns; alike in style, and each on a prompt of its own, where nothing else is said."""
    number = len(first)
    return StyledPairs(
        np.array(first), np.array(second), np.array(score, dtype=float),
        np.zeros((number, len(NAMES))) if differ is None else np.array(differ, dtype=float),
        np.arange(number) if prompt is None else np.array(prompt), np.ones(number),
    )  # fmt: skip


def votes(first, second, won, lost, tied=0):
    return [(first, second, 1.0)] * won + [(first, second, 0.0)] * lost + [(first, second, 0.5)] * tied


def by_length(log2_ratio):
    return np.column_stack([log2_ratio, np.zeros((len(log2_ratio), 3))])


@pytest.mark.parametrize(
    "text, markup",
    [
        ("", (0, 0, 0)),
        ("Plain words, 3 of them. 4 - 1 = 3.", (0, 0, 0)),
        ("# One\n\n## Two\ntext\n#no header\n####### seven are none", (2, 0, 0)),
        ("- a\n* b\n  + c\n1. d\n12) e\n-no item\n1.5 is a number", (0, 5, 0)),
        ("**bold** and __bold__, 2 ** 3 ** 4, *slanted*, **over\nlines**", (0, 0, 3)),
        ("**a**\n```python\n# a comment\n- x\n**kwargs**\n```\n# A header", (1, 0, 1)),
        ("```\n# never closed\n- x", (0, 0, 0)),
    ],
)
def test_the_style_of_a_text(text, markup):
    assert of_text(text) == (len(text), *markup)


def test_differences():
    """Twice as long; 3 headers and 1: (3 - 1) / 4; some lists and none: 1; no bold in either: 0. An empty answer has one character."""
    found = difference(np.array([[200.0, 3, 2, 0], [0, 0, 0, 1]]), np.array([[100.0, 1, 0, 0], [8, 0, 0, 2]]))
    assert found == pytest.approx(np.array([[1, 0.5, 1, 0], [-3, 0, 0, -1 / 3]]))


@pytest.mark.parametrize("ties, expected", [(True, math.log(2)), (False, math.log(65 / 35))])
def test_without_a_difference_in_style_two_versions_have_the_odds_of_their_wins(ties, expected):
    found = fit(pairs(*zip(*votes(1, 0, 60, 30, 10), strict=True)), np.array([True, False]), ties=ties)
    assert found.strengths == pytest.approx([0, expected])
    assert found.effects == pytest.approx(np.zeros(4), abs=1e-9)


@pytest.mark.parametrize("ties, method", [(True, "newman"), (False, "bradley_terry")])
def test_without_a_difference_in_style_three_versions_are_as_strong_as_without_covariates(ties, method):
    rows = votes(0, 1, 8, 3, 4) + votes(1, 2, 5, 6, 2) + votes(0, 2, 9, 4, 1)
    counts = np.zeros((3, 3, 3))
    for i, j, score in rows:
        outcome = {1.0: 0, 0.0: 1, 0.5: 2}[score]
        counts[i, j, outcome] += 1
        counts[j, i, [1, 0, 2][outcome]] += 1
    found = fit(pairs(*zip(*rows, strict=True)), np.array([True, False, False]), ties=ties).strengths
    assert found - found.mean() == pytest.approx(strengths(counts, method), abs=1e-4)


def test_the_variance_of_a_strength_is_that_of_its_log_odds():
    """60 of 100 votes on prompts of their own: log odds have variance 1 / 60 + 1 / 40, times 100 / 99 for the number of clusters."""
    found = fit(pairs(*zip(*votes(1, 0, 60, 40), strict=True)), np.array([True, False]), ties=False)
    assert found.covariance[1, 1] == pytest.approx((1 / 60 + 1 / 40) * 100 / 99)
    assert found.covariance[0].tolist() == [0.0] * 6
    # No pair differs in style: the coefficients have their prior's variance.
    assert np.diag(found.covariance)[2:] == pytest.approx([4] * 4)


def test_votes_of_one_prompt_are_one_cluster():
    rows = votes(1, 0, 60, 40)
    tenfold = fit(pairs(*zip(*rows, strict=True), prompt=np.arange(100) // 10), np.array([True, False]), ties=False)
    # Six prompts with ten wins and four with ten losses: ten times the variance of single votes.
    assert tenfold.covariance[1, 1] == pytest.approx((1 / 6 + 1 / 4) * 10 / 9)


def test_a_coefficient_is_the_log_odds_of_votes_on_one_version_drawn_to_zero():
    """300 of 400 votes for the answer twice as long: 300 - 400 sigmoid(b) = b / 4, near log 3."""
    rows = votes(0, 0, 300, 100)
    styled = pairs(*zip(*rows, strict=True), differ=by_length(np.ones(400)))
    found = fit(styled, np.array([True]), ties=False)
    b = found.effects[0]
    assert 300 - 400 / (1 + math.exp(-b)) == pytest.approx(b / 4)
    length = effects(found, styled)[0]
    assert (length.name, length.pairs) == ("length", 400)
    assert length.chance == pytest.approx(0.75, abs=1e-3)
    assert (length.low, length.high) == (pytest.approx(0.705, abs=5e-3), pytest.approx(0.790, abs=5e-3))


def test_votes_that_all_agree_keep_a_finite_coefficient():
    found = fit(pairs([0] * 5, [0] * 5, [1.0] * 5, differ=by_length(np.ones(5))), np.array([True]), ties=False)
    assert 0 < found.effects[0] < 5


@pytest.mark.parametrize("bias", [0.0, 0.8])
def test_the_bias_of_simulated_judges_is_recovered_and_the_ranking_corrected(bias):
    """Version 1 is better by .5 and terse, version 0 writes twice as long; judges add `bias` for a doubled length."""
    rng = np.random.default_rng(0)
    truth, number = np.array([0.0, 0.5]), 4000
    first, second = rng.integers(2, size=(2, number))
    ratio = rng.normal(np.array([1.0, 0.0])[first] - np.array([1.0, 0.0])[second], 0.7)
    lead = truth[first] - truth[second] + bias * ratio
    score = (rng.random(number) < 1 / (1 + np.exp(-lead))).astype(float)
    fixed = np.array([True, False])
    controlled = fit(pairs(first, second, score, differ=by_length(ratio)), fixed, ties=False)
    error = 3 * np.sqrt(np.diag(controlled.covariance))
    assert abs(controlled.effects[0] - bias) < error[2]
    assert abs(controlled.strengths[1] - 0.5) < error[1]
    left_in = fit(pairs(first, second, score), fixed, ties=False).strengths[1]
    assert (left_in < 0) == (bias > 0), "the judges' bias turns the ranking round where it is left in"


def test_intervals_cover_the_coefficient_where_votes_of_a_prompt_resemble_each_other():
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(100):
        prompt = np.repeat(np.arange(80), 5)
        # What a prompt's answers differ in besides is the same for its five votes.
        ratio, besides = np.repeat(rng.normal(size=80), 5), np.repeat(rng.normal(size=80), 5)
        score = (rng.random(400) < 1 / (1 + np.exp(-0.5 * ratio - besides))).astype(float)
        styled = pairs(np.zeros(400, int), np.zeros(400, int), score, differ=by_length(ratio), prompt=prompt)
        found = fit(styled, np.array([True]), ties=False)
        # What is left out draws the coefficient towards 0 by a known factor (Zeger 1988, eq. 3.2).
        marginal = 0.5 / math.sqrt(1 + (16 * math.sqrt(3) / (15 * math.pi)) ** 2)
        covered.append(abs(found.effects[0] - marginal) < 1.96 * math.sqrt(found.covariance[1, 1]))
    assert 0.88 <= np.mean(covered) <= 1.0


def test_too_few_prompts_have_no_interval():
    styled = pairs(*zip(*votes(0, 0, 6, 3), strict=True), differ=by_length(np.ones(9)))
    length, headers, *_ = effects(fit(styled, np.array([True]), ties=False), styled)
    assert length.chance > 0.5 and (length.low, length.high) == (None, None)
    assert (headers.chance, headers.pairs) == (None, 0)
