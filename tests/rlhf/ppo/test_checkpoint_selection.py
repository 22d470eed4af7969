"""The yardstick beside PPO and the rule that keeps a policy, against values worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from rlhf.ppo.checkpoint_selection import PolicyMetrics, best, best_of_n_kl, n_at_kl, smoothed
from rlhf.ppo.checkpoint_tracker import CheckpointTracker
from rlhf.runs.results import KLStop


@pytest.mark.parametrize("n, kl", [(1, 0.0), (2, 0.193147), (4, 0.636294), (16, 1.835089), (64, 3.174508)])
def test_kl_of_best_of_n_is_the_published_formula(n, kl):
    assert best_of_n_kl(n) == pytest.approx(kl, abs=1e-6)


@pytest.mark.parametrize("n", [2, 5, 30])
def test_kl_of_best_of_n_is_that_of_the_highest_of_n_ranks(n):
    """The rank of the best of n has the density n u^(n-1) where the base's own has 1."""
    found, _ = quad(lambda u: n * u ** (n - 1) * math.log(n * u ** (n - 1)), 0, 1)
    assert best_of_n_kl(n) == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize("kl, most, n", [(0.0, 64, 1), (-0.1, 64, 1), (0.19, 64, 2), (1.8, 64, 15), (1.82, 64, 16), (10.0, 8, 8)])
def test_n_comes_nearest_to_the_kl_within_its_cap(kl, most, n):
    # Best of 15 is at 1.7747 nats, best of 16 at 1.8351.
    assert n_at_kl(kl, most) == n


def test_smoothing_is_the_mean_with_the_neighbours_there_are():
    assert smoothed([0.0, 3.0, 6.0, 0.0]) == pytest.approx([1.5, 3.0, 3.0, 3.0])
    assert smoothed([2.0]) == [2.0] and smoothed([]) == []


def of(*metrics):
    return [PolicyMetrics(*f) for f in metrics]


def test_the_best_is_the_highest_after_smoothing_and_the_earliest_of_equals():
    # Smoothed: 0, 3, 4, 4.33, 3: one lucky batch at step 1 does not win.
    measured = of((0, 0), (0, 1), (9, 2), (3, 3), (1, 4), (5, 5))
    assert smoothed([m.score for m in measured]) == pytest.approx([0, 3, 4, 13 / 3, 3, 3])
    assert best(measured, 0.0) == 3
    assert best(of((1, 0), (1, 1), (1, 2)), 0.0) == 0


def test_the_best_is_within_the_kl_budget():
    measured = of((0, 0), (1, 1), (2, 5), (9, 9))
    assert best(measured, 0.0) == 3
    assert best(measured, 5.0) == 2, "the budget itself is within; what lies beyond still smooths"
    assert best(measured, 1.0) == 1
    assert best(of((0, 2), (5, 3)), 1.0) == 0, "none within: the reference"


figure = st.tuples(st.integers(-3, 3), st.integers(0, 5))


@given(st.lists(figure, min_size=1, max_size=12), st.sampled_from([0.0, 2.0]))
def test_the_best_of_all_was_never_let_go(metrics, budget):
    tracker = CheckpointTracker(budget, keep_best=True)
    for i, f in enumerate(metrics):
        tracker.update(PolicyMetrics(*f), {"w": torch.tensor([float(i)])})
        assert len(tracker.weights) <= 2
    policy = {"w": torch.tensor([-1.0])}
    said = tracker.restore(policy)
    expected = best(of(*metrics), budget)
    assert policy["w"].item() == expected == said.step
    assert (said.conservative_score, said.kl, said.steps) == (*metrics[expected], len(metrics) - 1)


def test_a_budget_is_left_by_going_beyond_it():
    tracker = CheckpointTracker(2.0, keep_best=False)
    assert not tracker.kl_exceeded and tracker.stopped_by_kl() is None
    tracker.update(PolicyMetrics(0.5, 2.0), {})
    assert not tracker.kl_exceeded
    tracker.update(PolicyMetrics(0.7, 2.1), {})
    assert tracker.kl_exceeded and tracker.stopped_by_kl() == KLStop(step=2, kl=2.1, budget=2.0)
    assert tracker.weights == {}


def test_without_a_budget_nothing_is_beyond_it():
    tracker = CheckpointTracker(0.0, keep_best=False)
    tracker.update(PolicyMetrics(0.0, 1e9), {})
    assert not tracker.kl_exceeded
