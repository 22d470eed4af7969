"""A linear probe: the head that separates chosen from rejected on fixed features.

Pure torch, no backbone: a probe can be fitted to any features, on any subset of the pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rlhf.reward.preference_losses import bradley_terry

MAX_ITERATIONS = 200


class Features(NamedTuple):
    """The frozen base's features of the two sides of n pairs."""

    chosen: Float[Tensor, "n d"]
    rejected: Float[Tensor, "n d"]


def fit_probe(
    chosen: Float[Tensor, "n d"],
    rejected: Float[Tensor, "n d"],
    *,
    l2: float,
    weights: Float[Tensor, " n"] | None = None,
    targets: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, " d"]:
    """Logistic regression without intercept on standardised feature differences: Bradley and Terry (1952) with linear strengths.

    Args:
        l2: penalty per squared weight on standardised features, beside the mean loss of a pair.
        weights: how much each pair counts; only their ratios matter.
        targets: probability that the chosen side is the better one, 1 where it is not given.
    """

    def loss(difference: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        losses = bradley_terry(difference, target=1.0 if targets is None else targets)
        return losses.mean() if weights is None else (weights * losses).sum() / weights.sum()

    return minimise(chosen, rejected, loss, l2=l2)


def minimise(
    chosen: Float[Tensor, "n d"],
    rejected: Float[Tensor, "n d"],
    loss: Callable[[Float[Tensor, " n"]], Float[Tensor, ""]],
    *,
    l2: float,
    extra_parameters: Sequence[Float[Tensor, "..."]] = (),
) -> Float[Tensor, " d"]:
    """The weights `w` for which `loss(w @ (chosen - rejected)) + l2 |w|^2` is smallest, on standardised features.

    Args:
        extra_parameters: parameters of the loss itself, fitted together with the weights and without a penalty.
    """
    scale = torch.cat([chosen, rejected]).std(0).clamp(min=1e-6)
    difference = (chosen - rejected) / scale
    weight = torch.zeros(difference.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, *extra_parameters], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        value = loss(difference @ weight) + l2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        return value

    with torch.enable_grad():
        optimizer.step(objective)  # type: ignore[no-untyped-call]  # torch leaves it without types
    return (weight / scale).detach()
