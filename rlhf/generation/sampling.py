"""Samples tokens from a model's own distribution, each row with its own random numbers.

Plain ancestral sampling: temperature divides the logits, and top-k and top-p are off unless asked for, because PPO's
ratio is only right for tokens sampled from the distribution whose log-probabilities it compares. Leaves out forward passes (`lanes`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rlhf.generation.request import LogitAdjustments
from rlhf.models.lm_head import UnnormalizedSoftmax, row_blocks
from storage.core.records import Sampling


class GeneratedSequence(NamedTuple):
    ids: list[int]
    """Token ids of the answer, with the end-of-sequence token if it was sampled."""
    finish_reason: str
    """`stop` when the model ended the answer, `length` when the token limit did."""


CDF_BLOCK = 256
"""Entries of the vocabulary that are summed together when a token is sampled."""

GOLDEN_GAMMA = -0x61C8864680B583EB
"""2^64 divided by the golden ratio, as a signed number: the step of SplitMix64's counter."""


class SampledTokenStats(NamedTuple):
    """Of the distribution that each row's token was sampled from."""

    logprobs: Float[Tensor, " b"]
    """Of the sampled token, in nats."""
    entropy: Float[Tensor, " b"]
    """In nats."""


def combined_seed(*key: int) -> int:
    """One seed for each key, so that a resumed run samples what an uninterrupted one would have."""
    seed = 0
    for part in key:
        seed = (seed * 1_000_003 + part + 1) % (2**63 - 1)
    return seed


def generator(device: torch.device, *key: int) -> torch.Generator:
    """A random generator of its own for each key."""
    return torch.Generator(device=device).manual_seed(combined_seed(*key))


