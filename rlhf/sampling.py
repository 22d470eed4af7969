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
from torch import Tensor, nn

from rlhf.backbone import Backbone, pad_left, positions
from rlhf.decoder import RowCache
from rlhf.lora import holding
from storage.records import Sampling


class Sampled(NamedTuple):
    ids: list[int]
    """Token ids of the answer, with the end-of-sequence token if it was drawn."""
    finish_reason: str
    """`stop` when the model ended the answer, `length` when the token limit did."""


BLOCK = 256
"""Entries of the vocabulary that are added up together when a token is drawn."""

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
    cache = RowCache(backbone.base.config, backbone.prefix_width + ids.shape[1] + sampling.max_new_tokens)
    ear = _Ear(backbone, lowest if listen else 0)
    rounded = {}
    with ear.listening(), holding(rounded):
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
        log_p = backbone.logits(hidden).float().div_(sampling.temperature or 1.0).log_softmax(-1)
        p = log_p.exp()
        token = torch.where(is_open, draw(p, sampling, rng), backbone.pad_id)
        heard = _heard(log_p, p, token, hidden, below, alive, total) if listen else None
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
        with ear.listening(), holding(rounded):
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
    log_p: Tensor, p: Tensor, token: Tensor, hidden: Tensor, below: Tensor | None, alive: Tensor, total: int
) -> Heard:
    return Heard(
        _spread(log_p.gather(-1, token[:, None])[:, 0], alive, total, 0.0),
        _spread(-(p * log_p).sum(-1), alive, total, 0.0),
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


def draw(p: Float[Tensor, "b vocab"], sampling: Sampling, rng: torch.Generator) -> Int[Tensor, " b"]:
    """One token per row, of probabilities that have seen the temperature. Temperature 0 takes the likeliest."""
    if sampling.temperature == 0:
        return p.argmax(-1)
    if sampling.top_k:
        kth = p.topk(min(sampling.top_k, p.shape[-1])).values[:, -1:]
        p = p.masked_fill(p < kth, 0.0)
    if sampling.top_p < 1:
        ranked, order = (p / p.sum(-1, keepdim=True)).sort(descending=True)
        p = torch.zeros_like(p).scatter(-1, order, ranked.masked_fill(ranked.cumsum(-1) - ranked >= sampling.top_p, 0.0))
    return pick(p, torch.rand(len(p), generator=rng, device=p.device, dtype=torch.float64))


def pick(p: Float[Tensor, "b vocab"], u: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """The token in whose share of the cumulative weights `u`, in [0, 1), falls: one random number a row.

    Looks for the block first and then into it; torch's own way draws a number for every entry of the vocabulary.
    """
    if spare := -p.shape[-1] % BLOCK:
        p = nn.functional.pad(p, (0, spare))
    blocks = p.view(len(p), -1, BLOCK)
    block, left = _first_above(blocks.sum(-1, dtype=torch.float64), u)
    inside, _ = _first_above(blocks[torch.arange(len(p), device=p.device), block].double(), left)
    return block * BLOCK + inside


def _first_above(mass: Float[Tensor, "b n"], u: Float[Tensor, " b"]) -> tuple[Int[Tensor, " b"], Float[Tensor, " b"]]:
    """The first place where the running share exceeds `u`, and which share of that place `u` has come to."""
    running = mass.cumsum(-1)
    total = running[:, -1]
    # Rounding must not lead past the last place that holds anything.
    at = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    place = torch.searchsorted(running, at[:, None], right=True)
    held = mass.gather(-1, place)[:, 0]
    return place[:, 0], (at - (running.gather(-1, place)[:, 0] - held)) / held


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
