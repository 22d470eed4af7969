"""Keys and values of the rows that the generation engine decodes.

`SlotCache` holds rows of different lengths, which join and leave between steps: the token at position p of a row stands in column p.
It serves every architecture whose layers all have attention, full or over a sliding window. `PaddedCache` is for the others, whose
layers have another state: its rows are padded on the left, begin together and stay until the last has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

COLUMNS = 64
"""Columns are added in multiples of this many, so that memory is not copied at every token."""

FULL, SLIDING = "full_attention", "sliding_attention"
"""The names that transformers gives to kinds of attention in `config.layer_types` and in a dictionary of masks."""

AttentionMask = Bool[Tensor, "n 1 t s"] | dict[str, Bool[Tensor, "n 1 t s"]]


def has_slots(config: Any) -> bool:
    """Whether rows of this architecture can stand in slots: no layer has a state beside keys and values."""
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=config).layers)


class SlotCache:
    """Keys and values of up to `rows` rows. Rows in use are the first ones, so that every view of them is without a copy.

    Memory grows with the rows and the columns in use; on an accelerator it is allocated once for `rows` and `columns`.
    """

    def __init__(self, config: Any, *, rows: int = 8, columns: int = COLUMNS):
        self.cache = DynamicCache(config=config)
        self.rows, self.columns = rows, columns
        windows = [layer.sliding_window if isinstance(layer, DynamicSlidingWindowLayer) else None for layer in self.cache.layers]
        self._layers = [SlotLayer(self) for _ in windows]
        self.cache.layers = list(self._layers)
        self._windows = sorted({window for window in windows if window is not None})
        # An architecture with both kinds of attention takes a mask for each, by name.
        self._mixed = None in windows and bool(self._windows)
        self.window: slice = slice(0, 0)
        self.starts: Int[Tensor, " n"] = torch.zeros(0, dtype=torch.long)
        self.width = 0

    def begin(self, first: int, starts: Int[Tensor, " n"], tokens: int, width: int) -> None:
        """Sets where the next forward pass writes: `tokens` columns from `starts` on, in the rows from `first` on.

        Args:
            width: columns that the pass reads, from column 0; `starts + tokens` may not exceed it.
        """
        self._reserve(first + len(starts), width)
        self.window, self.starts, self.width = slice(first, first + len(starts)), starts, width
        self.positions = starts[:, None] + torch.arange(tokens, device=starts.device)

    def mask(self) -> AttentionMask:
        """For the pass that `begin` announced: each token reads the columns up to its own, within the window where there is one."""
        columns = torch.arange(self.width, device=self.starts.device)
        full = columns <= self.positions[..., None]
        if not self._windows:
            return full[:, None]
        sliding = full & (columns > self.positions[..., None] - self._windows[0])
        return {FULL: full[:, None], SLIDING: sliding[:, None]} if self._mixed else sliding[:, None]

    def _reserve(self, rows: int, columns: int) -> None:
        if rows > self.rows or columns > self.columns:
            self.rows = max(self.rows, rows if rows <= self.rows else max(rows, 2 * self.rows))
            # Grows by a quarter, so that the copies cost no more than a few steps.
            self.columns = max(self.columns, -(-max(columns, self.columns * 5 // 4) // COLUMNS) * COLUMNS if columns > self.columns else 0)
            for layer in self._layers:
                layer.resize()

    def copy_row(self, source: int, targets: Sequence[int], width: int) -> None:
        """Copies the first `width` columns of one row to others."""
        if targets:
            self._reserve(max(targets) + 1, width)
            for layer in self._layers:
                layer.copy_row(source, list(targets), width)

    def move_row(self, source: int, target: int, width: int) -> None:
        """Moves the first `width` columns of a row; whatever stood there is lost."""
        if source != target:
            self.copy_row(source, [target], width)


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

    def copy_row(self, source: int, targets: list[int], width: int) -> None:
        if self.is_initialized:
            self.keys[targets, :, :width] = self.keys[source, :, :width]
            self.values[targets, :, :width] = self.values[source, :, :width]

    def update(
        self, key_states: Float[Tensor, "n h t d"], value_states: Float[Tensor, "n h t e"], *_: Any, **__: Any
    ) -> tuple[Float[Tensor, "n h s d"], Float[Tensor, "n h s e"]]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        slots = self.slots
        keys, values = (states[slots.window, :, : slots.width] for states in (self.keys, self.values))
        rows = torch.arange(len(slots.positions), device=keys.device)[:, None]
        keys[rows, :, slots.positions] = key_states.transpose(1, 2)
        values[rows, :, slots.positions] = value_states.transpose(1, 2)
        return keys, values

    def get_seq_length(self) -> int:
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.slots.width, 0


class PaddedCache:
    """transformers' own cache for a batch of rows that begin together, padded on the left; rows can be repeated, and dropped in some."""

    def __init__(self, config: Any):
        self.cache = DynamicCache(config=config)

    def select(self, rows: Int[Tensor, " n"]) -> None:
        """Selects these rows, in this order; a row may be repeated."""
        self.cache.batch_select_indices(rows)