def uniforms(seeds: Int[Tensor, " b"], positions: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """A random number in [0, 1) for each seed and position: it depends on nothing else, least of all on the rest of the batch.

    SplitMix64 (Steele, Lea & Flood 2014, OOPSLA, fig. 17) as a function of its counter; 53 of its 64 bits are used.
    """
    state = _mix(seeds + GOLDEN_GAMMA)
    bits = _mix(state + (positions + 1) * GOLDEN_GAMMA)
    return _shift(bits, 11).double() * 2.0**-53


def _mix(z: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    # torch's integers are signed and wrap around, so the constants are too.
    z = (z ^ _shift(z, 30)) * -0x40A7B892E31B1A47
    z = (z ^ _shift(z, 27)) * -0x6B2FB644ECCEEE15
    return z ^ _shift(z, 31)


def _shift(z: Int[Tensor, " b"], bits: int) -> Int[Tensor, " b"]:
    """A logical shift to the right, where torch's own copies the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def sample_token(
    logits: Float[Tensor, "b vocab"], sampling: Sampling, u: Float[Tensor, " b"], *, return_stats: bool = False
) -> tuple[Int[Tensor, " b"], SampledTokenStats | None]:
    """One token per row, at temperature 0 the most probable; with `return_stats` also its log-probability and the entropy.

    Args:
        u: a random number in [0, 1) for each row.
    """
    tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    stats = None
    if return_stats:
        stats = SampledTokenStats(*(torch.empty(len(logits), device=logits.device) for _ in SampledTokenStats._fields))
    for rows in row_blocks(len(logits), logits.device):
        tokens[rows], softmax = sample_rows(logits[rows], sampling.temperature, sampling.top_k, sampling.top_p, u[rows])
        if stats is not None:
            stats.logprobs[rows], stats.entropy[rows] = softmax.logprobs(tokens[rows]), softmax.entropy()[:, 0]
    return tokens, stats


def sample_rows(
    logits: Float[Tensor, "b vocab"],
    temperature: float | Float[Tensor, "b 1"],
    top_k: int | Int[Tensor, "b 1"],
    top_p: float | Float[Tensor, "b 1"],
    u: Float[Tensor, " b"],
) -> tuple[Int[Tensor, " b"], UnnormalizedSoftmax]:
    """One token per row, with the distribution at that temperature before top-k and top-p.

    Parameters are the same for all rows, or tensors with one for each, whose values the host never looks at. At temperature 0 the most
    probable token is taken; top-k is off at 0, in a tensor at a number that no vocabulary has.
    """
    if not isinstance(temperature, Tensor):
        softmax = UnnormalizedSoftmax(logits, temperature or 1.0)
        if not temperature:
            return softmax.x.argmax(-1), softmax
        return sample_from_weights(_filter_top_k_top_p(softmax.weights, top_k, top_p), u), softmax
    greedy = temperature <= 0
    softmax = UnnormalizedSoftmax(logits, temperature.masked_fill(greedy, 1.0))
    sampled = sample_from_weights(_filter_top_k_top_p(softmax.weights, top_k, top_p), u)
    return torch.where(greedy[:, 0], softmax.x.argmax(-1), sampled), softmax


def adjusted(logits: Float[Tensor, " vocab"], adjustments: LogitAdjustments, answer: Sequence[int]) -> Float[Tensor, " vocab"]:
    """One row's logits with the penalties for the tokens that the answer has so far, and with the bias."""
    changes = dict.fromkeys(adjustments.bias, 0.0)
    for token, count in Counter(answer).items():
        changes[token] = -adjustments.presence_penalty - adjustments.frequency_penalty * count
    for token, bias in adjustments.bias.items():
        changes[token] += bias
    inside = [token for token in changes if 0 <= token < len(logits)]
    at = torch.tensor(inside, dtype=torch.long, device=logits.device)
    return logits.float().index_add(0, at, torch.tensor([changes[token] for token in inside], device=logits.device))


def processed(
    logits: Float[Tensor, " vocab"], sampling: Sampling, adjustments: LogitAdjustments, answer: Sequence[int]
) -> Float[Tensor, " vocab"]:
    """One row's logits as its next token is sampled from them: adjusted, over the temperature, minus infinity outside top-k and top-p.

    At temperature 0 nothing is divided.
    """
    row = adjusted(logits, adjustments, answer) if adjustments else logits
    softmax = UnnormalizedSoftmax(row[None], sampling.temperature or 1.0)
    kept = _filter_top_k_top_p(softmax.weights, sampling.top_k, sampling.top_p) > 0
    return softmax.x.masked_fill(~kept, -torch.inf)[0]


def likeliest(logits: Float[Tensor, " vocab"], token: int, count: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """The token's log-probability in nats, and the `count` likeliest tokens with theirs."""
    logprobs = logits.float().log_softmax(-1)
    top = logprobs.topk(min(count, len(logprobs)))
    return float(logprobs[token]), tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))


def _filter_top_k_top_p(
    weights: Float[Tensor, "b vocab"], top_k: int | Int[Tensor, "b 1"], top_p: float | Float[Tensor, "b 1"]
) -> Float[Tensor, "b vocab"]:
    """The weights, with 0 outside top-k and top-p."""
    if isinstance(top_k, Tensor):
        kth = weights.sort(descending=True).values.gather(-1, top_k.clamp(max=weights.shape[-1]) - 1)
        weights = weights.masked_fill(weights < kth, 0.0)
    elif top_k:
        kth = weights.topk(min(top_k, weights.shape[-1])).values[:, -1:]
        weights = weights.masked_fill(weights < kth, 0.0)
    if isinstance(top_p, Tensor) or top_p < 1:
        ranked, order = (weights / weights.sum(-1, keepdim=True)).sort(descending=True)
        outside = ranked.cumsum(-1) - ranked >= top_p
        # The most probable token stays however small the nucleus is: float32 rounds a top-p below 1e-45 to 0.
        outside[:, 0].fill_(False)
        nucleus = torch.zeros_like(weights).scatter(-1, order, ranked.masked_fill(outside, 0.0))
        weights = torch.where(top_p < 1, nucleus, weights) if isinstance(top_p, Tensor) else nucleus
    return weights


def sample_from_weights(p: Float[Tensor, "b vocab"], u: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """The token in whose interval of the cumulative weights `u`, in [0, 1), falls: one random number per row.

    Searches the blocks first and then inside one; torch.multinomial takes a random number for every entry of the vocabulary.
    """
    if padding := -p.shape[-1] % CDF_BLOCK:
        p = nn.functional.pad(p, (0, padding))
    blocks = p.view(len(p), -1, CDF_BLOCK)
    block, left = _first_above(blocks.sum(-1, dtype=torch.float64), u)
    inside, _ = _first_above(blocks[torch.arange(len(p), device=p.device), block].double(), left)
    return block * CDF_BLOCK + inside


def _first_above(mass: Float[Tensor, "b n"], u: Float[Tensor, " b"]) -> tuple[Int[Tensor, " b"], Float[Tensor, " b"]]:
    """The first index at which the cumulative mass exceeds `u`, and how far into that entry `u` lies, in [0, 1)."""
    running = mass.cumsum(-1)
    total = running[:, -1]
    # Rounding must not lead past the last entry with any mass, nor weights of NaN past the end.
    at = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    place = torch.searchsorted(running, at[:, None], right=True).clamp_(max=mass.shape[-1] - 1)
    held = mass.gather(-1, place)[:, 0]
    return place[:, 0], (at - (running.gather(-1, place)[:, 0] - held)) / held
