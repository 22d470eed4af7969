"""Draws completions from the model's own distribution, one token at a time.

Plain ancestral sampling: temperature divides the logits, and top-k and top-p are off unless asked for, because PPO's
ratio is only right for tokens drawn from the distribution whose log-probabilities it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlhf.backbone import Backbone, pad_left, positions
from rlhf.decoder import RowCache
from rlhf.vocabulary import of_logits
from storage.records import Sampling


class Sampled(NamedTuple):
    ids: list[int]
    """Token ids of the answer, with the end-of-sequence token if it was drawn."""
    finish_reason: str
    """`stop` when the model ended the answer, `length` when the token limit did."""


LEAVE_AT = 0.75
"""Rows that have ended leave the batch when no more than this share of it is still open."""


class Heard(NamedTuple):
    """What was read on the way to one position's tokens; means nothing for rows that had ended."""

    logprobs: Float[Tensor, " b"]
    """Of each token under the distribution it was drawn from, in nats."""
    entropy: Float[Tensor, " b"]
    hidden: Float[Tensor, "b d"]
    """The last hidden state, which the token was drawn from."""
    below: Float[Tensor, "b n d"] | None
    """The residual stream after the lowest layers at the positions just read: the prompt's first, then one by one."""


class Step(NamedTuple):
    """One position of a batch that is being drawn."""

    tokens: Int[Tensor, " b"]
    open_rows: Bool[Tensor, " b"]
    """Which rows had not ended before this token; the others hold padding."""
    heard: Heard | None = None


def generator(device: torch.device, *key: int) -> torch.Generator:
    """A random stream of its own for each key, so that a resumed run draws what an unbroken one would have."""
    seed = 0
    for part in key:
        seed = (seed * 1_000_003 + part + 1) % (2**63 - 1)
    return torch.Generator(device=device).manual_seed(seed)


@torch.no_grad()
def stream(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    rng: torch.Generator,
    *,
    listen: bool = False,
    lowest: int = 0,
) -> Iterator[Step]:
    """Draws position by position, until every row has ended or the limit is reached.

    A row's end-of-sequence token belongs to the row; after it the row holds padding, even where both share an id. Equal
    prompts are read once, and rows that have ended are read no further.

    Args:
        listen: tell what was read on the way, so that nobody need read it again.
        lowest: with `listen`, how many of the lowest layers to tell the residual stream after; 0 for none.
    """
    distinct = list(dict.fromkeys(map(tuple, prompts)))
    place = {prompt: i for i, prompt in enumerate(distinct)}
    ids, mask = (x.to(backbone.device) for x in pad_left(distinct, backbone.pad_id))
    cache = RowCache(backbone.base.config, ids.shape[1] + sampling.max_new_tokens)
    ear = _Ear(backbone, lowest if listen else 0)
    with ear.listening():
        hidden = backbone.decoder.read(ids, mask, positions=positions(mask), cache=cache.cache)[:, -1]
    rows = torch.tensor([place[tuple(prompt)] for prompt in prompts], device=backbone.device)
    below = ear.heard(rows)
    if len(distinct) < len(prompts):
        cache.select(rows)
    hidden, mask = hidden[rows], mask[rows]

    total = len(prompts)
    # Which of the rows asked for are still read, and which of those are still open.
    alive = torch.arange(total, device=backbone.device)
    is_open = torch.ones(total, dtype=torch.bool, device=backbone.device)
    for position in range(sampling.max_new_tokens):
        logits = backbone.logits(hidden).float()
        token = torch.where(is_open, draw(logits, sampling, rng), backbone.pad_id)
        heard = _heard(logits, token, hidden, below, sampling.temperature, alive, total) if listen else None
        yield Step(_spread(token, alive, total, backbone.pad_id), _spread(is_open, alive, total, False), heard)
        is_open = is_open & (token != backbone.eos_id)
        remaining = int(is_open.sum())
        if not remaining or position + 1 == sampling.max_new_tokens:
            return
        if cache.rows_may_leave and remaining <= LEAVE_AT * len(alive):
            kept = is_open.nonzero()[:, 0]
            cache.select(kept)
            alive, is_open, token, mask = alive[kept], is_open[kept], token[kept], mask[kept]
        places = mask.sum(-1, keepdim=True)
        mask = torch.cat([mask, torch.ones_like(token[:, None], dtype=torch.bool)], dim=-1)
        with ear.listening():
            hidden = backbone.decoder.read(token[:, None], mask, positions=places, cache=cache.cache)[:, -1]
        below = ear.heard(torch.arange(len(alive), device=backbone.device))


class _Ear:
    """Catches the residual stream after the lowest layers while the decoder reads."""

    def __init__(self, backbone: Backbone, lowest: int):
        self.backbone, self.lowest = backbone, lowest
        self._caught: list[Tensor] = []

    def listening(self) -> AbstractContextManager:
        self._caught.clear()
        return self.backbone.decoder.watching(self.lowest, self._caught.append) if self.lowest else nullcontext()

    def heard(self, rows: Int[Tensor, " n"]) -> Float[Tensor, "n t d"] | None:
        return self._caught[0][rows] if self._caught else None


def _heard(
    logits: Tensor, token: Tensor, hidden: Tensor, below: Tensor | None, temperature: float, alive: Tensor, total: int
) -> Heard:
    read = of_logits(logits, token, temperature or 1.0)
    return Heard(
        _spread(read.logprobs, alive, total, 0.0),
        _spread(read.entropy, alive, total, 0.0),
        _spread(hidden, alive, total, 0.0),
        None if below is None else _spread(below, alive, total, 0.0),
    )


def _spread(of_rows: Tensor, alive: Int[Tensor, " n"], total: int, otherwise: float | bool) -> Tensor:
    """Puts what the rows still read have to say in its place among all rows."""
    if len(alive) == total:
        return of_rows
    every = of_rows.new_full((total, *of_rows.shape[1:]), otherwise)
    every[alive] = of_rows
    return every


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
