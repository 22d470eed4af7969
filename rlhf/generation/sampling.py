"""Samples completions from the model's own distribution, one token at a time.

Plain ancestral sampling: temperature divides the logits, and top-k and top-p are off unless asked for, because PPO's
ratio is only right for tokens sampled from the distribution whose log-probabilities it compares.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Literal, NamedTuple, overload

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rlhf.models.adapters import AdapterChoice
from rlhf.models.backbone import Backbone
from rlhf.models.decoder import BatchKVCache, CachedHidden, Decoder
from rlhf.models.lengths import PromptTooLong
from rlhf.models.lm_head import UnnormalizedSoftmax, row_blocks
from rlhf.models.lora import CastWeights, cast_weight_cache
from rlhf.models.padding import pad_left, positions
from rlhf.runs.work import NO_PROGRESS, Work
from storage.core.records import Sampling


class GeneratedSequence(NamedTuple):
    ids: list[int]
    """Token ids of the answer, with the end-of-sequence token if it was sampled."""
    finish_reason: str
    """`stop` when the model ended the answer, `length` when the token limit did."""


CDF_BLOCK = 256
"""Entries of the vocabulary that are summed together when a token is sampled."""

CHUNK_COLUMNS, CHUNK_TOKENS = 512, 2048
"""Limits of one prefill chunk where other requests wait for their turn: columns of a batch, and tokens of all its rows."""

COMPACT_AT = 0.75
"""Ended rows are dropped from the batch when no more than this fraction of its rows is still active."""


class SampledTokenStats(NamedTuple):
    """Of the distribution that each row's token was sampled from."""

    logprobs: Float[Tensor, " b"]
    """Of the sampled token, in nats."""
    entropy: Float[Tensor, " b"]
    """In nats."""


class StepStats(NamedTuple):
    """Statistics of one position's tokens, recorded during sampling; undefined for rows that had ended."""

    logprobs: Float[Tensor, " b"]
    """Of each token under the distribution it was sampled from, in nats."""
    entropy: Float[Tensor, " b"]
    hidden: Float[Tensor, "b d"]
    """The last hidden state, from which the token's logits were computed."""


class DecodeStep(NamedTuple):
    """One position of a batch that is being sampled."""

    tokens: Int[Tensor, " b"]
    active_rows: Bool[Tensor, " b"]
    """Which rows had not ended before this token; the others hold padding."""
    stats: StepStats | None = None


def generator(device: torch.device, *key: int) -> torch.Generator:
    """A random generator of its own for each key, so that a resumed run samples what an uninterrupted one would have."""
    seed = 0
    for part in key:
        seed = (seed * 1_000_003 + part + 1) % (2**63 - 1)
    return torch.Generator(device=device).manual_seed(seed)


class PrefixActivationCache:
    """Activations of the lowest layers, recorded while a batch is sampled, so that no later pass computes them again.

    Every row is covered to its end: the last sampled token too, and an end-of-sequence token where none was sampled.
    """

    def __init__(self, decoder: Decoder, depths: Iterable[int]):
        self.decoder = decoder
        self.depths = sorted({depth for depth in depths if depth})
        self._recorded: dict[int, Tensor] = {}
        self._pieces: dict[int, list[Tensor]] = {depth: [] for depth in self.depths}

    def recording(self) -> ExitStack:
        """Inside the block, the hidden states of each forward pass are recorded; `store` adds them to the cache."""
        stack = ExitStack()
        for depth in self.depths:
            stack.enter_context(self.decoder.record_hidden(depth, partial(self._record, depth)))
        return stack

    def _record(self, depth: int, hidden: Tensor) -> None:
        self._recorded[depth] = hidden

    def store(self, scatter: Callable[[Tensor], Tensor]) -> None:
        """Adds the hidden states of the last pass, which `scatter` expands from the active rows to all rows."""
        for depth in self.depths:
            self._pieces[depth].append(scatter(self._recorded.pop(depth)))

    def cached(self, depth: int) -> CachedHidden | None:
        """[rows, prompt + sampled + 1, d], prompts padded on the left; undefined after a row's end. None for depth 0."""
        return CachedHidden(depth, torch.cat(self._pieces[depth], dim=1)) if depth else None


@overload
def stream(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    rng: torch.Generator,
    *,
    adapter: AdapterChoice = None,
    return_stats: bool = False,
    prefix_cache: PrefixActivationCache | None = None,
    in_chunks: Literal[False] = False,
) -> Iterator[DecodeStep]: ...


@overload
def stream(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    rng: torch.Generator,
    *,
    adapter: AdapterChoice = None,
    return_stats: bool = False,
    prefix_cache: PrefixActivationCache | None = None,
    in_chunks: bool,
) -> Iterator[DecodeStep | None]: ...


