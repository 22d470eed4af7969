"""The value head: predicts the return of the rest of an answer from the hidden states of the tokens so far.

Scores are about whole answers: a mean over them, or a sum. So a position's value is linear not in its own hidden state
alone, but also in the mean over the answer so far, and in that mean as far as the answer has come, which is a sum.
(docs/research/benchmarks.md has what that is worth.) The head starts at 0, or at the linear fit to the returns of one batch that the
untrained policy sampled. The reward model's weights cannot be copied: they belong to another layer and another adapter.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rlhf.ppo.ppo_math import gae, rewards_with_kl

L2 = 30.0
"""Penalty per squared weight on standardised inputs, beside the mean squared error.

Positions of one answer have one score, so answers are the cases, and a batch holds few (docs/research/ppo.md has what others did).
"""


class ValueHead(nn.Linear):
    """Linear in a position's hidden state, the mean of those so far, and and the mean and 1 both times position / `longest`."""

    def __init__(self, hidden_size: int, longest: int, device: torch.device | str = "cpu"):
        super().__init__(3 * hidden_size + 1, 1, device=device)
        self.longest = longest
        # Zero is neutral; random weights would start with wrong values.
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def inputs(self, hidden: Float[Tensor, "b t d"]) -> Float[Tensor, "b t 3*d+1"]:
        """Inputs for answers that begin in the first column; those of a position do not depend on later ones."""
        position = torch.arange(1, hidden.shape[1] + 1, dtype=hidden.dtype, device=hidden.device)[:, None]
        total, share = hidden.cumsum(1), position / self.longest
        return torch.cat([hidden, total / position, total / self.longest, share.expand(len(hidden), -1, -1)], dim=-1)

    def forward(self, hidden: Float[Tensor, "b t d"]) -> Float[Tensor, "b t"]:
        return super().forward(self.inputs(hidden))[..., 0]


class HiddenRecorder(nn.Module):
    """Stands in for a value head while a batch is collected, and records the hidden states that the head would get."""

    hidden: Float[Tensor, "b t d"]

    def forward(self, hidden: Float[Tensor, "b t d"]) -> Float[Tensor, "b t"]:
        self.hidden = hidden
        return torch.zeros(hidden.shape[:-1], device=hidden.device)


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
def init_from_returns(
    head: ValueHead, hidden: Float[Tensor, "b t d"], scores: Float[Tensor, " b"], mask: Bool[Tensor, "b t"], *, gamma: float
) -> None:
    """Sets the head to the linear fit to each position's return, without a KL penalty, because the policy is still the reference."""
    zeros = torch.zeros(mask.shape, device=mask.device)
    _, returns = gae(rewards_with_kl(scores, zeros, mask, 0.0), zeros, mask, gamma=gamma, lam=1.0)
    weight, bias = linear_fit(head.inputs(hidden)[mask], returns[mask])
    head.weight.copy_(weight[None])
    head.bias.copy_(bias)
