"""Draws completions from the model's own distribution, one token at a time.

Plain ancestral sampling: temperature divides the logits, and top-k and top-p are off unless asked for, because PPO's
ratio is only right for tokens drawn from the distribution whose log-probabilities it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from rlhf.backbone import Backbone, pad_left, positions
from storage.records import Sampling


class Sampled(NamedTuple):
    ids: list[int]
    """Token ids of the answer, with the end-of-sequence token if it was drawn."""
    finish_reason: str
    """`stop` when the model ended the answer, `length` when the token limit did."""


class Step(NamedTuple):
    """One position of a batch that is being drawn."""

    tokens: Int[Tensor, " b"]
    open_rows: Bool[Tensor, " b"]
    """Which rows had not ended before this token; the others hold padding."""


def generator(device: torch.device, *key: int) -> torch.Generator:
    """A random stream of its own for each key, so that a resumed run draws what an unbroken one would have."""
    seed = 0
    for part in key:
        seed = (seed * 1_000_003 + part + 1) % (2**63 - 1)
    return torch.Generator(device=device).manual_seed(seed)


@torch.inference_mode()
def stream(
    backbone: Backbone, prompts: Sequence[Sequence[int]], sampling: Sampling, rng: torch.Generator
) -> Iterator[Step]:
    """Draws position by position, until every row has ended or the limit is reached.

    A row's end-of-sequence token belongs to the row; after it the row holds padding, even where both share an id.
    """
    ids, mask = (x.to(backbone.device) for x in pad_left(prompts, backbone.pad_id))
    cache = DynamicCache(config=backbone.base.config)
    open_rows = torch.ones(len(prompts), dtype=torch.bool, device=backbone.device)
    step_ids, step_positions = ids, positions(mask)
    for _ in range(sampling.max_new_tokens):
        out = backbone.model(
            input_ids=step_ids, attention_mask=mask.long(), position_ids=step_positions, past_key_values=cache,
            use_cache=True, logits_to_keep=1,
        )
        token = draw(out.logits[:, -1].float(), sampling, rng)
        token = torch.where(open_rows, token, backbone.pad_id)
        yield Step(token, open_rows)
        open_rows = open_rows & (token != backbone.eos_id)
        if not open_rows.any():
            return
        step_positions = mask.sum(-1, keepdim=True)
        step_ids = token[:, None]
        mask = torch.cat([mask, torch.ones_like(step_ids, dtype=torch.bool)], dim=-1)


def draw(logits: Float[Tensor, "b vocab"], sampling: Sampling, rng: torch.Generator) -> Int[Tensor, " b"]:
    """One token per row. Temperature 0 takes the likeliest."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    if sampling.top_k:
        kth = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    if sampling.top_p < 1:
        ranked, order = logits.sort(descending=True)
        before = ranked.softmax(-1).cumsum(-1) - ranked.softmax(-1)
        logits = logits.scatter(-1, order, ranked.masked_fill(before >= sampling.top_p, float("-inf")))
    return torch.multinomial(logits.softmax(-1), 1, generator=rng)[:, 0]


def gather(steps: Iterable[Step], rows: int, eos_id: int, tick: Callable[[], None] = lambda: None) -> list[Sampled]:
    """Puts the steps of a batch together into its answers; `tick` is called at every position."""
    ids: list[list[int]] = [[] for _ in range(rows)]
    for step in steps:
        for i in step.open_rows.nonzero()[:, 0].tolist():
            ids[i].append(int(step.tokens[i]))
        tick()
    return [Sampled(row, "stop" if row and row[-1] == eos_id else "length") for row in ids]


def sample(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    rng: torch.Generator,
    tick: Callable[[], None] = lambda: None,
) -> list[Sampled]:
    """Answers each prompt once with whatever adapter is in use."""
    return gather(stream(backbone, prompts, sampling, rng), len(prompts), backbone.eos_id, tick)