@torch.no_grad()
def stream(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    rng: torch.Generator,
    *,
    adapter: AdapterChoice = None,
    return_stats: bool = False,
    prefix_cache: PrefixActivationCache | None = None,
    in_chunks: bool = False,
) -> Iterator[DecodeStep | None]:
    """Samples position by position, until every row has ended or the token limit is reached.

    A row's end-of-sequence token belongs to the row; after it the row holds padding, even where both share an id. A row also ends
    where the model's context does. Equal prompts are prefilled once, and rows that have ended are dropped from the batch.

    Args:
        adapter: what the passes read through.
        return_stats: return each step's log-probabilities, entropy and hidden states, so that no later pass need compute them.
        prefix_cache: records the activations of the lowest layers.
        in_chunks: prefill long prompts in chunks, with None after each but the last, so that other requests get their turn
            between them. Cannot be combined with `prefix_cache`. Prompts that fit one chunk, and architectures whose caches
            cannot drop rows, are prefilled at once.

    Raises:
        PromptTooLong: a prompt fills the model's context.
    """
    prefix_cache = PrefixActivationCache(backbone.decoder, ()) if prefix_cache is None else prefix_cache
    distinct = list(dict.fromkeys(map(tuple, prompts)))
    first_index = {prompt: i for i, prompt in enumerate(distinct)}
    ids, mask = (x.to(backbone.device) for x in pad_left(distinct, backbone.pad_id))
    cache = BatchKVCache(backbone.base.config, backbone.virtual_tokens(adapter) + ids.shape[1] + sampling.max_new_tokens + 1)
    cast_weights: dict[tuple[nn.Module, str], CastWeights] = {}
    position_ids, width = positions(mask), ids.shape[1]
    # The last position that the model has. Rows that reach it are ended, and only where some row can are they looked at.
    last = sys.maxsize if backbone.context is None else backbone.context - backbone.virtual_tokens(adapter) - 1
    if width > last:
        raise PromptTooLong(f"a prompt of {width:,} tokens leaves no room for an answer in the model's context of {backbone.context:,}")
    may_overrun = width + sampling.max_new_tokens > last
    columns = max(1, min(CHUNK_COLUMNS, CHUNK_TOKENS // len(distinct))) if in_chunks and cache.can_drop_rows else width
    for start in range(0, max(width, 1), max(columns, 1)):
        if start:
            yield None
        part = slice(start, start + columns)
        with prefix_cache.recording(), cast_weight_cache(cast_weights):
            hidden = backbone.decoder.forward(
                ids[:, part], mask[:, : part.stop], positions=position_ids[:, part], cache=cache.cache, adapter=adapter
            )[:, -1]
    rows = torch.tensor([first_index[tuple(prompt)] for prompt in prompts], device=backbone.device)
    prefix_cache.store(lambda hidden_states: hidden_states[rows])
    if len(distinct) < len(prompts):
        cache.select(rows)
    hidden, mask = hidden[rows], mask[rows]

    total = len(prompts)
    # Indices of the rows that are still in the batch, and which of those have not ended.
    active = torch.arange(total, device=backbone.device)
    unfinished = torch.ones(total, dtype=torch.bool, device=backbone.device)

    def scatter(row_values: Tensor, otherwise: float | bool = 0.0) -> Tensor:
        return _scatter_rows(row_values, active, total, otherwise)

    for position in range(sampling.max_new_tokens):
        token, token_stats = sample_token(backbone.logits(hidden), sampling, rng, return_stats=return_stats)
        token = torch.where(unfinished, token, backbone.pad_id)
        stats = None
        if token_stats is not None:
            stats = StepStats(scatter(token_stats.logprobs), scatter(token_stats.entropy), scatter(hidden))
        yield DecodeStep(scatter(token, backbone.pad_id), scatter(unfinished, False), stats)
        ended = backbone.ends(token)
        # Whatever reads the answer later puts `eos_id` at its end, so the recorded activations are that token's.
        token = torch.where(ended & unfinished, backbone.eos_id, token)
        unfinished = unfinished & ~ended
        if may_overrun:
            unfinished = unfinished & (mask.sum(-1) <= last)
        remaining = int(unfinished.sum())
        if not remaining or position + 1 == sampling.max_new_tokens:
            break
        # Rows that ended stay for a while, and their padding may lie beyond the last position.
        position_ids, mask = mask.sum(-1, keepdim=True).clamp(max=last), _extend_mask(mask, 1)
        with prefix_cache.recording(), cast_weight_cache(cast_weights):
            hidden = backbone.decoder.forward(token[:, None], mask, positions=position_ids, cache=cache.cache, adapter=adapter)[:, -1]
        prefix_cache.store(scatter)
        # Rows are dropped only now, so that the pass covers the token that ended a row.
        if cache.can_drop_rows and remaining <= COMPACT_AT * len(active):
            open_rows = unfinished.nonzero()[:, 0]
            cache.select(open_rows)
            active, unfinished, mask, hidden = (
                active[open_rows],
                unfinished[open_rows],
                mask[open_rows],
                hidden[open_rows],
            )
    if prefix_cache.depths:
        ends = torch.stack([token, torch.full_like(token, backbone.eos_id)], dim=1)
        position_ids = (mask.sum(-1, keepdim=True) + torch.arange(2, device=backbone.device)).clamp(max=last)
        with prefix_cache.recording(), cast_weight_cache(cast_weights):
            backbone.decoder.forward_lower(
                ends,
                _extend_mask(mask, 2),
                positions=position_ids,
                depth=prefix_cache.depths[-1],
                cache=cache.cache,
                adapter=adapter,
            )
        prefix_cache.store(scatter)


def _extend_mask(mask: Bool[Tensor, "b t"], by: int) -> Bool[Tensor, "b t+{by}"]:
    return torch.cat([mask, mask.new_ones(len(mask), by)], dim=-1)


def _scatter_rows(row_values: Tensor, active: Int[Tensor, " n"], total: int, otherwise: float | bool) -> Tensor:
    """Expands values of the rows still in the batch to all rows; the others get `otherwise`."""
    if len(active) == total:
        return row_values
    expanded = row_values.new_full((total, *row_values.shape[1:]), otherwise)
    expanded[active] = row_values
    return expanded


def sample_token(
    logits: Float[Tensor, "b vocab"], sampling: Sampling, rng: torch.Generator, *, return_stats: bool = False
) -> tuple[Int[Tensor, " b"], SampledTokenStats | None]:
    """One token per row, at temperature 0 the most probable; with `return_stats` also its log-probability and the entropy."""
    tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    stats = None
    if return_stats:
        stats = SampledTokenStats(*(torch.empty(len(logits), device=logits.device) for _ in SampledTokenStats._fields))
    u = torch.rand(len(logits), generator=rng, device=logits.device, dtype=torch.float64) if sampling.temperature else None
    for rows in row_blocks(len(logits), logits.device):
        softmax = UnnormalizedSoftmax(logits[rows], sampling.temperature or 1.0)
        tokens[rows] = softmax.x.argmax(-1) if u is None else sample_from_weights(_filter_top_k_top_p(softmax.weights, sampling), u[rows])
        if stats is not None:
            stats.logprobs[rows], stats.entropy[rows] = softmax.logprobs(tokens[rows]), softmax.entropy()[:, 0]
    return tokens, stats


def _filter_top_k_top_p(weights: Float[Tensor, "b vocab"], sampling: Sampling) -> Float[Tensor, "b vocab"]:
    """The weights, with 0 outside top-k and top-p."""
    if sampling.top_k:
        kth = weights.topk(min(sampling.top_k, weights.shape[-1])).values[:, -1:]
        weights = weights.masked_fill(weights < kth, 0.0)
    if sampling.top_p < 1:
        ranked, order = (weights / weights.sum(-1, keepdim=True)).sort(descending=True)
        outside = ranked.cumsum(-1) - ranked >= sampling.top_p
        # The most probable token stays however small the nucleus is: float32 rounds a top-p below 1e-45 to 0.
        outside[:, 0] = False
        weights = torch.zeros_like(weights).scatter(-1, order, ranked.masked_fill(outside, 0.0))
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


def collect_sequences(
    steps: Iterable[DecodeStep], rows: int, eos_token_ids: Container[int], on_progress: Callable[[], None] = lambda: None
) -> list[GeneratedSequence]:
    """Collects the steps of a batch into its answers; `on_progress` is called at every position."""
    ids: list[list[int]] = [[] for _ in range(rows)]
    for step in steps:
        for i in step.active_rows.nonzero()[:, 0].tolist():
            ids[i].append(int(step.tokens[i]))
        on_progress()
    return [GeneratedSequence(row, "stop" if row and row[-1] in eos_token_ids else "length") for row in ids]


def sample(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    rng: torch.Generator,
    on_progress: Work = NO_PROGRESS,
    *,
    adapter: AdapterChoice = None,
) -> list[GeneratedSequence]:
    """Samples one answer to each prompt."""
    on_progress.total(sampling.max_new_tokens)
    return collect_sequences(stream(backbone, prompts, sampling, rng, adapter=adapter), len(prompts), backbone.eos_token_ids, on_progress)
