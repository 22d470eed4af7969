"""PEFT's LoRA layer in fewer passes: the same function and gradients, computed in the base's own precision.

PEFT adds the adapter in float32, which copies every input and output several times; of a PPO update on a CPU that is
most of the time. Here the low-rank product is added to the base's in one fused call. Weights, gradients and optimiser state
stay float32. Anything but one plain adapter on a plain linear layer falls back to PEFT's own forward. `RowAdapters` gives each row
of a batch an adapter of its own, without gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from rlhf.models.four_bit import is_packed


class ConcatenatedWeights(NamedTuple):
    """The adapters of one layer side by side, in the base's precision."""

    a: Float[Tensor, "R k"]
    b: Float[Tensor, "R n"]
    """scale * B^T of each adapter."""
    owner: Int[Tensor, " R"]
    """The index of the adapter to which each of the R rows belongs."""
    columns: tuple[tuple[int, int], ...]
    """(adapter's index, rank) of each adapter that this layer has, in the order of the R rows: equal where `owner` is."""


class RowAdapters:
    """An adapter for each row of a batch: `names[index[i]]` for row i, the base alone where the index is -1.

    The low-rank products of all adapters are computed for every row as two products, and those of other adapters than the row's are
    set to 0: for a few dozen rows the number of products costs more time than their size.

    Args:
        weights: cast weights by layer, filled as needed. Its owner empties it when an adapter is trained or `names` change.
        one_for_all: whether all rows have the only adapter; by default looked up in `index`, which on an accelerator is waited for.
    """

    def __init__(
        self,
        names: Sequence[str],
        index: Int[Tensor, " n"],
        weights: dict[nn.Module, ConcatenatedWeights | None],
        *,
        one_for_all: bool | None = None,
    ):
        self.names, self.index, self.weights = tuple(names), index, weights
        self._masks: dict[tuple[tuple[int, int], ...], Tensor] = {}
        # One adapter for all rows needs no mask.
        self._one_for_all = len(self.names) == 1 and bool((index == 0).all()) if one_for_all is None else one_for_all

    def mask(self, weights: ConcatenatedWeights, dtype: torch.dtype) -> Float[Tensor, "n R"] | None:
        """1 where a column belongs to the row's adapter; None where all of them do."""
        if self._one_for_all:
            return None
        if weights.columns not in self._masks:
            self._masks[weights.columns] = (self.index[:, None] == weights.owner).to(dtype)
        return self._masks[weights.columns]


_row_adapters: ContextVar[RowAdapters | None] = ContextVar("row_adapters", default=None)


@contextmanager
def use_row_adapters(rows: RowAdapters) -> Iterator[None]:
    """Inside the block, each row of the batch has its own adapter, whichever PEFT has active."""
    token = _row_adapters.set(rows)
    try:
        yield
    finally:
        _row_adapters.reset(token)


class CastWeights:
    """One adapter's matrices in the base's precision, B times its scale, cast for all layers at once.

    On an accelerator these are a few launches; each layer by itself takes three. The numbers are the same.
    """

    def __init__(self, layers: Sequence[FusedLinear], name: str, dtype: torch.dtype):
        here = [layer for layer in layers if name in layer.lora_A and layer.is_plain(name)]
        weights = [layer.weights_of(name) for layer in here]
        a, b = [a.detach() for a, _ in weights], [b.detach() for _, b in weights]
        low_a, low_b = ([torch.empty_like(weight, dtype=dtype) for weight in matrices] for matrices in (a, b))
        if here:
            torch._foreach_copy_(low_a, a)
            torch._foreach_copy_(low_b, torch._foreach_mul(b, [layer.scaling[name] for layer in here]))
        self.name = name
        self.of = dict(zip(here, zip(low_a, low_b, strict=True), strict=True))
        """(A, scale B) of each layer."""


_cast_weights: ContextVar[CastWeights | None] = ContextVar("cast_weights", default=None)


@contextmanager
def use_cast_weights(cast: CastWeights | None) -> Iterator[None]:
    """Inside the block, passes with gradients read the adapter's matrices from these."""
    token = _cast_weights.set(cast)
    try:
        yield
    finally:
        _cast_weights.reset(token)


