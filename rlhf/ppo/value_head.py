"""The value head: what the rest of an answer will be paid, told from what has been read of it so far.

Scores are about whole answers: a mean over them, or a sum. So a position's value is linear not in its own hidden state
alone, but also in the mean over the answer so far, and in that mean as far as the answer has come, which is a sum.
(docs/research/benchmarks.md has what that is worth.) The head starts at 0, or at the linear fit to the returns of one batch that the
untrained policy drew: the reward model's own weights cannot be taken over, for it reads another layer, through another adapter.
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
    """Linear in a position's hidden state, the mean of those so far, and mean and 1 times the share of `longest` that is read."""

    def __init__(self, hidden_size: int, longest: int, device: torch.device | str = "cpu"):
        super().__init__(3 * hidden_size + 1, 1, device=device)
        self.longest = longest
        # A value that starts at 0 says nothing; one that starts at random says something wrong.
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def inputs(self, hidden: Float[Tensor, "b t d"]) -> Float[Tensor, "b t 3*d+1"]:
        """Of answers that begin in the first column; a position's inputs know nothing of later ones."""
        read = torch.arange(1, hidden.shape[1] + 1, dtype=hidden.dtype, device=hidden.device)[:, None]
        total, share = hidden.cumsum(1), read / self.longest
        return torch.cat([hidden, total / read, total / self.longest, share.expand(len(hidden), -1, -1)], dim=-1)

    def forward(self, hidden: Float[Tensor, "b t d"]) -> Float[Tensor, "b t"]:
        return super().forward(self.inputs(hidden))[..., 0]


class HiddenRecorder(nn.Module):
    """Stands in for a value head while a batch is collected, and keeps what such a head would have read."""

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
    """Sets the head to the linear fit to what each position's rest was paid, without a KL penalty: the policy is the reference."""
    nothing = torch.zeros(mask.shape, device=mask.device)
    _, returns = gae(rewards_with_kl(scores, nothing, mask, 0.0), nothing, mask, gamma=gamma, lam=1.0)
    weight, bias = linear_fit(head.inputs(hidden)[mask], returns[mask])
    head.weight.copy_(weight[None])
    head.bias.copy_(bias)
