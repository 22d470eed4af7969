"""A value head that begins by knowing what the reward model would say.

The reward model reads a mean over the whole answer in a middle layer; the value head reads one position of the last layer,
before the answer is whole. Its weights can therefore not be taken over. What can be taken over is its judgment: the head
starts as the linear fit, on the value head's own inputs, to the returns of one batch that the untrained policy drew.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rlhf.ppo_math import gae, rewards_with_kl

L2 = 30.0
"""Penalty per squared weight on standardised inputs, beside the mean squared error.

Positions of one answer have one score, so answers are the cases, and a batch holds few (docs/ppo.md has what others did).
"""


class Overheard(nn.Module):
    """Stands in for a value head while a batch is collected, and keeps what such a head would have read."""

    hidden: Float[Tensor, "b t d"]

    def forward(self, hidden: Float[Tensor, "b t d"]) -> Float[Tensor, "b t 1"]:
        self.hidden = hidden
        return torch.zeros(*hidden.shape[:-1], 1, device=hidden.device)


def linear_fit(
    inputs: Float[Tensor, "n d"], targets: Float[Tensor, " n"], *, l2: float = L2
) -> tuple[Float[Tensor, " d"], Float[Tensor, ""]]:
    """Ridge regression: the weights w and the bias b that minimise mean (inputs w + b - targets)^2 + l2 |w * std|^2.

    The bias is free, and an input that never varies gets the weight 0.
    """
    inputs, targets = inputs.double(), targets.double()
    mean, std = inputs.mean(0), inputs.std(0, unbiased=False)
    standard = torch.where(std > 1e-6, (inputs - mean) / std.clamp(min=1e-6), 0.0)
    gram = standard.T @ standard / len(inputs) + l2 * torch.eye(inputs.shape[1], dtype=torch.double, device=inputs.device)
    weights = torch.linalg.solve(gram, standard.T @ (targets - targets.mean()) / len(inputs)) / std.clamp(min=1e-6)
    return weights.float(), (targets.mean() - mean @ weights).float()


@torch.no_grad()
def start_from_returns(
    head: nn.Linear, hidden: Float[Tensor, "b t d"], scores: Float[Tensor, " b"], mask: Bool[Tensor, "b t"], *, gamma: float
) -> None:
    """Sets the head to the linear fit to what each position's rest was paid, without a KL penalty: the policy is the reference."""
    nothing = torch.zeros(mask.shape, device=mask.device)
    _, returns = gae(rewards_with_kl(scores, nothing, mask, 0.0), nothing, mask, gamma=gamma, lam=1.0)
    weight, bias = linear_fit(hidden[mask], returns[mask])
    head.weight.copy_(weight[None])
    head.bias.copy_(bias)
