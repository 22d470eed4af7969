"""Negative log-likelihoods of preference labels given the difference of scores, one number per pair.

Pure formulas over `difference = score of the chosen side - score of the rejected one`, so that adding a constant to all
scores of a prompt changes nothing. Weights and batches are in `targets`.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

Number = float | Tensor


def bradley_terry(difference: Float[Tensor, "*n"], *, margin: Number = 0.0, target: Number = 1.0) -> Float[Tensor, "*n"]:
    """-log P(chosen is better), with P = sigmoid(difference) (Bradley and Terry 1952).

    Args:
        margin: how much better the chosen side must be at least (Touvron 2023, Llama 2, eq. 2).
        target: probability that the chosen side is the better one; below 1 the loss is the cross entropy with it.
    """
    ahead = difference - margin
    return -target * logsigmoid(ahead) - (1 - target) * logsigmoid(-ahead)


def rao_kupper(
    difference: Float[Tensor, "*n"], tie: Bool[Tensor, "*#n"], *, threshold: Number, margin: Number = 0.0, target: Number = 1.0
) -> Float[Tensor, "*n"]:
    """Pairs of which some are ties: sides whose strengths are too close are indistinguishable (Rao and Kupper 1967, eq. 2.7).

    P(chosen) = sigmoid(difference - threshold), P(tie) = (theta^2 - 1) P(chosen) P(rejected), theta = exp(threshold).

    Args:
        threshold: log theta, above 0; near 0 there are no ties.
    """
    ahead = difference - margin
    won, lost = logsigmoid(ahead - threshold), logsigmoid(-ahead - threshold)
    tied = torch.log(torch.expm1(2 * torch.as_tensor(threshold, dtype=ahead.dtype))) + won + lost
    return -torch.where(tie, tied, target * won + (1 - target) * lost)


def davidson(
    difference: Float[Tensor, "*n"], tie: Bool[Tensor, "*#n"], *, log_nu: Number, margin: Number = 0.0, target: Number = 1.0
) -> Float[Tensor, "*n"]:
    """Pairs of which some are ties: a tie is as likely as nu times the geometric mean of both sides (Davidson 1970, eq. 2.2).

    P(chosen), P(rejected), P(tie) = softmax(difference / 2, -difference / 2, log nu).
    """
    half = (difference - margin) / 2
    ways = torch.stack([half, -half, torch.as_tensor(log_nu, dtype=half.dtype).expand_as(half)])
    won, lost, tied = ways - ways.logsumexp(0)
    return -torch.where(tie, tied, target * won + (1 - target) * lost)


def plackett_luce(difference: Float[Tensor, "n ..."], stage: Int[Tensor, " n"]) -> Float[Tensor, "s ..."]:
    """-log P of each successive choice of the best remaining completion (Plackett 1975; Luce 1959).

    One stage is one choice: the completion against all that rank below it, log(1 + sum over those of exp(-difference)).

    Args:
        stage: which choice a pair belongs to, 0 to s - 1, none of them empty.
    """
    stages = int(stage.max()) + 1
    index = stage.view(-1, *[1] * (difference.dim() - 1)).expand_as(difference)
    zero = difference.new_zeros(stages, *difference.shape[1:])
    # The largest exponent of each stage, at least the chosen completion's own 0, is subtracted before exp, against overflow.
    largest = zero.scatter_reduce(0, index, -difference.detach(), "amax")
    lower = zero.scatter_add(0, index, (-difference - largest.gather(0, index)).exp())
    return largest + (lower + (-largest).exp()).log()
