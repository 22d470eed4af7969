"""The formulas of PPO on token sequences, pure and by themselves. Masks are true on response tokens.

Sources: Schulman 2015 (GAE, arXiv 1506.02438), Schulman 2017 (PPO, 1707.06347), Ziegler 2019 (1909.08593), Schulman 2020
(Approximating KL Divergence, joschu.net/blog/kl-approx.html). docs/research/ppo.md has the whole list, with the test of each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masked_mean(x: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, ""]:
    """Mean over the tokens that the mask holds."""
    return (x * mask).sum() / mask.sum()


def whiten(x: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"], *, shift_mean: bool = True) -> Float[Tensor, "b t"]:
    """Scales to standard deviation 1 over the masked tokens, and to mean 0 unless `shift_mean` is off.

    Values outside the mask come back as 0.
    """
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    whitened = (x - mean) * torch.rsqrt(variance + 1e-8)
    return (whitened if shift_mean else whitened + mean) * mask


def kl_per_token(
    logprobs: Float[Tensor, "b t"], ref_logprobs: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"], *, estimator: str = "k1"
) -> Float[Tensor, "b t"]:
    """KL(policy || reference) of tokens that the policy sampled, in nats; 0 outside the mask (Schulman 2020).

    With r = reference / policy: k1 = -log r, k3 = (r - 1) - log r. Both are right on average; k3 varies less near the
    reference and is never negative.
    """
    k1 = (logprobs - ref_logprobs) * mask
    return k1 if estimator == "k1" else torch.expm1(-k1) + k1


def rewards_with_kl(
    scores: Float[Tensor, " b"], kl: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"], kl_coef: float
) -> Float[Tensor, "b t"]:
    """`rewards = -kl_coef * kl`, plus the score at the last response token (Ziegler 2019, section 2); 0 outside the mask."""
    rewards = -kl_coef * kl
    last = mask.sum(-1) - 1
    rewards[torch.arange(len(scores)), last] += scores
    return rewards


def gae(
    rewards: Float[Tensor, "b t"], values: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"], *, gamma: float, lam: float
) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b t"]]:
    """Generalised advantage estimation (Schulman 2015, eq. 16): A_t = delta_t + gamma lam A_{t+1}.

    A response ends at its last masked token: the value after it is 0.

    Returns:
        advantages, and returns = advantages + values; both 0 outside the mask.
    """
    values = values * mask
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = (delta + gamma * lam * following) * mask[:, t]
        advantages[:, t] = following
        next_value = values[:, t]
    return advantages, (advantages + values) * mask


MAX_LOG_RATIO = 20.0
"""Bound of a log-ratio between two engines, in nats, so that one token that they see quite differently leaves a mean finite."""


def importance_ratio(
    logprobs: Float[Tensor, "b t"], rollout_logprobs: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"]
) -> Float[Tensor, "b t"]:
    """Each token's probability under the policy as the trainer computes it, over that under the engine that sampled it; 1 outside the mask.

    Its mean over sampled tokens is 1 where both have the same distribution. Truncated from above it is the weight of the token's policy
    loss (truncated importance sampling: Ionides 2008, doi 10.1198/106186008X320456; Espeholt 2018, arXiv 1802.01561, section 4).
    """
    return ((logprobs - rollout_logprobs) * mask).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


class PolicyLoss(NamedTuple):
    loss: Float[Tensor, ""]
    clipfrac: Float[Tensor, ""]
    """Fraction of tokens whose ratio was clipped."""
    approxkl: Float[Tensor, ""]
    """Half the mean squared log-ratio to the policy that sampled, in nats."""
    ratio: Float[Tensor, ""]


def policy_loss(
    logprobs: Float[Tensor, "b t"],
    old_logprobs: Float[Tensor, "b t"],
    advantages: Float[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    *,
    clip: float,
    weights: Float[Tensor, "b t"] | None = None,
) -> PolicyLoss:
    """The clipped surrogate, negated (Schulman 2017, eq. 7).

    Args:
        weights: of each token's term, without a gradient; None for the same weight on all.
    """
    # Outside the mask the log-ratio is of padding: 0 there keeps exp() finite.
    log_ratio = (logprobs - old_logprobs) * mask
    ratio = log_ratio.exp()
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    terms = torch.maximum(plain, clipped)
    return PolicyLoss(
        loss=masked_mean(terms if weights is None else weights * terms, mask),
        clipfrac=masked_mean((clipped > plain).float(), mask).detach(),
        approxkl=masked_mean(0.5 * log_ratio**2, mask).detach(),
        ratio=masked_mean(ratio, mask).detach(),
    )


def value_loss(
    values: Float[Tensor, "b t"],
    old_values: Float[Tensor, "b t"],
    returns: Float[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    *,
    clip: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Half the squared error, the worse of plain and clipped around the old value (Huang et al. 2024, detail 13).

    Returns:
        the loss, and the fraction of tokens where the clipped error was the worse.
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    plain_error, clipped_error = (values - returns) ** 2, (clipped - returns) ** 2
    loss = 0.5 * masked_mean(torch.maximum(plain_error, clipped_error), mask)
    return loss, masked_mean((clipped_error > plain_error).float(), mask).detach()


def adapted_kl_coef(kl_coef: float, kl: float, *, target: float, completions: int, horizon: int) -> float:
    """The next step's KL coefficient (Ziegler 2019, section 2.2); unchanged when target is 0.

    Args:
        kl: mean KL per completion of this step, in nats.
        completions: how many completions this step held.
    """
    if target == 0:
        return kl_coef
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * completions / horizon)


def explained_variance(values: Float[Tensor, "b t"], returns: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> float:
    """1 - Var(returns - values) / Var(returns) over response tokens; 0 means that the values predict nothing."""
    spread = returns[mask].var(unbiased=False)
    return float(1 - (returns - values)[mask].var(unbiased=False) / spread) if spread > 0 else 0.0
