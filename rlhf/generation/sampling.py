"""Draws completions from the model's own distribution, one token at a time.

Plain ancestral sampling: temperature divides the logits, and top-k and top-p are off unless asked for, because PPO's
ratio is only right for tokens drawn from the distribution whose log-probabilities it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Literal, NamedTuple, overload

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rlhf.models.backbone import Backbone, pad_left, positions
from rlhf.models.decoder import BatchKVCache, CachedHidden, Decoder
from rlhf.models.lm_head import UnnormalizedSoftmax, row_blocks
from rlhf.models.lora import CastWeights, cast_weight_cache
from storage.core.records import Sampling


class GeneratedSequence(NamedTuple):
    ids: list[int]
    """Token ids of the answer, with the end-of-sequence token if it was drawn."""
    finish_reason: str
    """`stop` when the model ended the answer, `length` when the token limit did."""


CDF_BLOCK = 256
"""Of the vocabulary, that are added up together when a token is drawn."""

CHUNK_COLUMNS, CHUNK_TOKENS = 512, 2048
"""Of prompts, read at once where others wait for their turn: columns of a batch, and tokens of all its rows together."""

COMPACT_AT = 0.75
"""Rows that have ended leave the batch when no more than this share of it is still open."""


class SampledTokenStats(NamedTuple):
    """Of the distribution that each row's token was sampled from."""

    logprobs: Float[Tensor, " b"]
    """Of the sampled token, in nats."""
    entropy: Float[Tensor, " b"]
    """In nats."""


class StepStats(NamedTuple):
    """What was read on the way to one position's tokens; means nothing for rows that had ended."""

    logprobs: Float[Tensor, " b"]
    """Of each token under the distribution it was drawn from, in nats."""
    entropy: Float[Tensor, " b"]
    hidden: Float[Tensor, "b d"]
    """The last hidden state, which the token was drawn from."""


class DecodeStep(NamedTuple):
    """One position of a batch that is being drawn."""

    tokens: Int[Tensor, " b"]
    active_rows: Bool[Tensor, " b"]
    """Which rows had not ended before this token; the others hold padding."""
    stats: StepStats | None = None


def generator(device: torch.device, *key: int) -> torch.Generator:
    """A random stream of its own for each key, so that a resumed run draws what an unbroken one would have."""
    seed = 0
    for part in key:
        seed = (seed * 1_000_003 + part + 1) % (2**63 - 1)
    return torch.Generator(device=device).manual_seed(seed)


class PrefixActivationCache:
    """What the lowest layers made of a batch while it was drawn, so that nobody need read it through them again.

    Every row is kept to its end: the last token drawn is read too, and so is an end-of-sequence token where none was drawn.
    """

    def __init__(self, decoder: Decoder, depths: Iterable[int]):
        self.decoder = decoder
        self.depths = sorted({depth for depth in depths if depth})
        self._caught: dict[int, Tensor] = {}
        self._pieces: dict[int, list[Tensor]] = {depth: [] for depth in self.depths}

    def recording(self) -> ExitStack:
        """Inside, what the decoder reads is caught, to be kept afterwards."""
        stack = ExitStack()
        for depth in self.depths:
            stack.enter_context(self.decoder.record_hidden(depth, partial(self._record, depth)))
        return stack

    def _record(self, depth: int, hidden: Tensor) -> None:
        self._caught[depth] = hidden

    def keep(self, placed: Callable[[Tensor], Tensor]) -> None:
        """Keeps what was caught last, put in its place among all rows."""
        for depth in self.depths:
            self._pieces[depth].append(placed(self._caught.pop(depth)))

    def below(self, depth: int) -> CachedHidden | None:
        """[rows, prompt + drawn + 1, d], prompts padded on the left; means nothing after a row's end. None for no layers."""
        return CachedHidden(depth, torch.cat(self._pieces[depth], dim=1)) if depth else None


@overload
def stream(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    rng: torch.Generator,
    *,
    return_stats: bool = False,
    kept: PrefixActivationCache | None = None,
    in_chunks: Literal[False] = False,
) -> Iterator[DecodeStep]: ...


@overload
def stream(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    rng: torch.Generator,
    *,
    return_stats: bool = False,
    kept: PrefixActivationCache | None = None,
    in_chunks: bool,
) -> Iterator[DecodeStep | None]: ...


