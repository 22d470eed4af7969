"""Rows that are decoded in one forward pass, and the prompts that are about to join them.

Rows whose adapters are plain LoRA, and rows of the base, share one lane; an adapter of another kind has a lane of its own, because it
cannot be given to some rows of a batch. Leaves out which requests get a place (`engine`) and how tokens are sampled (`sampling`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from rlhf.generation.recording import RolloutRecorder
from rlhf.generation.request import GenerationRequest, GenerationStream
from rlhf.models.adapters import AdapterChoice
from rlhf.models.backbone import Backbone
from rlhf.models.kv_cache import SlotCache
from rlhf.models.lora import ConcatenatedWeights, RowAdapters
from rlhf.models.padding import pad_left, pad_right, positions

MAX_WEIGHT_SETS = 10
"""Sets of adapters whose weights are kept in the base's precision: of one adapter each while its prompts are read, and of all rows."""


@dataclass(slots=True, eq=False)
class Row:
    """One request while it is computed."""

    request: GenerationRequest
    stream: GenerationStream | None
    client: str
    """Who asked, for the limit of each client; empty for nobody in particular."""
    order: int
    """Rows that begin together stand in this order."""
    longest: int
    """Most tokens of its answer: the request's limit, or the room that the context leaves."""
    recorder: RolloutRecorder | None = None
    number: int = 0
    """Of the request in its recorder."""
    ids: list[int] = field(default_factory=list)
    length: int = 0
    """Columns of the cache in use, learned vectors included."""
    forced: list[int] = field(default_factory=list)
    """Tokens that an ended row still passes through the model, so that their activations are recorded."""
    ended: bool = False

    @property
    def next_id(self) -> int:
        return self.forced[0] if self.ended else self.ids[-1]


@dataclass(slots=True, eq=False)
class Prompt:
    """Rows with the same prompt and adapter, which is read once for all of them."""

    ids: tuple[int, ...]
    adapter: str | None
    rows: list[Row]


class Lane:
    """Base of both kinds of lanes.

    Args:
        adapter: the adapter of all rows; None for a lane in which each row has its own.
    """

    def __init__(self, backbone: Backbone, adapter: str | None):
        self.backbone, self.adapter = backbone, adapter
        self.rows: list[Row] = []
        # Learned vectors of prompt tuning stand in the first columns of every row.
        self.prefix = backbone.virtual_tokens(adapter)
        self.last = sys.maxsize if backbone.context is None else backbone.context - 1

    def takes_rows(self) -> bool:
        """Whether rows can join now."""
        return True

    def clear(self) -> None:
        """Drops all rows, whatever state they are in."""
        self.rows = []

    def forget(self, adapter: str) -> None:
        """Drops what is cached of an adapter that no row uses."""

    def serves(self, adapter: str | None) -> bool:
        """Whether the lane is for rows with this adapter."""
        return self.adapter is None or self.adapter == adapter

    def choice(self, rows: Sequence[Row | Prompt]) -> AdapterChoice:
        """What a forward pass over these rows reads through."""
        return self.adapter

    def decode(self) -> Float[Tensor, "n d"]:
        """Passes each row's next token through the model; returns the last hidden states."""
        raise NotImplementedError

    def drop(self, leaving: Sequence[Row]) -> None:
        """Removes rows that have ended."""
        raise NotImplementedError

    def recording(self, rows: Sequence[Row]) -> AbstractContextManager[object]:
        """Inside the block, the rows' recorder sees the activations; all rows of a lane have the same one, or none."""
        recorder = rows[0].recorder if rows else None
        return nullcontext() if recorder is None else recorder.recording()