class FusedLinear(Linear):
    """A linear layer with LoRA adapters, of which one is active."""

    def forward(self, x: Float[Tensor, "*b k"], *args: Any, **kwargs: Any) -> Float[Tensor, "*b n"]:
        if (rows := _row_adapters.get()) is not None:
            return self._forward_rows(x, rows)
        if args or kwargs or self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return super().forward(x, *args, **kwargs)
        name = self.active_adapters[0]
        base = self.base_layer
        y: Tensor
        if name not in self.lora_A or not self.is_plain(name):
            return super().forward(x)
        if not isinstance(self.lora_dropout[name], nn.Identity) and self.training:
            return super().forward(x)
        a, b = self.weights_of(name)
        if torch.is_grad_enabled() and is_packed(base):
            # Such a base gives its own gradient, and its weights to nobody.
            y = base(x) + (x @ a.to(x.dtype).T) @ (b * self.scaling[name]).to(x.dtype).T
            return y
        if torch.is_grad_enabled():
            cast = _cast_weights.get()
            low = cast.of.get(self) if cast is not None and cast.name == name else None
            y = LoraLinearFunction.apply(  # type: ignore[no-untyped-call]  # torch leaves it without types
                x, base.weight, base.bias, a, b, self.scaling[name], low
            )
            return y
        flat = x.reshape(-1, x.shape[-1])
        a_low, b_low = a.to(x.dtype), (b * self.scaling[name]).to(x.dtype)
        return self._base_output(flat).addmm_(flat @ a_low.T, b_low.T).view(*x.shape[:-1], -1)

    def is_plain(self, name: str) -> bool:
        """Whether the layer's output is the base's plus one low-rank product and nothing more."""
        is_linear = type(self.base_layer) is nn.Linear or is_packed(self.base_layer)
        return name not in self.lora_variant and not self.lora_bias[name] and is_linear

    def _base_output(self, flat: Float[Tensor, "n k"]) -> Float[Tensor, "n m"]:
        """The base's output alone, in a tensor of its own, for a pass without gradients."""
        base = self.base_layer
        if is_packed(base):
            output: Tensor = base(flat)
            return output
        assert isinstance(base, nn.Linear)
        return nn.functional.linear(flat, base.weight, base.bias)

    def _forward_rows(self, x: Float[Tensor, "n *t k"], rows: RowAdapters) -> Float[Tensor, "n *t m"]:
        base = self.base_layer
        if self not in rows.weights:
            rows.weights[self] = self.concatenated_weights(rows.names, x.dtype)
        weights = rows.weights[self]
        if weights is None:
            output: Tensor = base(x)
            return output
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ weights.a.T
        if (mask := rows.mask(weights, x.dtype)) is not None:
            low.view(len(mask), -1, low.shape[-1]).mul_(mask[:, None])
        return self._base_output(flat).addmm_(low, weights.b).view(*x.shape[:-1], -1)

    def concatenated_weights(self, names: Sequence[str], dtype: torch.dtype) -> ConcatenatedWeights | None:
        """These adapters side by side, cast to `dtype`; None where the layer has none of them."""
        here = [(i, name) for i, name in enumerate(names) if name in self.lora_A]
        if not here:
            return None
        a, b = zip(*(self.weights_of(name) for _, name in here), strict=True)
        scaled = [(weight * self.scaling[name]).T for weight, (_, name) in zip(b, here, strict=True)]
        columns = tuple((i, len(weight)) for weight, (i, _) in zip(a, here, strict=True))
        owner = torch.tensor([i for i, rank in columns for _ in range(rank)], device=a[0].device)
        return ConcatenatedWeights(torch.cat(a).to(dtype), torch.cat(scaled).to(dtype).contiguous(), owner, columns)

    def weights_of(self, name: str) -> tuple[Float[Tensor, "r k"], Float[Tensor, "n r"]]:
        """The adapter's A and B."""
        # PEFT's containers say of what they hold only that it is a module.
        return cast(nn.Linear, self.lora_A[name]).weight, cast(nn.Linear, self.lora_B[name]).weight


class LoraLinearFunction(torch.autograd.Function):
    """`y = x W^T + bias + scale (x A^T) B^T` (Hu 2021, arXiv 2106.09685, eq. 3); W is frozen.

    `low` are A and scale B in x's precision, where they have been cast already.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "*b k"],
        weight: Float[Tensor, "n k"],
        bias: Float[Tensor, " n"] | None,
        a: Float[Tensor, "r k"],
        b: Float[Tensor, "n r"],
        scale: float,
        low: tuple[Float[Tensor, "r k"], Float[Tensor, "n r"]] | None,
    ) -> Float[Tensor, "*b n"]:
        flat = x.reshape(-1, x.shape[-1])
        a_low, b_low = (a.to(x.dtype), (b * scale).to(x.dtype)) if low is None else low
        inner = flat @ a_low.T
        y = nn.functional.linear(flat, weight, bias).addmm_(inner, b_low.T)
        ctx.save_for_backward(flat, inner, weight, a_low, b_low)
        ctx.scale, ctx.dtypes = scale, (a.dtype, b.dtype)
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    def backward(
        ctx: Any, grad_output: Float[Tensor, "*b n"]
    ) -> tuple[Tensor | None, None, None, Float[Tensor, "r k"] | None, Float[Tensor, "n r"] | None, None, None]:
        flat, inner, weight, a_low, b_low = ctx.saved_tensors
        g = grad_output.reshape(-1, grad_output.shape[-1])
        grad_inner = g @ b_low
        dx = da = db = None
        if ctx.needs_input_grad[0]:
            dx = (g @ weight).addmm_(grad_inner, a_low).view(*grad_output.shape[:-1], flat.shape[-1])
        if ctx.needs_input_grad[3]:
            da = (grad_inner.T @ flat).to(ctx.dtypes[0])
        if ctx.needs_input_grad[4]:
            # Computed transposed, for the direct order is a quarter slower.
            db = (inner.T @ g).T.to(ctx.dtypes[1]) * ctx.scale
        return dx, None, None, da, db, None, None
