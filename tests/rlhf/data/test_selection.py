"""Choices among candidates: scores worked out by hand, propensities counted, and diversity."""

import math
from collections import Counter

import numpy as np
import pytest

from rlhf.data.selection import Choice, Knowledge, choose, information_of

NOTHING_KNOWN = Knowledge(np.zeros((1, 2)), np.eye(2))


def chosen(difference, prompt, count, *, seed=0, rule="information", knowledge=NOTHING_KNOWN, share=0.05):
    return choose(
        np.array(difference, dtype=float), np.array(prompt), count, np.random.default_rng(seed), rule=rule, knowledge=knowledge,
        random_share=share,
    )  # fmt: skip


def usual(*arguments, **options):
    """The candidates of the most frequent outcome over many seeds: that without a random choice."""
    outcomes = Counter(tuple(c.candidate for c in chosen(*arguments, seed=seed, **options)) for seed in range(40))
    return list(outcomes.most_common(1)[0][0])


def test_information_by_hand():
    """p = 1/2 and 3/4; p (1 - p) = 1/4 and 3/16. The penalty's curvature is 2 n l2."""
    found = information_of(np.array([[0.0, 2.0], [1.0, 0.0]]), np.array([math.log(3), 0.0]), l2=0.5)
    assert found == pytest.approx(np.array([[3 / 16 + 2, 0], [0, 1 + 2]]))


def test_the_most_informative_comparison_comes_first():
    """Unknown direction against a known one; at equal spread the less certain one; at equal certainty the larger difference."""
    known = Knowledge(np.array([[1.0, 0.0]]), np.diag([100.0, 1.0]))
    assert usual([[1, 0], [0, 1]], [0, 1], 1, knowledge=known) == [1]
    equal = Knowledge(np.array([[1.0, 0.0]]), np.eye(2))
    assert usual([[2, 0], [0, 2]], [0, 1], 1, knowledge=equal) == [1]
    assert usual([[0, 1], [0, 3]], [0, 1], 1) == [1]


def test_of_near_duplicates_one_is_asked():
    """The second (3, 0) would add less than (0, 2): 1/4 * 9 / (1 + 9 / 4) = .69 against 1/4 * 4 = 1."""
    assert usual([[3, 0], [3, 0], [0, 2]], [0, 1, 2], 2) == [0, 2]
    heads = Knowledge(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.eye(2))
    assert usual([[3, 0], [2.9, 0], [0, 2]], [0, 1, 2], 2, rule="disagreement", knowledge=heads) == [0, 1]


def test_updates_are_those_of_the_whole_matrix():
    rng = np.random.default_rng(3)
    difference, head = rng.normal(size=(12, 4)), rng.normal(size=4) / 2
    information = information_of(rng.normal(size=(9, 4)), head, l2=0.1)
    order = usual(difference, np.arange(12), 6, knowledge=Knowledge(head[None], information))
    p = 1 / (1 + np.exp(-difference @ head))
    left = list(range(12))
    for candidate in order:
        gains = [np.linalg.slogdet(information + p[i] * (1 - p[i]) * np.outer(difference[i], difference[i]))[1] for i in left]
        assert left[int(np.argmax(gains))] == candidate
        information = information + p[candidate] * (1 - p[candidate]) * np.outer(difference[candidate], difference[candidate])
        left.remove(candidate)


def test_each_prompt_has_its_turn_before_anothers_second():
    difference = [[9, 0], [0, 9], [8, 8], [1, 0], [0, 1]]
    assert {c.candidate for c in chosen(difference, [7, 7, 7, 8, 9], 3)} & {3, 4} == {3, 4}
    everything = chosen(difference, [7, 7, 7, 8, 9], 99)
    assert sorted(c.candidate for c in everything) == [0, 1, 2, 3, 4]


def test_disagreement_is_the_spread_of_the_heads_margins():
    """Margins (1, -1) and (3, 3): the heads agree on the larger one."""
    heads = Knowledge(np.array([[1.0, 1.0], [-1.0, 1.0]]), np.eye(2))
    assert usual([[1, 0], [0, 3]], [0, 1], 1, rule="disagreement", knowledge=heads) == [0]


def test_propensities_are_the_frequencies():
    """A share of .4 is random over four candidates: .1 each, and .6 more for the best."""
    seen = Counter()
    for seed in range(4000):
        (choice,) = chosen([[1, 0], [2, 0], [0, 4], [0, 3]], [0, 1, 2, 3], 1, seed=seed, share=0.4)
        assert choice.propensity == pytest.approx(0.7 if choice.candidate == 2 else 0.1)
        seen[choice.candidate] += 1
    assert [seen[i] / 4000 for i in range(4)] == pytest.approx([0.1, 0.1, 0.7, 0.1], abs=0.02)


@pytest.mark.parametrize("options", [{"rule": "random"}, {"knowledge": None}])
def test_at_random_all_have_the_same_propensity(options):
    assert [c.propensity for c in chosen([[1, 0], [2, 0], [0, 4]], [0, 1, 2], 3, **options)] == pytest.approx([1 / 3, 1 / 2, 1])
    firsts = Counter(chosen([[1, 0], [2, 0], [0, 4]], [0, 1, 2], 1, seed=seed, **options)[0].candidate for seed in range(600))
    assert min(firsts.values()) > 150


def test_nothing_to_choose_from():
    assert choose(np.empty((0, 2)), np.empty(0, int), 3, np.random.default_rng(0), rule="random", knowledge=None) == []
    assert chosen([[1, 0]], [0], 3) == [Choice(0, 1.0)]


@pytest.mark.parametrize("share", [0.0, 0.01, 1.1])
def test_a_random_share_is_always_kept(share):
    with pytest.raises(ValueError, match=r"must be from 0\.05 to 1"):
        chosen([[1, 0]], [0], 1, share=share)


def test_disagreement_needs_an_ensemble():
    with pytest.raises(ValueError, match="disagreement of 1 head"):
        chosen([[1, 0]], [0], 1, rule="disagreement")