class SlotLane(Lane):
    """Rows join and leave between steps."""

    def __init__(self, backbone: Backbone, adapter: str | None):
        super().__init__(backbone, adapter)
        self.slots = SlotCache(backbone.base)
        # Several adapters in use, in the order in which they came.
        self._mixed: tuple[str, ...] = ()
        # Weights side by side, by the adapters that they are of; the last used ones stand at the end.
        self._weights: dict[tuple[str, ...], dict[nn.Module, ConcatenatedWeights | None]] = {}
        self._routes: dict[tuple[str | None, ...], RowAdapters] = {}

    def choice(self, rows: Sequence[Row | Prompt]) -> AdapterChoice:
        return self._route(tuple(adapter_of(row) for row in rows)) if self.adapter is None else self.adapter

    def _route(self, adapters: tuple[str | None, ...]) -> RowAdapters:
        names = self._names_for({name for name in adapters if name is not None})
        weights = self._weights[names] = self._weights.pop(names, {})
        if len(self._weights) > MAX_WEIGHT_SETS:
            del self._weights[next(iter(self._weights))]
        route = self._routes.get(adapters)
        if route is None or route.weights is not weights:
            index = torch.tensor([-1 if name is None else names.index(name) for name in adapters], device=self.backbone.device)
            # Rows change at most once a step, so the last few ways of mixing them are enough.
            if len(self._routes) > 8:
                self._routes.clear()
            route = self._routes[adapters] = RowAdapters(names, index, weights)
        return route

    def _names_for(self, wanted: set[str]) -> tuple[str, ...]:
        """The adapters whose weights stand side by side for rows with these ones."""
        if len(wanted) < 2:
            # Not a part of the mixed ones: a prompt of one adapter is read between two steps of all rows.
            return tuple(wanted)
        # Weights of adapters that left are computed for nothing, and putting others together takes as long as a few tokens.
        if not wanted <= set(self._mixed) or len(self._mixed) > 2 * len(wanted):
            self._weights.pop(self._mixed, None)
            self._mixed = (*(name for name in self._mixed if name in wanted), *sorted(wanted - set(self._mixed)))
        return self._mixed

    def forget(self, adapter: str) -> None:
        self._weights = {names: weights for names, weights in self._weights.items() if adapter not in names}
        self._routes.clear()
        if adapter in self._mixed:
            self._mixed = ()

    def decode(self) -> Float[Tensor, "n d"]:
        """Passes each row's next token through the model; returns the last hidden states."""
        rows, device = self.rows, self.backbone.device
        lengths = [row.length for row in rows]
        ids = torch.tensor([[row.next_id] for row in rows], device=device)
        starts = torch.tensor(lengths, device=device)
        with self.recording(rows):
            hidden = self.backbone.decoder.forward_slots(
                ids, starts, self.slots, width=max(lengths) + 1, last=self.last, adapter=self.choice(rows)
            )[:, -1]
        if (recorder := rows[0].recorder) is not None and recorder.depths:
            columns = [recorder.longest_prompt - len(row.request.prompt_ids) + row.length - self.prefix for row in rows]
            recorder.add_step_activations(torch.tensor([row.number for row in rows], device=device), torch.tensor(columns, device=device))
        for row in rows:
            row.length += 1
        return hidden

    def forced_are_due(self) -> bool:
        """Whether it is time for `pass_forced`: no row needs another token."""
        return all(row.ended for row in self.rows)

    def pass_forced(self) -> None:
        """Passes what is left of the tokens of rows that have ended through the layers whose activations are recorded."""
        recorder, device = self.rows[0].recorder, self.backbone.device
        if recorder is None or not recorder.depths:
            return
        longest = max(len(row.forced) for row in self.rows)
        ids, _ = pad_right([row.forced for row in self.rows], self.backbone.pad_id, width=longest)
        starts = torch.tensor([row.length for row in self.rows], device=device)
        width = max(row.length for row in self.rows) + longest
        self.reserve(len(self.rows), width)
        # Rows that have not ended pass padding, which their next tokens overwrite.
        with recorder.recording():
            self.backbone.decoder.forward_slots(
                ids.to(device), starts, self.slots, width=width, last=self.last, depth=recorder.depths[-1], adapter=self.choice(self.rows)
            )
        for i, row in enumerate(self.rows):
            recorder.add_activations([row.number], i, row.length - self.prefix, len(row.forced))
            row.forced = []

    def reserve(self, rows: int, columns: int) -> None:
        """Makes room for that many rows and columns."""
        self.slots.reserve(rows, columns)

    def join(self, rows: Sequence[Row], slots: SlotCache, sources: Sequence[int]) -> None:
        """Adds rows whose prompts stand in these rows of another cache."""
        self.reserve(len(self.rows) + len(rows), max(row.length for row in rows))
        for row, source in zip(rows, sources, strict=True):
            self.slots.copy_from(slots, source, len(self.rows), row.length)
            self.rows.append(row)

    def adopt(self, rows: Sequence[Row], slots: SlotCache) -> None:
        """Takes over another cache, whose rows are these."""
        self.slots, self.rows = slots, list(rows)

    def drop(self, leaving: Sequence[Row]) -> None:
        """Removes rows; the last ones take their places."""
        for row in leaving:
            place, end = self.rows.index(row), len(self.rows) - 1
            if place != end:
                self.slots.copy_from(self.slots, end, place, self.rows[end].length)
                self.rows[place] = self.rows[end]
            self.rows.pop()
        if not self.rows:
            self.clear()

    def clear(self) -> None:
        super().clear()
        self.slots = SlotCache(self.backbone.base)


