"""The formulas, against values worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from rlhf.ppo.ppo_math import (
    adapted_kl_coef,
    explained_variance,
    gae,
    importance_ratio,
    kl_per_token,
    masked_mean,
    policy_loss,
    rewards_with_kl,
    value_loss,
    whiten,
)


def row(*values):
    return torch.tensor([values], dtype=torch.float32)


def mask(*values):
    return torch.tensor([values], dtype=torch.bool)


def test_masked_mean_is_over_tokens_not_rows():
    assert_close(
        masked_mean(torch.tensor([[1.0, 2.0, 99.0], [6.0, 99.0, 99.0]]), torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()), torch.tensor(3.0)
    )


def test_whiten_scales_and_shifts_what_the_mask_holds():
    # mean 4, standard deviation 2
    assert_close(whiten(row(2, 6, 99), mask(1, 1, 0)), row(-1, 1, 0))
    assert_close(whiten(row(2, 6, 99), mask(1, 1, 0), shift_mean=False), row(3, 5, 0))


def test_whiten_of_a_constant_is_finite():
    assert_close(whiten(row(5, 5), mask(1, 1)), row(0, 0))


def test_rewards_are_the_kl_penalty_and_the_score_on_the_last_real_token():
    logprobs = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, -1.0]])
    ref_logprobs = torch.tensor([[-1.5, -1.0, -9.0], [-1.0, -2.0, -3.0]])
    real = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    scores = torch.tensor([2.0, -1.0])
    given_ = [x.clone() for x in (scores, logprobs, ref_logprobs, real)]

    kl = kl_per_token(logprobs, ref_logprobs, real)
    rewards = rewards_with_kl(scores, kl, real, 0.1)

    assert_close(kl, torch.tensor([[0.5, -1.0, 0.0], [0.0, 1.0, 2.0]]))
    assert_close(rewards, torch.tensor([[-0.05, 2.1, 0.0], [0.0, -0.1, -1.2]]))
    for before, after in zip(given_, (scores, logprobs, ref_logprobs, real), strict=True):
        assert torch.equal(before, after), "an input was changed"


def test_rewards_without_a_penalty_leave_the_kl_as_it_is():
    kl = kl_per_token(row(-1, -1), row(-2, -3), mask(1, 1))
    assert_close(rewards_with_kl(torch.tensor([1.0]), kl, mask(1, 1), 0.0), row(0, 1))
    assert_close(kl, row(1, 2))


def test_gae_by_hand():
    # delta: 2 - (-1) = 3; .9 (-1) - 1 = -1.9; 1 + .9 - .5 = 1.4; gamma lam = .72. The fourth column is padding.
    advantages, returns = gae(row(1, 0, 2, 7), row(0.5, 1, -1, 9), mask(1, 1, 1, 0), gamma=0.9, lam=0.8)
    assert_close(advantages, row(1.5872, 0.26, 3, 0))
    assert_close(returns, row(2.0872, 1.26, 2, 0))


def test_gae_with_lambda_0_is_the_temporal_difference():
    advantages, _ = gae(row(1, 2), row(10, 20), mask(1, 1), gamma=0.5, lam=0.0)
    assert_close(advantages, row(1 + 0.5 * 20 - 10, 2 - 20))


def test_padding_does_not_reach_the_rows_tokens():
    short = gae(row(1, 2), row(3, 4), mask(1, 1), gamma=0.9, lam=0.7)
    long = gae(row(1, 2, 50, 60), row(3, 4, 70, 80), mask(1, 1, 0, 0), gamma=0.9, lam=0.7)
    for a, b in zip(short, long, strict=True):
        assert_close(a, b[:, :2])
        assert_close(b[:, 2:], row(0, 0))


numbers = st.floats(-5, 5, width=32)


@given(st.lists(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6), min_size=1, max_size=4))
def test_with_lambda_and_gamma_1_returns_are_the_rewards_to_go(rows):
    width = max(map(len, rows))
    real = torch.tensor([[i < len(r) for i in range(width)] for r in rows])
    # Padding holds garbage on purpose.
    rewards = torch.tensor([[r[i][0] if i < len(r) else 3.0 for i in range(width)] for r in rows])
    values = torch.tensor([[r[i][1] if i < len(r) else 4.0 for i in range(width)] for r in rows])
    advantages, returns = gae(rewards, values, real, gamma=1.0, lam=1.0)
    to_go = torch.tensor([[sum(x[0] for x in r[i:]) if i < len(r) else 0.0 for i in range(width)] for r in rows])
    assert_close(advantages + values * real, to_go, atol=1e-4, rtol=1e-4)
    assert_close(returns, to_go, atol=1e-4, rtol=1e-4)


def test_policy_loss_clips_gains_in_both_directions_and_never_losses():
    ratios, advantages = [1.5, 0.5, 1.5, 0.5], [1.0, -1.0, -1.0, 1.0]
    old = torch.full((1, 5), -2.0)
    new = (old + torch.tensor([[*map(math.log, ratios), 80.0]])).requires_grad_()
    out = policy_loss(new, old, row(*advantages, 5), mask(1, 1, 1, 1, 0), clip=0.2)
    # -1.2 and .8 are the clipped ones; 1.5 and -.5 are not.
    assert_close(out.loss, torch.tensor((-1.2 + 0.8 + 1.5 - 0.5) / 4))
    assert_close(out.clipfrac, torch.tensor(0.5))
    assert_close(out.ratio, torch.tensor(1.0))
    assert_close(out.approxkl, torch.tensor((2 * math.log(1.5) ** 2 + 2 * math.log(0.5) ** 2) / 8))
    out.loss.backward()
    # d(-A r)/d logprob = -A r, over 4 tokens; nothing where the clip holds, nothing from padding.
    assert_close(new.grad, row(0, 0, 1.5 / 4, -0.5 / 4, 0))


def test_policy_loss_inside_the_clip_range_is_the_plain_surrogate():
    new, old = row(math.log(1.1), math.log(0.9)), row(0, 0)
    out = policy_loss(new, old, row(2, 3), mask(1, 1), clip=0.2)
    assert_close(out.loss, torch.tensor(-(2.2 + 2.7) / 2))
    assert out.clipfrac == 0


def test_a_weight_multiplies_its_token_in_the_policy_loss_and_in_nothing_else():
    new, old = row(math.log(1.1), math.log(0.9), 5).requires_grad_(), row(0, 0, 0)
    out = policy_loss(new, old, row(2, 3, 7), mask(1, 1, 0), clip=0.2, weights=row(3, 0.5, 9))
    assert_close(out.loss, torch.tensor(-(3 * 2.2 + 0.5 * 2.7) / 2))
    assert_close(out.ratio, torch.tensor(1.0))
    out.loss.backward()
    assert_close(new.grad, row(-3 * 2.2 / 2, -0.5 * 2.7 / 2, 0))


def test_the_importance_ratio_is_of_the_trainers_probability_to_the_engines():
    here, there = row(math.log(0.6), math.log(0.1), 0, 40, -3), row(math.log(0.3), math.log(0.4), -9999, 0, 50)
    # A token that an engine finds all but impossible stays finite, and padding counts as equal.
    expected = row(2, 0.25, math.exp(20), math.exp(20), 1)
    assert_close(importance_ratio(here, there, mask(1, 1, 1, 1, 0)), expected)


def test_value_loss_takes_the_worse_of_plain_and_clipped():
    # returns 1 from an old value of 0: .5 is held at .2 (error .64), -.5 is worse as it is (2.25)
    values = row(0.5, -0.5, 40).requires_grad_()
    loss, clipfrac = value_loss(values, row(0, 0, 0), row(1, 1, 0), mask(1, 1, 0), clip=0.2)
    assert_close(loss, torch.tensor(0.5 * (0.64 + 2.25) / 2))
    assert_close(clipfrac, torch.tensor(0.5))
    loss.backward()
    assert_close(values.grad, row(0, -1.5 / 2, 0))


@pytest.mark.parametrize(
    "kl, expected",
    [
        (12, 0.1 * (1 + 0.2 * 64 / 2000)),
        (6.6, 0.1 * (1 + 0.1 * 64 / 2000)),
        (6, 0.1),
        (0, 0.1 * (1 - 0.2 * 64 / 2000)),
        (-3, 0.1 * (1 - 0.2 * 64 / 2000)),
    ],
)
def test_kl_controller_is_zieglers(kl, expected):
    assert adapted_kl_coef(0.1, kl, target=6, completions=64, horizon=2000) == pytest.approx(expected, rel=1e-9)


def test_kl_controller_is_off_without_a_target():
    assert adapted_kl_coef(0.1, 50, target=0, completions=64, horizon=2000) == 0.1


def test_explained_variance_by_hand():
    # residuals 0, 0, -1: variance 2/9; returns 1, 2, 3: variance 2/3
    assert explained_variance(row(1, 2, 4, 9), row(1, 2, 3, 0), mask(1, 1, 1, 0)) == pytest.approx(2 / 3)
    assert explained_variance(row(0, 0), row(1, 1), mask(1, 1)) == 0.0
