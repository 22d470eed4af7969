"""Forward passes through the decoder layers of a causal language model, all or some of them, with or without a KV cache.

Partial forward passes make one frozen backbone cheap: activations below the lowest adapter are computed once and cached. They
work for any architecture with a list of decoder layers that pass one hidden state on; elsewhere `supports_partial_forward` is
False and every pass is full. Leaves out adapters and heads (`backbone`).
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

from rlhf.models.kv_cache import SlotCache, has_slots

PARTIAL_FORWARD_TOLERANCE = 2e-2
"""Largest relative difference between one full pass and two partial ones; bfloat16 rounds at 4e-3."""


class CachedHidden(NamedTuple):
    """Activations of the lowest layers: the residual stream after the first `depth` of them, before any norm."""

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
        """Learned vectors before the token embeddings of every row (prompt tuning); no output is returned for their positions."""
        self.supports_partial_forward = len(self.layers) > 0 and self._check_partial_forward()
        self.supports_slots = has_slots(model.config) and self._check_slots()
        """Whether rows of different lengths can stand in one cache, so that they join and leave a batch between steps."""

    @property
    def records_activations(self) -> bool:
        """Whether the activations of the lowest layers can be recorded while answers are sampled, and passes begin above them."""
        return self.supports_partial_forward and self.supports_slots

    def forward(
        self, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b s"], *, positions: Int[Tensor, "b t"], cache: Cache | None = None
    ) -> Float[Tensor, "b t d"]:
        """The last hidden states, after the final norm. With a cache, `ids` follow what it holds and `mask` covers both."""
        out = self.inner(**self.inputs(ids, mask, positions, cache), past_key_values=cache, use_cache=cache is not None)
        hidden: Tensor = out.last_hidden_state
        return hidden[:, -ids.shape[1] :]

    def inputs(
        self, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b s"], positions: Int[Tensor, "b t"], cache: Cache | None = None
    ) -> dict[str, Tensor]:
        """The model's keyword arguments; with a prefix, its output begins with the positions of the prefix."""
        if self.prefix is None:
            return {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions}
        rows, width = len(ids), len(self.prefix)
        shifted = {
            "attention_mask": torch.cat([torch.ones(rows, width, dtype=torch.long, device=ids.device), mask.long()], dim=1),
            "position_ids": positions + width,
        }
        if cache is not None and cache.get_seq_length():
            return {"input_ids": ids, **shifted}
        embedded = self.model.get_input_embeddings()(ids)
        prefix = self.prefix.to(embedded.dtype).expand(rows, -1, -1)
        prefix_positions = torch.arange(width, device=ids.device).expand(rows, -1)
        return {
            "inputs_embeds": torch.cat([prefix, embedded], dim=1),
            "attention_mask": shifted["attention_mask"],
            "position_ids": torch.cat([prefix_positions, shifted["position_ids"]], dim=1),
        }

    def forward_slots(
        self, ids: Int[Tensor, "n t"], starts: Int[Tensor, " n"], slots: SlotCache, *, width: int, last: int, prefix: bool = False
    ) -> Float[Tensor, "n t d"]:
        """The last hidden states of tokens that follow each row's first `starts` columns in the cache.

        Args:
            width: columns that are read; the longest row's, with these tokens.
            last: the last position that the model has; columns beyond it, which only padding has, get that position.
            prefix: put the learned vectors of prompt tuning before the tokens, which then begin after them.
        """
        learned = self.prefix if prefix else None
        tokens = ids.shape[1] + (0 if learned is None else len(learned))
        slots.begin(starts, tokens, width)
        if learned is None:
            given = {"input_ids": ids}
        else:
            embedded = self.model.get_input_embeddings()(ids)
            given = {"inputs_embeds": torch.cat([learned.to(embedded.dtype).expand(len(ids), -1, -1), embedded], dim=1)}
        # transformers takes a dictionary of masks where layers attend in different ways.
        mask: Any = slots.mask()
        out = self.inner(
            **given, attention_mask=mask, position_ids=slots.positions.clamp(max=last), past_key_values=slots.cache, use_cache=True
        )
        hidden: Tensor = out.last_hidden_state
        return hidden[:, -ids.shape[1] :]

    def forward_lower(
        self,
        ids: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b s"],
        *,
        positions: Int[Tensor, "b t"],
        depth: int,
        cached: CachedHidden | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "b t d"]:
        """The residual stream after the first `depth` layers, before any final norm; layers up to `cached.depth` are skipped.

        With a cache, `ids` follow what it holds and `mask` covers both.
        """
        if cached is not None and cached.depth == depth:
            return cached.hidden
        recorded: list[Tensor] = []
        with self._only_layers(cached, depth), self.record_hidden(depth, recorded.append):
            self.inner(**self.inputs(ids, mask, positions, cache), past_key_values=cache, use_cache=cache is not None)
        return recorded[0][:, -ids.shape[1] :]

    def forward_upper(
        self, cached: CachedHidden | None, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], *, positions: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b t d"]:
        """The last hidden states, after the final norm, computed from the cached activations of the lowest layers."""
        with self._only_layers(cached, self.depth):
            return self.forward(ids, mask, positions=positions)

    @contextmanager
    def record_hidden(self, depth: int, record: Callable[[Tensor], Any]) -> Iterator[None]:
        """Inside the block, `record` is called with each pass's hidden states after the first `depth` layers."""
        hook = self.layers[depth - 1].register_forward_hook(lambda _, __, out: record(out[0] if isinstance(out, tuple) else out))
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def _only_layers(self, cached: CachedHidden | None, last: int) -> Iterator[None]:
        """Inside the block, a pass starts from `cached` and runs only the layers after it up to `last`; the others pass their input on."""
        first = 0 if cached is None else cached.depth
        if (first, last) == (0, self.depth):
            yield
            return
        # The list keeps its length, because architectures look up a layer's attention type by its index.
        active = [self.layers[i] if first <= i < last else self._skipped[i] for i in range(self.depth)]
        setattr(self.inner, self.name, nn.ModuleList(active))
        if cached is not None:
            self._skipped[first - 1].hidden = cached.hidden
        try:
            yield
        finally:
            setattr(self.inner, self.name, self.layers)
            if cached is not None:
                self._skipped[first - 1].hidden = None

    @torch.inference_mode()
    def _check_partial_forward(self) -> bool:
        """Whether two partial passes equal a full one, tried on a few tokens. Also sets whether a layer returns a tuple."""
        device = next(self.model.parameters()).device
        ids = torch.arange(10, device=device).reshape(2, 5) % self.model.config.get_text_config().vocab_size
        mask = torch.ones_like(ids, dtype=torch.bool)
        mask[0, :2] = False
        position_ids = (mask.long().cumsum(-1) - 1).clamp(min=0)
        returned: list[Any] = []
        hook = self.layers[0].register_forward_hook(lambda _, __, out: returned.append(out))
        try:
            full = self.forward(ids, mask, positions=position_ids)
            for skipped in self._skipped:
                skipped.as_tuple = isinstance(returned[0], tuple)
            middle = max(1, self.depth // 2)
            lower = self.forward_lower(ids, mask, positions=position_ids, depth=middle)
            from_parts = self.forward_upper(CachedHidden(middle, lower), ids, mask, positions=position_ids)
        except Exception:
            # The architecture is built in another way: whatever it raised, partial passes do not work.
            return False
        finally:
            hook.remove()
        difference = (full - from_parts)[mask].float().norm()
        return bool(difference <= PARTIAL_FORWARD_TOLERANCE * full[mask].float().norm())

    @torch.inference_mode()
    def _check_slots(self) -> bool:
        """Whether two rows of different lengths in slots equal a full pass over each, tried on a few tokens in two parts."""
        device = next(self.model.parameters()).device
        ids = torch.arange(10, device=device).reshape(2, 5) % self.model.config.get_text_config().vocab_size
        everywhere = torch.ones(1, 5, dtype=torch.bool, device=device)
        slots = SlotCache(self.model.config)
        try:
            full = [
                self.forward(row[None], everywhere[:, : len(row)], positions=torch.arange(len(row), device=device)[None])[0]
                for row in (ids[0], ids[1, :4])
            ]
            start = torch.tensor([0, 0], device=device)
            self.forward_slots(ids[:, :3], start, slots, width=3, last=9)
            parts = self.forward_slots(
                torch.stack([ids[0, 3:5], ids[1, 2:4]]), start + torch.tensor([3, 2], device=device), slots, width=5, last=9
            )
        except Exception:
            # The architecture is built in another way: whatever it raised, its rows cannot stand in slots.
            return False
        return all(
            bool((row[-2:] - part).float().norm() <= PARTIAL_FORWARD_TOLERANCE * row[-2:].float().norm())
            for row, part in zip(full, parts, strict=True)
        )


class SkippedLayer(nn.Module):
    """Stands in for a layer that is not run, and returns its input or the cached hidden states."""

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
        hidden = hidden_states if self.hidden is None else self.hidden
        return (hidden,) if self.as_tuple else hidden


class BatchKVCache:
    """Keys and values of a batch, in memory that is allocated once; rows can be dropped or repeated.

    Architectures with other than full attention get transformers' own growing cache.
    """

    def __init__(self, config: Any, width: int):
        self.cache = DynamicCache(config=config)
        # transformers' growing layer copies all keys and values at each token.
        if all(type(layer) is DynamicLayer for layer in self.cache.layers):
            self.cache.layers = [PreallocatedLayer(width) for _ in self.cache.layers]
        # Layers with another state beside keys and values cannot drop rows.
        self.can_drop_rows = all(isinstance(layer, DynamicLayer) for layer in self.cache.layers)

    def select(self, rows: Int[Tensor, " n"]) -> None:
        """Selects these rows, in this order; a row may be repeated."""
        self.cache.batch_select_indices(rows)


class PreallocatedLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers registers subclasses in untyped code
    """A cache layer whose memory is allocated at its first update for all positions to come."""

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
    candidates = ((name, child) for name, child in inner.named_children() if isinstance(child, nn.ModuleList) and len(child) == depth)
    return next(candidates, ("", nn.ModuleList()))