class Prefill:
    """Prompts that are read side by side, in chunks, before their rows join a lane. All have the same adapter."""

    def __init__(self, lane: SlotLane, prompts: Sequence[Prompt]):
        self.lane, self.prompts = lane, list(prompts)
        self.longest = max(len(prompt.ids) for prompt in prompts)
        self.done = 0
        self.slots = SlotCache(lane.backbone.base, rows=len(prompts), columns=lane.prefix + self.longest)
        self._hidden: Float[Tensor, "n d"] | None = None

    def step(self, columns: int) -> bool:
        """Reads up to `columns` tokens of each prompt; returns whether all have been read."""
        lane, backbone = self.lane, self.lane.backbone
        stop = min(self.done + columns, self.longest)
        # A prompt that has ended gives padding, whose columns its answer overwrites.
        ids, _ = pad_right([prompt.ids[self.done : stop] for prompt in self.prompts], backbone.pad_id, width=stop - self.done)
        first = self.done == 0
        start = 0 if first else lane.prefix + self.done
        starts = torch.full((len(self.prompts),), start, device=backbone.device)
        rows = [prompt.rows[0] for prompt in self.prompts]
        with lane.recording(rows):
            hidden = backbone.decoder.forward_slots(
                ids.to(backbone.device),
                starts,
                self.slots,
                width=lane.prefix + stop,
                last=lane.last,
                prefix=first,
                adapter=lane.choice(self.prompts),
            )
        if self._hidden is None:
            self._hidden = hidden.new_zeros(len(self.prompts), hidden.shape[-1])
        for i, prompt in enumerate(self.prompts):
            tokens = min(stop, len(prompt.ids)) - self.done
            if tokens <= 0:
                continue
            if (recorder := prompt.rows[0].recorder) is not None:
                recorder.add_activations([row.number for row in prompt.rows], i, self.done, tokens)
            if self.done + tokens == len(prompt.ids):
                self._hidden[i] = hidden[i, tokens - 1]
        self.done = stop
        return stop == self.longest

    def finish(self) -> tuple[list[Row], Float[Tensor, "n d"]]:
        """Adds the rows to their lane; returns them with the hidden states from which their first tokens are sampled."""
        assert self._hidden is not None
        places = sorted(((row.order, i, row) for i, prompt in enumerate(self.prompts) for row in prompt.rows), key=lambda place: place[0])
        rows, sources = [row for _, _, row in places], [i for _, i, _ in places]
        for row in rows:
            row.length = self.lane.prefix + len(row.request.prompt_ids)
        if not self.lane.rows and sources == [*range(len(self.prompts))]:
            self.lane.adopt(rows, self.slots)
        else:
            self.lane.join(rows, self.slots, sources)
        return rows, self._hidden[torch.tensor(sources, device=self._hidden.device)]


class PaddedLane(Lane):
    """For architectures whose layers have another state than keys and values: rows begin together, and none joins before all have ended."""

    def takes_rows(self) -> bool:
        return not self.rows

    def start(self, rows: Sequence[Row]) -> Float[Tensor, "n d"]:
        """Reads the prompts of these rows, padded on the left; returns the last hidden states."""
        self.rows = list(rows)
        self.cache = DynamicCache(config=self.backbone.base.config)
        ids, self.mask = (x.to(self.backbone.device) for x in pad_left([row.request.prompt_ids for row in rows], self.backbone.pad_id))
        return self._forward(ids, positions(self.mask))

    def decode(self) -> Float[Tensor, "n d"]:
        """Passes each row's next token through the model, padding for rows that have ended; returns the last hidden states."""
        ids = [[self.backbone.pad_id if row.ended else row.next_id] for row in self.rows]
        # Padding may lie beyond the last position.
        position_ids = self.mask.sum(-1, keepdim=True).clamp(max=self.last - self.prefix)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=-1)
        return self._forward(torch.tensor(ids, device=self.backbone.device), position_ids)

    def _forward(self, ids: Int[Tensor, "n t"], position_ids: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        return self.backbone.decoder.forward(ids, self.mask, positions=position_ids, cache=self.cache, adapter=self.adapter)[:, -1]

    def drop(self, leaving: Sequence[Row]) -> None:
        """Rows stay in the batch until all have ended."""
        if all(row.ended for row in self.rows):
            self.rows = []


def adapter_of(row: Row | Prompt) -> str | None:
    return row.adapter if isinstance(row, Prompt) else row.request.adapter
