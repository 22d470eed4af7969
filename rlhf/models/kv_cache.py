"""Keys and values of the rows that the generation engine decodes.

`SlotCache` holds rows of different lengths, which join and leave between steps: the token at position p of a row stands in column p.
It serves every architecture whose layers all have attention, full or over a sliding window. The others, whose layers have another
state, get transformers' own cache for a batch of rows that begin together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

COLUMNS = 64
"""Columns are added in multiples of this many, so that memory is not copied at every token."""

FULL, SLIDING = "full_attention", "sliding_attention"
"""The names that transformers gives to kinds of attention in `config.layer_types` and in a dictionary of masks."""

OWN_MASKS = ("gpt_neo",)
"""Architectures whose layers count a window back from the last column that is read, which is not where a shorter row ends."""

AttentionMask = Shaped[Tensor, "n 1 t s"] | dict[str, Shaped[Tensor, "n 1 t s"]]
"""Boolean, or numbers that are added to the scores."""


def has_slots(config: Any) -> bool:
    """Whether rows of this architecture can stand in slots: no layer has a state beside keys and values, or a mask of its own."""
    return config.model_type not in OWN_MASKS and all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=config).layers
    )


class SlotCache:
    """Keys and values of rows of different lengths. Rows in use are the first ones, so that a pass over them needs no copy.

    Memory grows with the rows and the columns in use.
    """

    def __init__(self, model: PreTrainedModel, *, rows: int = 1, columns: int = COLUMNS):
        self.cache = DynamicCache(config=model.config)
        self.rows, self.columns = rows, columns
        windows = [layer.sliding_window if isinstance(layer, DynamicSlidingWindowLayer) else None for layer in self.cache.layers]
        self.layers = [SlotLayer(self) for _ in windows]
        self.cache.layers = list(self.layers)
        self._window = next((window for window in windows if window is not None), None)
        # An architecture with both kinds of attention takes a mask for each, by name.
        self._mixed = None in windows and self._window is not None
        self._added = model.config._attn_implementation == "eager"
        self._dtype, self._device = model.dtype, model.device
        self.width = 0
        """Columns that the pass reads, from column 0 on."""
        self.positions: Int[Tensor, "n t"] = torch.zeros(0, 0, dtype=torch.long)
        """The columns that the pass writes, for its rows, which are the first n."""
        self.row_index: Int[Tensor, "n 1"] = torch.zeros(0, 1, dtype=torch.long)
        """The pass's rows."""

    def begin(self, starts: Int[Tensor, " n"], tokens: int, width: int) -> None:
        """Announces a forward pass over the first n rows, which writes `tokens` columns from `starts` on.

        Args:
            width: columns that the pass reads; `starts + tokens` may not exceed it.
        """
        self.reserve(len(starts), width)
        self.width = width
        self.positions = starts[:, None] + torch.arange(tokens, device=starts.device)
        self.row_index = torch.arange(len(starts), device=starts.device)[:, None]

    def mask(self) -> AttentionMask:
        """For the announced pass: each token reads the columns up to its own, within the window where there is one."""
        columns = torch.arange(self.width, device=self.positions.device)
        full = columns <= self.positions[..., None]
        if self._window is None:
            return self._prepared(full)
        sliding = self._prepared(full & (columns > self.positions[..., None] - self._window))
        return {FULL: self._prepared(full), SLIDING: sliding} if self._mixed else sliding

    def _prepared(self, visible: Bool[Tensor, "n t s"]) -> Shaped[Tensor, "n 1 t s"]:
        if not self._added:
            return visible[:, None]
        # transformers' plain attention adds the mask to the scores.
        return torch.zeros(visible.shape, dtype=self._dtype, device=visible.device).masked_fill_(~visible, torch.finfo(self._dtype).min)[
            :, None
        ]

    def reserve(self, rows: int, columns: int) -> None:
        """Makes room for that many rows and columns."""
        if rows <= self.rows and columns <= self.columns:
            return
        # Grows by a quarter at least, so that copying costs no more than a few steps.
        if rows > self.rows:
            self.rows = max(rows, self.rows * 5 // 4)
        if columns > self.columns:
            self.columns = -(-max(columns, self.columns * 5 // 4) // COLUMNS) * COLUMNS
        for layer in self.layers:
            layer.resize()

    def copy_from(self, other: SlotCache, source: int, target: int, width: int) -> None:
        """Copies the first `width` columns of another cache's row to a row of this one; what stood there is lost."""
        self.reserve(target + 1, width)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.copy_from(theirs, source, target, width)

    def copy_rows(self, other: SlotCache, sources: Sequence[int], targets: Sequence[int], width: int) -> None:
        """As `copy_from`, for several rows in a few operations a layer; all other columns of the targets become 0.

        `other` may be this cache itself, if no row is both a source and a target.
        """
        self.reserve(max(targets) + 1, width)
        read, written = (torch.tensor(rows, device=self._device) for rows in (sources, targets))
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.copy_rows(theirs, read, written, width)


class SlotLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers registers subclasses in untyped code
    """One layer's keys and values, [rows, heads, columns, d]."""

    def __init__(self, slots: SlotCache):
        super().__init__()  # type: ignore[no-untyped-call]  # transformers leaves it without types
        self.slots = slots

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.keys, self.values = (self._empty(states) for states in (key_states, value_states))

    def _empty(self, states: Tensor) -> Tensor:
        # Zeros, because a masked column must not hold what is no number.
        return states.new_zeros(self.slots.rows, states.shape[1], self.slots.columns, states.shape[3])

    def resize(self) -> None:
        if self.is_initialized:
            for name in ("keys", "values"):
                old = getattr(self, name)
                new = self._empty(old)
                new[: old.shape[0], :, : old.shape[2]] = old
                setattr(self, name, new)

    def copy_from(self, other: SlotLayer, source: int, target: int, width: int) -> None:
        if other.keys is None or other.values is None:
            # A layer that shares another one's keys and values has none of its own.
            return
        if self.keys is None or self.values is None:
            self.lazy_initialization(other.keys, other.values)
        assert self.keys is not None and self.values is not None
        self.keys[target, :, :width] = other.keys[source, :, :width]
        self.values[target, :, :width] = other.values[source, :, :width]

    def copy_rows(self, other: SlotLayer, sources: Int[Tensor, " m"], targets: Int[Tensor, " m"], width: int) -> None:
        if other.keys is None or other.values is None:
            return
        if self.keys is None or self.values is None:
            self.lazy_initialization(other.keys, other.values)
        for mine, theirs in ((self.keys, other.keys), (self.values, other.values)):
            assert mine is not None
            copied = theirs[sources, :, :width]
            mine.index_fill_(0, targets, 0)
            mine[targets, :, :width] = copied

    def update(
        self, key_states: Float[Tensor, "n h t d"], value_states: Float[Tensor, "n h t e"], *_: Any, **__: Any
    ) -> tuple[Float[Tensor, "n h s d"], Float[Tensor, "n h s e"]]:
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        positions = self.slots.positions
        keys, values = (states[: len(positions), :, : self.slots.width] for states in (self.keys, self.values))
        rows = self.slots.row_index
        keys[rows, :, positions] = key_states.transpose(1, 2)
        values[rows, :, positions] = value_states.transpose(1, 2)
        return keys, values

    def get_seq_length(self) -> int:
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.slots.width, 0