@torch.no_grad()
def stream(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    rng: torch.Generator,
    *,
    return_stats: bool = False,
    kept: PrefixActivationCache | None = None,
    in_chunks: bool = False,
) -> Iterator[DecodeStep | None]:
    """Draws position by position, until every row has ended or the limit is reached.

    A row's end-of-sequence token belongs to the row; after it the row holds padding, even where both share an id. Equal
    prompts are read once, and rows that have ended are read no further.

    Args:
        listen: tell what was read on the way, so that nobody need read it again.
        kept: keeps what the lowest layers made of it.
        in_chunks: read long prompts in parts, with None after each but the last, so that others get their turn between them.
            Nothing may be kept then. Prompts of one chunk, and architectures whose caches cannot go on, are read at once.
    """
    kept = PrefixActivationCache(backbone.decoder, ()) if kept is None else kept
    distinct = list(dict.fromkeys(map(tuple, prompts)))
    place = {prompt: i for i, prompt in enumerate(distinct)}
    ids, mask = (x.to(backbone.device) for x in pad_left(distinct, backbone.pad_id))
    cache = BatchKVCache(backbone.base.config, backbone.prefix_length + ids.shape[1] + sampling.max_new_tokens + 1)
    cast_weights: dict[tuple[nn.Module, str], CastWeights] = {}
    places, width = positions(mask), ids.shape[1]
    columns = max(1, min(CHUNK_COLUMNS, CHUNK_TOKENS // len(distinct))) if in_chunks and cache.can_drop_rows else width
    for start in range(0, max(width, 1), max(columns, 1)):
        if start:
            yield None
        part = slice(start, start + columns)
        with kept.recording(), cast_weight_cache(cast_weights):
            hidden = backbone.decoder.read(ids[:, part], mask[:, : part.stop], positions=places[:, part], cache=cache.cache)[:, -1]
    rows = torch.tensor([place[tuple(prompt)] for prompt in prompts], device=backbone.device)
    kept.keep(lambda caught: caught[rows])
    if len(distinct) < len(prompts):
        cache.select(rows)
    hidden, mask = hidden[rows], mask[rows]

    total = len(prompts)
    # Which of the rows asked for are still read, and which of those are still open.
    alive = torch.arange(total, device=backbone.device)
    is_open = torch.ones(total, dtype=torch.bool, device=backbone.device)

    def placed(of_rows: Tensor, otherwise: float | bool = 0.0) -> Tensor:
        return _scatter_rows(of_rows, alive, total, otherwise)

    for position in range(sampling.max_new_tokens):
        token, token_stats = sample_token(backbone.logits(hidden), sampling, rng, return_stats=return_stats)
        token = torch.where(is_open, token, backbone.pad_id)
        stats = None
        if token_stats is not None:
            stats = StepStats(placed(token_stats.logprobs), placed(token_stats.entropy), placed(hidden))
        yield DecodeStep(placed(token, backbone.pad_id), placed(is_open, False), stats)
        is_open = is_open & (token != backbone.eos_id)
        remaining = int(is_open.sum())
        if not remaining or position + 1 == sampling.max_new_tokens:
            break
        places, mask = mask.sum(-1, keepdim=True), _extend_mask(mask, 1)
        with kept.recording(), cast_weight_cache(cast_weights):
            hidden = backbone.decoder.read(token[:, None], mask, positions=places, cache=cache.cache)[:, -1]
        kept.keep(placed)
        # Only now, so that the token that ended a row was read too.
        if cache.can_drop_rows and remaining <= COMPACT_AT * len(alive):
            staying = is_open.nonzero()[:, 0]
            cache.select(staying)
            alive, is_open, mask, hidden = alive[staying], is_open[staying], mask[staying], hidden[staying]
    if kept.depths:
        ends = torch.stack([token, torch.full_like(token, backbone.eos_id)], dim=1)
        places = mask.sum(-1, keepdim=True) + torch.arange(2, device=backbone.device)
        with kept.recording(), cast_weight_cache(cast_weights):
            backbone.decoder.forward_lower(ends, _extend_mask(mask, 2), positions=places, depth=kept.depths[-1], cache=cache.cache)
        kept.keep(placed)


def _extend_mask(mask: Bool[Tensor, "b t"], by: int) -> Bool[Tensor, "b t+by"]:
    return torch.cat([mask, mask.new_ones(len(mask), by)], dim=-1)


def _scatter_rows(of_rows: Tensor, alive: Int[Tensor, " n"], total: int, otherwise: float | bool) -> Tensor:
    """Puts what the rows still read have to say in its place among all rows."""
    if len(alive) == total:
        return of_rows
    every = of_rows.new_full((total, *of_rows.shape[1:]), otherwise)
    every[alive] = of_rows
    return every


def sample_token(
    logits: Float[Tensor, "b vocab"], sampling: Sampling, rng: torch.Generator, *, return_stats: bool = False
) -> tuple[Int[Tensor, " b"], SampledTokenStats | None]:
    """One token per row, temperature 0 the likeliest; with `listen`, also what the distribution said of it."""
    tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    stats = None
    if return_stats:
        stats = SampledTokenStats(*(torch.empty(len(logits), device=logits.device) for _ in SampledTokenStats._fields))
    u = torch.rand(len(logits), generator=rng, device=logits.device, dtype=torch.float64) if sampling.temperature else None
    for rows in row_blocks(len(logits), logits.device):
        shares = UnnormalizedSoftmax(logits[rows], sampling.temperature or 1.0)
        tokens[rows] = shares.x.argmax(-1) if u is None else sample_from_weights(_filter_top_k_top_p(shares.share, sampling), u[rows])
        if stats is not None:
            stats.logprobs[rows], stats.entropy[rows] = shares.logprobs(tokens[rows]), shares.entropy()[:, 0]
    return tokens, stats


def _filter_top_k_top_p(share: Float[Tensor, "b vocab"], sampling: Sampling) -> Float[Tensor, "b vocab"]:
    """Weights, of which those outside top-k and top-p are 0."""
    if sampling.top_k:
        kth = share.topk(min(sampling.top_k, share.shape[-1])).values[:, -1:]
        share = share.masked_fill(share < kth, 0.0)
    if sampling.top_p < 1:
        ranked, order = (share / share.sum(-1, keepdim=True)).sort(descending=True)
        outside = ranked.cumsum(-1) - ranked >= sampling.top_p
        # The likeliest is kept however small the nucleus: float32 takes less than 1e-45 for nothing.
        outside[:, 0] = False
        share = torch.zeros_like(share).scatter(-1, order, ranked.masked_fill(outside, 0.0))
    return share


def sample_from_weights(p: Float[Tensor, "b vocab"], u: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """The token in whose share of the cumulative weights `u`, in [0, 1), falls: one random number a row.

    Looks for the block first and then into it; torch's own way draws a number for every entry of the vocabulary.
    """
    if spare := -p.shape[-1] % CDF_BLOCK:
        p = nn.functional.pad(p, (0, spare))
    blocks = p.view(len(p), -1, CDF_BLOCK)
    block, left = _first_above(blocks.sum(-1, dtype=torch.float64), u)
    inside, _ = _first_above(blocks[torch.arange(len(p), device=p.device), block].double(), left)
    return block * CDF_BLOCK + inside


def _first_above(mass: Float[Tensor, "b n"], u: Float[Tensor, " b"]) -> tuple[Int[Tensor, " b"], Float[Tensor, " b"]]:
    """The first place where the running share exceeds `u`, and which share of that place `u` has come to."""
    running = mass.cumsum(-1)
    total = running[:, -1]
    # Rounding must not lead past the last place that holds anything, nor weights that are no numbers past all places.
    at = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    place = torch.searchsorted(running, at[:, None], right=True).clamp_(max=mass.shape[-1] - 1)
    held = mass.gather(-1, place)[:, 0]
    return place[:, 0], (at - (running.gather(-1, place)[:, 0] - held)) / held


def collect_sequences(
    steps: Iterable[DecodeStep], rows: int, eos_id: int, on_progress: Callable[[], None] = lambda: None
) -> list[GeneratedSequence]:
    """Puts the steps of a batch together into its answers; `tick` is called at every position."""
    ids: list[list[int]] = [[] for _ in range(rows)]
    for step in steps:
        for i in step.active_rows.nonzero()[:, 0].tolist():
            ids[i].append(int(step.tokens[i]))
        on_progress()
    return [GeneratedSequence(row, "stop" if row and row[-1] == eos_id else "length") for row in ids]


def sample(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    rng: torch.Generator,
    on_progress: Callable[[], None] = lambda: None,
) -> list[GeneratedSequence]:
    """Answers each prompt once with whatever adapter is in use."""
    return collect_sequences(stream(backbone, prompts, sampling, rng), len(prompts), backbone.eos_id, on_progress)
