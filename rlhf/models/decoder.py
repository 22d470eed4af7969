"""The decoder layers of a causal language model, whole or in part, with or without a cache of what was read.

Reading in part is what makes one frozen backbone cheap: layers below the first adapter are read once and kept. It works
for any architecture with a list of decoder layers that hand one hidden state on; where it does not, `parts` is False and
everything is read whole. Leaves out adapters and heads (`backbone`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

PARTIAL_FORWARD_TOLERANCE = 2e-2
"""Largest relative difference between reading whole and in parts; bfloat16 rounds at 4e-3."""


class CachedHidden(NamedTuple):
    """What the lowest layers make of some tokens: the residual stream after the first `depth` of them, before any norm."""

    depth: int
    hidden: Float[Tensor, "*b t d"]


class Decoder:
    """The layers between the embedding and the final norm of `model`."""

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.inner = model.base_model
        self.depth: int = model.config.get_text_config().num_hidden_layers
        self.name, self.layers = _layer_list(self.inner, self.depth)
        self._skipped = [SkippedLayer(layer) for layer in self.layers]
        self.prefix: Float[Tensor, "v d"] | None = None
        """Learned vectors that every row is read behind, in the place of token embeddings; nothing is told of them."""
        self.supports_partial_forward = len(self.layers) > 0 and self._check_partial_forward()

    def read(
        self, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b s"], *, positions: Int[Tensor, "b t"], cache: Cache | None = None
    ) -> Float[Tensor, "b t d"]:
        """The last hidden states, after the final norm. With a cache, `ids` follow what it holds and `mask` covers both."""
        out = self.inner(**self.inputs(ids, mask, positions, cache), past_key_values=cache, use_cache=cache is not None)
        hidden: Tensor = out.last_hidden_state
        return hidden[:, -ids.shape[1] :]

    def inputs(
        self, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b s"], positions: Int[Tensor, "b t"], cache: Cache | None = None
    ) -> dict[str, Tensor]:
        """What the model is called with; behind a prefix, what it returns begins with the prefix's own positions."""
        if self.prefix is None:
            return {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions}
        rows, width = len(ids), len(self.prefix)
        seen = {
            "attention_mask": torch.cat([torch.ones(rows, width, dtype=torch.long, device=ids.device), mask.long()], dim=1),
            "position_ids": positions + width,
        }
        if cache is not None and cache.get_seq_length():
            return {"input_ids": ids, **seen}
        embedded = self.model.get_input_embeddings()(ids)
        learned = self.prefix.to(embedded.dtype).expand(rows, -1, -1)
        before = torch.arange(width, device=ids.device).expand(rows, -1)
        return {
            "inputs_embeds": torch.cat([learned, embedded], dim=1),
            "attention_mask": seen["attention_mask"],
            "position_ids": torch.cat([before, seen["position_ids"]], dim=1),
        }

    def forward_lower(
        self,
        ids: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b s"],
        *,
        positions: Int[Tensor, "b t"],
        depth: int,
        known: CachedHidden | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "b t d"]:
        """The residual stream after the first `depth` layers, before any final norm; layers under `known` are not read again.

        With a cache, `ids` follow what it holds and `mask` covers both.
        """
        if known is not None and known.depth == depth:
            return known.hidden
        seen: list[Tensor] = []
        with self._only_layers(known, depth), self.record_hidden(depth, seen.append):
            self.inner(**self.inputs(ids, mask, positions, cache), past_key_values=cache, use_cache=cache is not None)
        return seen[0][:, -ids.shape[1] :]

    def forward_upper(
        self, below: CachedHidden | None, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], *, positions: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b t d"]:
        """The last hidden states, after the final norm, from what the lowest layers made of `ids`."""
        with self._only_layers(below, self.depth):
            return self.read(ids, mask, positions=positions)

    @contextmanager
    def record_hidden(self, depth: int, see: Callable[[Tensor], Any]) -> Iterator[None]:
        """Inside, `see` is called with what each pass has after the first `depth` layers."""
        hook = self.layers[depth - 1].register_forward_hook(lambda _, __, out: see(out[0] if isinstance(out, tuple) else out))
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def _only_layers(self, below: CachedHidden | None, last: int) -> Iterator[None]:
        """Inside, only layers above `below` and up to `last` are read, from `below`; the others hand on what they are given."""
        first = 0 if below is None else below.depth
        if (first, last) == (0, self.depth):
            yield
            return
        # The list keeps its length: architectures look up each layer's kind of attention by its place.
        shown = [self.layers[i] if first <= i < last else self._skipped[i] for i in range(self.depth)]
        setattr(self.inner, self.name, nn.ModuleList(shown))
        if below is not None:
            self._skipped[first - 1].hidden = below.hidden
        try:
            yield
        finally:
            setattr(self.inner, self.name, self.layers)
            if below is not None:
                self._skipped[first - 1].hidden = None

    @torch.inference_mode()
    def _check_partial_forward(self) -> bool:
        """Whether two parts make the whole, tried on a few tokens; also learns what a layer returns."""
        device = next(self.model.parameters()).device
        ids = torch.arange(10, device=device).reshape(2, 5) % self.model.config.get_text_config().vocab_size
        mask = torch.ones_like(ids, dtype=torch.bool)
        mask[0, :2] = False
        places = (mask.long().cumsum(-1) - 1).clamp(min=0)
        returned: list[Any] = []
        hook = self.layers[0].register_forward_hook(lambda _, __, out: returned.append(out))
        try:
            whole = self.read(ids, mask, positions=places)
            for passed in self._skipped:
                passed.as_tuple = isinstance(returned[0], tuple)
            middle = max(1, self.depth // 2)
            below = self.forward_lower(ids, mask, positions=places, depth=middle)
            above = self.forward_upper(CachedHidden(middle, below), ids, mask, positions=places)
        except Exception:
            # An architecture of another build: whatever it raised, it cannot be read in parts.
            return False
        finally:
            hook.remove()
        difference = (whole - above)[mask].float().norm()
        return bool(difference <= PARTIAL_FORWARD_TOLERANCE * whole[mask].float().norm())


class SkippedLayer(nn.Module):
    """In the place of a layer that is not read."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        # Not a submodule: the layer's weights are the model's.
        object.__setattr__(self, "layer", layer)
        self.hidden: Tensor | None = None
        self.as_tuple = False

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "layer"), name)

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor | tuple[Tensor]:
        given = hidden_states if self.hidden is None else self.hidden
        return (given,) if self.as_tuple else given


class BatchKVCache:
    """Keys and values of a batch, in memory that is taken once; rows may leave or be repeated.

    Architectures with other than full attention get transformers' own growing cache.
    """

    def __init__(self, config: Any, width: int):
        self.cache = DynamicCache(config=config)
        # A plain growing layer copies all it holds at each token.
        if all(type(layer) is DynamicLayer for layer in self.cache.layers):
            self.cache.layers = [PreallocatedLayer(width) for _ in self.cache.layers]
        # Layers that carry another state beside keys and values cannot give up a row.
        self.can_drop_rows = all(isinstance(layer, DynamicLayer) for layer in self.cache.layers)

    def select(self, rows: Int[Tensor, " n"]) -> None:
        """Keeps these rows, in this order; a row may be named more than once."""
        self.cache.batch_select_indices(rows)


class PreallocatedLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers registers subclasses in untyped code
    """A growing layer whose memory is there from the start."""

    def __init__(self, width: int):
        super().__init__()  # type: ignore[no-untyped-call]  # transformers leaves it without types
        self.width, self.filled = width, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._keys, self._values = (
            states.new_empty(*states.shape[:2], self.width, states.shape[-1]) for states in (key_states, value_states)
        )

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.filled + key_states.shape[-2]
        self._keys[:, :, self.filled : end] = key_states
        self._values[:, :, self.filled : end] = value_states
        self.filled = end
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.filled

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.filled + query_length, 0

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.is_initialized:
            self._keys, self._values = self._keys[indices], self._values[indices]
            self.keys, self.values = self._keys[:, :, : self.filled], self._values[:, :, : self.filled]


def _layer_list(inner: nn.Module, depth: int) -> tuple[str, nn.ModuleList]:
    """The name and the list of the decoder layers; an empty list where the architecture has none of that length."""
    found = ((name, child) for name, child in inner.named_children() if isinstance(child, nn.ModuleList) and len(child) == depth)
    return next(found, ("", nn.ModuleList()))
