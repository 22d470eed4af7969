"""The low-rank matrices of several LoRA adapters in buffers that keep their addresses, for decode steps that are captured once.

Other adapters take the place of those that left, so a captured step stays right for them. Every layer has the same layout: an adapter
that a layer does not have is 0 there. Leaves out which row has which adapter (`lora.RowAdapters`).
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from rlhf.models.adapters import Adapters
from rlhf.models.lora import ConcatenatedWeights, FusedLinear

MIN_RANKS = 16
"""Ranks for which there is room at first; more are allocated in powers of two."""

NOBODY = -2
"""The owner of ranks that no adapter has; rows of the base have the index -1."""


class AdapterStack:
    """Adapters side by side, in the precision of the base."""

    def __init__(self, adapters: Adapters):
        self.adapters = adapters
        self.names: tuple[str, ...] = ()
        """An adapter's place here is its index in `RowAdapters`."""
        self.weights: dict[nn.Module, ConcatenatedWeights | None] = {}
        self._ranks = 0
        self._owner = torch.empty(0, dtype=torch.long, device=adapters.base.device)

    def forget(self) -> None:
        """The adapters are read again at their next use, because they were trained or replaced. The buffers stay."""
        self.names = ()

    def include(self, wanted: Collection[str]) -> bool:
        """Makes sure that these adapters are in. Returns whether buffers were allocated, which no captured step knows."""
        present = set(self.names)
        # Adapters that left are computed for nothing, and reading others takes as long as a few tokens.
        if not wanted or (present >= set(wanted) and len(present) <= 2 * len(wanted)):
            return False
        self.names = (*(name for name in self.names if name in wanted), *sorted(set(wanted) - present))
        layers = self.adapters.lora_layers(self.names)
        of_layer = {layer: {name: layer.concatenated_weights([name], self.adapters.base.dtype) for name in self.names} for layer in layers}
        ranks = dict.fromkeys(self.names, 0)
        for weights in of_layer.values():
            ranks |= {name: max(ranks[name], len(found.a)) for name, found in weights.items() if found is not None}
        allocated = self._allocate(of_layer, sum(ranks.values()))
        self._fill(of_layer, ranks)
        return allocated

    def _allocate(self, of_layer: dict[FusedLinear, dict[str, ConcatenatedWeights | None]], ranks: int) -> bool:
        """Makes new buffers if there is no room for so many ranks, or none in a layer that needs it."""
        examples = {layer: next((w for w in weights.values() if w is not None), None) for layer, weights in of_layer.items()}
        fits = all(layer in self.weights and (w is None or self.weights[layer] is not None) for layer, w in examples.items())
        if fits and ranks <= self._ranks:
            return False
        self._ranks = max(self._ranks, MIN_RANKS)
        while self._ranks < ranks:
            self._ranks *= 2
        # One for all layers, so that a step compares it with the rows once.
        owner = self._owner = torch.empty(self._ranks, dtype=torch.long, device=self.adapters.base.device)
        self.weights = {
            layer: w
            and ConcatenatedWeights(w.a.new_empty(self._ranks, w.a.shape[1]), w.b.new_empty(self._ranks, w.b.shape[1]), owner, columns=())
            for layer, w in examples.items()
        }
        return True

    def _fill(self, of_layer: dict[FusedLinear, dict[str, ConcatenatedWeights | None]], ranks: dict[str, int]) -> None:
        owners = [index for index, name in enumerate(self.names) for _ in range(ranks[name])]
        owners += [NOBODY] * (self._ranks - len(owners))
        self._owner.copy_(torch.tensor(owners))
        for layer, buffers in self.weights.items():
            if buffers is None:
                continue
            buffers.a.zero_()
            buffers.b.zero_()
            start = 0
            for name in self.names:
                weights = of_layer.get(layer, {}).get(name)  # type: ignore[call-overload]  # all keys of `weights` are such layers
                if weights is not None:
                    buffers.a[start : start + len(weights.a)] = weights.a
                    buffers.b[start : start + len(weights.b)] = weights.b
                start += ranks[name]
