"""From hidden states to log-probabilities, a few rows at a time: [rows, vocabulary] never stands in memory whole.

The gradient of a chosen token's log-probability needs no second look at the logits: it is made on the way forward.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

ROWS = 256
"""Positions whose logits exist at one time."""


class Chosen(NamedTuple):
    logprobs: Float[Tensor, " n"]
    """Of the given token under softmax(logits / temperature), in nats."""
    entropy: Float[Tensor, " n"] | None
    """Of that distribution, in nats; None where nobody asked."""


def chosen(
    head: nn.Linear, hidden: Float[Tensor, "n d"], ids: Int[Tensor, " n"], temperature: float, *, entropy: bool = False
) -> Chosen:
    """Log-probability of each token, and the entropy it was drawn with if asked for: that costs a product more.

    Both carry gradients to `hidden`; the head is frozen.
    """
    logprobs, entropies = _Chosen.apply(hidden, head.weight, head.bias, ids, temperature, entropy)
    return Chosen(logprobs, entropies if entropy else None)


def of_logits(logits: Float[Tensor, "n vocab"], ids: Int[Tensor, " n"], temperature: float) -> Chosen:
    """As `chosen`, from logits that somebody else made; all of them stand in memory."""
    log_p = (logits.float() / temperature).log_softmax(-1)
    return Chosen(log_p.gather(-1, ids[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1))


class _Chosen(torch.autograd.Function):
    """Softmax, logarithm and gather in float32 over logits that are divided by the temperature."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, ids, temperature, with_entropy):
        n = len(hidden)
        logprobs, entropies = (torch.empty(n, device=hidden.device) for _ in range(2))
        wanted = ctx.needs_input_grad[0]
        to_chosen = torch.empty_like(hidden) if wanted else None
        to_entropy = torch.empty_like(hidden) if wanted and with_entropy else None
        for start in range(0, n, ROWS):
            rows = slice(start, start + ROWS)
            # Every pass over these is as dear as the memory they lie in: shares, not probabilities, and few of them.
            logits = nn.functional.linear(hidden[rows], weight, bias)
            x = logits.float()
            x -= logits.amax(-1, keepdim=True)
            if temperature != 1:
                x /= temperature
            share = x.exp()
            total = share.sum(-1, keepdim=True)
            logprobs[rows] = (x.gather(-1, ids[rows, None]) - total.log())[:, 0]
            if wanted:
                # d log p(y) / d hidden = (W_y - sum_v p_v W_v) / T
                mean = (share.to(weight.dtype) @ weight) / total
                to_chosen[rows] = (weight[ids[rows]] - mean) / temperature
            if with_entropy:
                # H = log sum_v e^x_v - sum_v p_v x_v
                weighed = x.mul_(share)
                entropy = total.log() - weighed.sum(-1, keepdim=True) / total
                entropies[rows] = entropy[:, 0]
            if to_entropy is not None:
                # d H / d hidden = -sum_v p_v (log p_v + H) W_v / T, and log p_v = x_v - log sum_v e^x_v
                weighed += share.mul_(entropy - total.log())
                to_entropy[rows] = -((weighed / total).to(weight.dtype) @ weight) / temperature
        ctx.save_for_backward(to_chosen, to_entropy)
        return logprobs, entropies

    @staticmethod
    def backward(ctx, of_logprobs, of_entropy):
        to_chosen, to_entropy = ctx.saved_tensors
        grad = of_logprobs[:, None].to(to_chosen.dtype) * to_chosen
        if to_entropy is not None:
            grad = grad + of_entropy[:, None].to(to_entropy.dtype) * to_entropy
        return grad, None, None, None, None, None
