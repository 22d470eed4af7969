"""Forward passes through the decoder layers of a causal language model, all or some of them, with or without a KV cache.

Partial forward passes make one frozen backbone cheap: activations below the lowest adapter are computed once and cached. They
work for any architecture with a list of decoder layers that pass one hidden state on; elsewhere `supports_partial_forward` is
False and every pass is full. Leaves out log-probabilities (`lm_head`) and what PEFT switches (`adapters`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from rlhf.models.adapters import AdapterChoice, Adapters
from rlhf.models.kv_cache import SlotCache, has_slots
from rlhf.models.lora import use_cast_weights
from rlhf.models.padding import positions

T = TypeVar("T")

AttentionMask = Bool[Tensor, "b s"] | Bool[Tensor, "b 1 t s"] | Mapping[str, Bool[Tensor, "b 1 t s"] | None]

PARTIAL_FORWARD_TOLERANCE = 2e-2
"""Largest relative difference between one full pass and two partial ones; bfloat16 rounds at 4e-3."""


class CachedHidden(NamedTuple):
    """Activations of the lowest layers: the residual stream after the first `depth` of them, before any norm."""

    depth: int
    hidden: Float[Tensor, "*b t d"]


class Decoder:
    """The layers between the embedding and the final norm of `model`.

    Each layer's forward is wrapped once, here, by a function that asks what the current pass is to run (`LayerPlan`). Modules, their
    names and their hooks stay as they are, and a pass in one thread knows nothing of another's.
    """

    def __init__(self, model: PreTrainedModel, adapters: Adapters | None = None):
        self.model, self.adapters = model, Adapters(model) if adapters is None else adapters
        self.inner = model.base_model
        self.depth: int = model.config.get_text_config().num_hidden_layers
        self.checkpoint_layers = False
        """Whether each layer's activations are computed again in the backward pass, and not kept until then."""
        self.layers = _layer_list(self.inner, self.depth)
        self._layers_return_tuples = False
        for index, layer in enumerate(self.layers):
            # A method of the instance: hooks, and what wraps `__call__`, come before it as before any other forward.
            layer.forward = self._planned(index, layer.forward)
        self.inner.forward = self._or_given(self.inner.forward)
        self.supports_partial_forward = len(self.layers) > 0 and self._check_partial_forward()
        self.supports_slots = has_slots(model.config) and self._check_slots()
        """Whether rows of different lengths can stand in one cache, so that they join and leave a batch between steps."""

    @property
    def records_activations(self) -> bool:
        """Whether the activations of the lowest layers can be recorded while answers are sampled, and passes begin above them."""
        return self.supports_partial_forward and self.supports_slots

    def forward(
        self,
        ids: Int[Tensor, "b t"],
        mask: AttentionMask,
        *,
        positions: Int[Tensor, "b t"],
        cache: Cache | None = None,
        adapter: AdapterChoice,
    ) -> Float[Tensor, "b t d"]:
        """The last hidden states, after the final norm.

        Args:
            mask: which tokens are read: [b, s], where s covers what the cache holds and `ids`; or which key each query attends to,
                [b, 1, t, s], for all layers or by their attention type, which is passed to the model as it is.
            cache: keys and values of the tokens before `ids`, to which those of `ids` are added.
            adapter: what the pass reads through.

        Raises:
            ValueError: the adapter is a learned prompt, and the mask has a row for each query.
        """
        hidden: Tensor = self._run(ids, mask, positions, cache, adapter).last_hidden_state
        return hidden[:, -ids.shape[1] :]

    def forward_slots(
        self,
        ids: Int[Tensor, "n t"],
        starts: Int[Tensor, " n"],
        slots: SlotCache,
        *,
        width: int,
        last: int,
        prefix: bool = False,
        depth: int | None = None,
        adapter: AdapterChoice,
    ) -> Float[Tensor, "n t d"]:
        """The last hidden states of tokens that follow each row's first `starts` columns in the cache.

        Args:
            width: columns that are read; the longest row's, with these tokens.
            last: the last position that the model has; columns beyond it, which only padding has, get that position.
            prefix: put the learned vectors of prompt tuning before the tokens, which then begin after them.
            depth: run this many of the lowest layers alone, for those who record their activations; what is returned has no meaning then.
        """
        plan = None if depth is None else LayerPlan(self, None, depth)
        with self.adapters.applied(adapter) as vectors, _plan.within(plan):
            learned = vectors if prefix else None
            slots.begin(starts, ids.shape[1] + (0 if learned is None else len(learned)), width)
            given = {"input_ids": ids}
            if learned is not None:
                embedded = self.model.get_input_embeddings()(ids)
                given = {"inputs_embeds": torch.cat([learned.to(embedded.dtype).expand(len(ids), -1, -1), embedded], dim=1)}
            places = slots.positions.clamp(max=last)
            out = self.inner(**given, attention_mask=slots.mask(), position_ids=places, past_key_values=slots.cache, use_cache=True)
        hidden: Tensor = out.last_hidden_state
        return hidden[:, -ids.shape[1] :]

    def forward_lower(
        self,
        ids: Int[Tensor, "b t"],
        mask: AttentionMask,
        *,
        positions: Int[Tensor, "b t"],
        depth: int,
        cached: CachedHidden | None = None,
        cache: Cache | None = None,
        adapter: AdapterChoice,
    ) -> Float[Tensor, "b t d"]:
        """The residual stream after the first `depth` layers, before any final norm; layers up to `cached.depth` are skipped.

        With a cache, `ids` follow what it holds and `mask` covers both. Where partial passes are not supported, all layers are run.
        """
        if not self.supports_partial_forward:
            hidden: Tensor = self._run(ids, mask, positions, cache, adapter, output_hidden_states=True).hidden_states[depth]
            return hidden[:, -ids.shape[1] :]
        return self._forward_lower(ids, mask, positions, depth, cached, cache, adapter)

    def _forward_lower(
        self,
        ids: Tensor,
        mask: AttentionMask,
        positions: Tensor,
        depth: int,
        cached: CachedHidden | None,
        cache: Cache | None,
        adapter: AdapterChoice,
    ) -> Tensor:
        if cached is not None and cached.depth == depth:
            return cached.hidden
        recorded: list[Tensor] = []
        with _plan.within(LayerPlan(self, cached, depth)), self.record_hidden(depth, recorded.append):
            self._run(ids, mask, positions, cache, adapter)
        return recorded[0][:, -ids.shape[1] :]

    def forward_upper(
        self,
        cached: CachedHidden | None,
        ids: Int[Tensor, "b t"],
        mask: AttentionMask,
        *,
        positions: Int[Tensor, "b t"],
        adapter: AdapterChoice,
    ) -> Float[Tensor, "b t d"]:
        """The last hidden states, after the final norm, computed from the cached activations of the lowest layers."""
        with _plan.within(LayerPlan(self, cached, self.depth)):
            return self.forward(ids, mask, positions=positions, adapter=adapter)

    def logits(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """The model's own head on these last hidden states, with whatever it does beside a product (a cap, a scale)."""
        ids = torch.zeros(1, hidden[..., 0].numel(), dtype=torch.long, device=hidden.device)
        with _given.within(GivenOutput(self, hidden.reshape(1, -1, hidden.shape[-1]))):
            logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits.view(*hidden.shape[:-1], -1)

    @contextmanager
    def record_hidden(self, depth: int, record: Callable[[Tensor], Any]) -> Iterator[None]:
        """Inside the block, `record` is called with the hidden states after the first `depth` layers of each pass of this thread."""
        with _recorders.within((*_recorders.get(), HiddenRecord(self, depth, record))):
            yield

    def _run(
        self, ids: Tensor, mask: AttentionMask, positions: Tensor, cache: Cache | None, adapter: AdapterChoice, **options: bool
    ) -> Any:
        """The inner model's output; with a learned prompt it begins with the positions of the prompt."""
        with self.adapters.applied(adapter) as prefix, _adapter.within(adapter), use_cast_weights(self.adapters.cast(adapter)):
            inputs = self._inputs(ids, mask, positions, cache, prefix)
            return self.inner(**inputs, past_key_values=cache, use_cache=cache is not None, **options)

    def _inputs(
        self, ids: Tensor, mask: AttentionMask, positions: Tensor, cache: Cache | None, prefix: Float[Tensor, "v d"] | None
    ) -> dict[str, Any]:
        """The model's keyword arguments."""
        if not isinstance(mask, Tensor) or mask.dim() > 2:
            if prefix is not None:
                raise ValueError("a learned prompt adds positions of its own: give a mask of tokens, [b, s]")
            return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        if prefix is None:
            return {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions}
        rows, width = len(ids), len(prefix)
        shifted = {
            "attention_mask": torch.cat([torch.ones(rows, width, dtype=torch.long, device=ids.device), mask.long()], dim=1),
            "position_ids": positions + width,
        }
        if cache is not None and cache.get_seq_length():
            return {"input_ids": ids, **shifted}
        embedded = self.model.get_input_embeddings()(ids)
        vectors = prefix.to(embedded.dtype).expand(rows, -1, -1)
        prefix_positions = torch.arange(width, device=ids.device).expand(rows, -1)
        return {
            "inputs_embeds": torch.cat([vectors, embedded], dim=1),
            "attention_mask": shifted["attention_mask"],
            "position_ids": torch.cat([prefix_positions, shifted["position_ids"]], dim=1),
        }

    def _planned(self, index: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A layer's forward that follows the plan of the current pass: a layer that is not run passes its input on."""

        @wraps(forward)
        def planned(*args: Any, **kwargs: Any) -> Any:
            plan = _plan.get()
            if plan is None or plan.decoder is not self or plan.first <= index < plan.last:
                again = self.checkpoint_layers and torch.is_grad_enabled()
                output = self._checkpointed(forward, *args, **kwargs) if again else forward(*args, **kwargs)
            else:
                hidden = args[0] if args else kwargs["hidden_states"]
                if plan.cached is not None and index == plan.first - 1:
                    hidden = plan.cached.hidden
                output = (hidden,) if self._layers_return_tuples else hidden
            for recorder in _recorders.get():
                if recorder.decoder is self and recorder.depth == index + 1:
                    recorder.record(output[0] if isinstance(output, tuple) else output)
            return output

        return planned

    def _checkpointed(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A layer's output, whose activations the backward pass computes again (Chen 2016, arXiv 1604.06174).

        By then another pass may have switched the adapter, and on an accelerator another thread computes it: the adapter is bound here.
        """
        adapter = _adapter.get()

        def layer(*args: Any, **kwargs: Any) -> Any:
            with self.adapters.applied(adapter):
                return forward(*args, **kwargs)

        # Nothing in a layer is random: the base is in eval mode.
        return checkpoint(layer, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    def _or_given(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The inner model's forward, unless this pass has its output already."""

        @wraps(forward)
        def computed(*args: Any, **kwargs: Any) -> Any:
            given = _given.get()
            if given is None or given.decoder is not self:
                return forward(*args, **kwargs)
            return BaseModelOutputWithPast(last_hidden_state=given.hidden)

        return computed

    @torch.inference_mode()
    def _check_partial_forward(self) -> bool:
        """Whether two partial passes equal a full one, tried on a few tokens. Also sets whether a layer returns a tuple."""
        device = next(self.model.parameters()).device
        ids = torch.arange(10, device=device).reshape(2, 5) % self.model.config.get_text_config().vocab_size
        mask = torch.ones_like(ids, dtype=torch.bool)
        mask[0, :2] = False
        places = positions(mask)
        returned: list[Any] = []
        hook = self.layers[0].register_forward_hook(lambda _, __, out: returned.append(out))
        try:
            full = self.forward(ids, mask, positions=places, adapter=None)
            self._layers_return_tuples = isinstance(returned[0], tuple)
            middle = max(1, self.depth // 2)
            lower = self._forward_lower(ids, mask, places, middle, None, None, None)
            from_parts = self.forward_upper(CachedHidden(middle, lower), ids, mask, positions=places, adapter=None)
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
        slots, start = SlotCache(self.model), torch.tensor([0, 0], device=device)
        try:
            full = [
                self.forward(row[None], everywhere[:, : len(row)], positions=torch.arange(len(row), device=device)[None], adapter=None)[0]
                for row in (ids[0], ids[1, :4])
            ]
            self.forward_slots(ids[:, :3], start, slots, width=3, last=9, adapter=None)
            rest = torch.stack([ids[0, 3:5], ids[1, 2:4]])
            parts = self.forward_slots(rest, start + torch.tensor([3, 2], device=device), slots, width=5, last=9, adapter=None)
        except Exception:
            # The architecture is built in another way: whatever it raised, its rows cannot stand in slots.
            return False
        return all(
            bool((row[-2:] - part).float().norm() <= PARTIAL_FORWARD_TOLERANCE * row[-2:].float().norm())
            for row, part in zip(full, parts, strict=True)
        )


class LayerPlan(NamedTuple):
    """Which layers one pass runs: those after the cached activations and before `last`."""

    decoder: Decoder
    cached: CachedHidden | None
    last: int

    @property
    def first(self) -> int:
        return 0 if self.cached is None else self.cached.depth


class GivenOutput(NamedTuple):
    """The last hidden states of a pass that computes the head alone."""

    decoder: Decoder
    hidden: Float[Tensor, "1 n d"]


class HiddenRecord(NamedTuple):
    """Who is told the hidden states after the first `depth` layers."""

    decoder: Decoder
    depth: int
    record: Callable[[Tensor], Any]


class _OfThisPass(Generic[T]):
    """A value that only the thread which sets it sees, for as long as its block lasts."""

    def __init__(self, name: str, default: T):
        self._variable: ContextVar[T] = ContextVar(name, default=default)
        self.get = self._variable.get

    @contextmanager
    def within(self, value: T) -> Iterator[None]:
        token = self._variable.set(value)
        try:
            yield
        finally:
            self._variable.reset(token)


_adapter: _OfThisPass[AdapterChoice] = _OfThisPass("adapter", None)
_plan: _OfThisPass[LayerPlan | None] = _OfThisPass("plan", None)
_given: _OfThisPass[GivenOutput | None] = _OfThisPass("given", None)
_recorders: _OfThisPass[tuple[HiddenRecord, ...]] = _OfThisPass("recorders", ())


def _layer_list(inner: nn.Module, depth: int) -> nn.ModuleList:
    """The list of the decoder layers; an empty one where the architecture has none of that length."""
    lists = (child for child in inner.children() if isinstance(child, nn.ModuleList) and len(child) == depth)
    return next(lists, nn.ModuleList())
