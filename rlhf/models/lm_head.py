"""From hidden states to log-probabilities, a few rows at a time: [rows, vocabulary] is never in memory as a whole.

The gradient of a token's log-probability is computed during the forward pass, so that the logits need not be kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

ROWS = 256
"""Positions whose logits exist at one time."""

BLOCK = 16
"""Of those, positions that a processor works through at one time: few enough that they stay in its cache."""


COLD = 1e-3
"""Below this temperature, a difference of logits divided by it may exceed float32."""

COLDEST = 1e-30
"""Lower temperatures are raised to this one, because float32 cannot hold them; the softmax is one-hot long before."""


class TokenLogprobs(NamedTuple):
    logprobs: Float[Tensor, " n"]
    """Of the given token under softmax(logits / temperature), in nats."""
    entropy: Float[Tensor, " n"] | None
    """Of that distribution, in nats; None if it was not asked for."""


class UnnormalizedSoftmax:
    """softmax(logits / temperature) in float32, not yet divided by its sum: fewer passes over the vocabulary."""

    def __init__(self, logits: Float[Tensor, "n vocab"], temperature: float | Float[Tensor, "n 1"]):
        self.x = logits.to(torch.float32, copy=True)
        """Logits over the temperature, less the row's largest."""
        self.x -= logits.amax(-1, keepdim=True)
        if isinstance(temperature, Tensor):
            # As below, for whatever values the rows have: the host does not look at them.
            self.x /= temperature.clamp(min=COLDEST)
            self.x.clamp_(min=torch.finfo(torch.float32).min)
        elif temperature != 1:
            self.x /= max(temperature, COLDEST)
            if temperature < COLD:
                # Minus infinity times a probability of 0 would make the entropy NaN.
                self.x.clamp_(min=torch.finfo(torch.float32).min)
        self.weights = self.x.exp()
        self.total = self.weights.sum(-1, keepdim=True)

    def logprobs(self, ids: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        return (self.x.gather(-1, ids[:, None]) - self.total.log())[:, 0]

    def entropy(self) -> Float[Tensor, "n 1"]:
        """H = log sum_v e^x_v - sum_v p_v x_v"""
        return self.total.log() - (self.weights * self.x).sum(-1, keepdim=True) / self.total

    def entropy_grad_factors(self, entropy: Float[Tensor, "n 1"]) -> Float[Tensor, "n vocab"]:
        """-d H / d x: p_v (log p_v + H), where log p_v = x_v - log sum_v e^x_v."""
        return (self.x + (entropy - self.total.log())) * self.weights / self.total


def row_blocks(rows: int, device: torch.device) -> Iterator[slice]:
    """Cuts rows into blocks that are processed at one time."""
    size = BLOCK if device.type == "cpu" else ROWS
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def token_logprobs(
    head: nn.Linear, hidden: Float[Tensor, "n d"], ids: Int[Tensor, " n"], temperature: float, *, entropy: bool = False
) -> TokenLogprobs:
    """Log-probability of each token; with `entropy` also that of its distribution, which costs one more product.

    Both carry gradients to `hidden`; the head is frozen.
    """
    logprobs, entropies = TokenLogprobsFunction.apply(  # type: ignore[no-untyped-call]  # torch leaves it without types
        hidden, head.weight, head.bias, ids, temperature, entropy
    )
    return TokenLogprobs(logprobs, entropies if entropy else None)


def token_logprobs_from_logits(logits: Float[Tensor, "n vocab"], ids: Int[Tensor, " n"], temperature: float) -> TokenLogprobs:
    """As `token_logprobs`, from given logits, which are all in memory."""
    log_p = (logits.float() / temperature).log_softmax(-1)
    return TokenLogprobs(log_p.gather(-1, ids[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1))


class TokenLogprobsFunction(torch.autograd.Function):
    """Products over ROWS positions, everything between them one block at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "n d"],
        weight: Float[Tensor, "vocab d"],
        bias: Float[Tensor, " vocab"] | None,
        ids: Int[Tensor, " n"],
        temperature: float,
        with_entropy: bool,
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        n = len(hidden)
        logprobs, entropies = (torch.empty(n, device=hidden.device) for _ in range(2))
        # Gradients of both results with respect to `hidden`, where the backward pass needs them.
        needs_grad = ctx.needs_input_grad[0]
        logprob_grad = torch.empty_like(hidden) if needs_grad else None
        entropy_grad = torch.empty_like(hidden) if needs_grad and with_entropy else None
        for start in range(0, n, ROWS):
            rows = slice(start, min(start + ROWS, n))
            logits = nn.functional.linear(hidden[rows], weight, bias)
            entropy_weights = None if entropy_grad is None else torch.empty_like(logits)
            totals = torch.empty(len(logits), 1, device=hidden.device)
            for block in row_blocks(len(logits), hidden.device):
                block_rows = slice(start + block.start, start + block.stop)
                softmax = UnnormalizedSoftmax(logits[block], temperature)
                logprobs[block_rows] = softmax.logprobs(ids[block_rows])
                totals[block] = softmax.total
                if with_entropy:
                    entropy = softmax.entropy()
                    entropies[block_rows] = entropy[:, 0]
                    if entropy_weights is not None:
                        entropy_weights[block] = softmax.entropy_grad_factors(entropy)
                if needs_grad:
                    # These logits are not needed any more, so their memory holds the weights that are.
                    logits[block] = softmax.weights
            if logprob_grad is not None:
                # d log p(y) / d hidden = (W_y - sum_v p_v W_v) / T
                logprob_grad[rows] = (weight[ids[rows]] - (logits @ weight) / totals) / temperature
            if entropy_grad is not None and entropy_weights is not None:
                entropy_grad[rows] = -(entropy_weights @ weight) / temperature
        ctx.save_for_backward(logprob_grad, entropy_grad)
        return logprobs, entropies

    @staticmethod
    def backward(
        ctx: Any, grad_logprobs: Float[Tensor, " n"], grad_entropies: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n d"], None, None, None, None, None]:
        logprob_grad, entropy_grad = ctx.saved_tensors
        grad = grad_logprobs[:, None].to(logprob_grad.dtype) * logprob_grad
        if entropy_grad is not None:
            grad = grad + grad_entropies[:, None].to(entropy_grad.dtype) * entropy_grad
        return grad, None, None, None, None, None
