"""Attention over short rows on a processor, as three batched products.

torch's own CPU kernel is made for long rows: over the few dozen tokens of a rollout it takes several times as long as the
products themselves. Scores and softmax are float32, as there; anything unusual, long, or on an accelerator uses torch's kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION_NAME = "short_rows"

MAX_KEY_LENGTH = 512
"""Longest key sequence for which the whole score matrix is held in memory."""


def use_short_row_attention(model: PreTrainedModel) -> None:
    """Switches the model to this attention, if it uses torch's SDPA kernel on a processor."""
    if model.config._attn_implementation != "sdpa" or model.device.type != "cpu":
        return
    AttentionInterface.register(ATTENTION_NAME, attend)
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
    model.set_attn_implementation(ATTENTION_NAME)


def attend(
    module: torch.nn.Module,
    query: Float[Tensor, "b h t d"],
    key: Float[Tensor, "b g s d"],
    value: Float[Tensor, "b g s e"],
    attention_mask: Shaped[Tensor, "#b 1 t s"] | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "b t h e"], None]:
    """`softmax(scaling Q K^T + mask) V` (Vaswani 2017, arXiv 1706.03762, eq. 1), with fewer key than query heads allowed."""
    unsupported = ("position_bias", "cache", "softcap", "s_aux")
    unusual = dropout or any(kwargs.get(name) is not None for name in unsupported) or key.shape[-1] != value.shape[-1]
    if unusual or key.shape[2] > MAX_KEY_LENGTH or (attention_mask is not None and attention_mask.dtype != torch.bool):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
    t, s = query.shape[2], key.shape[2]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if attention_mask is None and t > 1 and causal:
        # As in torch: a missing mask stands for the plain causal one.
        attention_mask = torch.ones(t, s, dtype=torch.bool).tril()
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    out: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]  # torch leaves it without types
        query, key, value, attention_mask, scaling
    )
    return out.transpose(1, 2), None


class _Attention(torch.autograd.Function):
    """Query heads that share a key head are stacked along the rows of one product (grouped-query attention)."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "b h t d"],
        key: Float[Tensor, "b g s d"],
        value: Float[Tensor, "b g s d"],
        mask: Bool[Tensor, "*b t s"] | None,
        scaling: float,
    ) -> Float[Tensor, "b h t d"]:
        b, h, t, d = query.shape
        g, s = key.shape[1:3]
        q = query.reshape(b * g, h // g * t, d)
        k, v = (x.reshape(b * g, s, d) for x in (key, value))
        scores = torch.bmm(q.float() * scaling, k.float().transpose(1, 2)).view(b, h, t, s)
        if mask is not None:
            # Not minus infinity: a row of padding attends to nothing, and its softmax must not become NaN.
            scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
        p = scores.softmax(-1).to(query.dtype).view(b * g, h // g * t, s)
        ctx.save_for_backward(q, k, v, p)
        ctx.scaling, ctx.shapes = scaling, (query.shape, key.shape)
        return torch.bmm(p, v).view(b, h, t, d)

    @staticmethod
    def backward(
        ctx: Any, grad_output: Float[Tensor, "b h t d"]
    ) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b g s d"], Float[Tensor, "b g s d"], None, None]:
        q, k, v, p = ctx.saved_tensors
        query_shape, key_shape = ctx.shapes
        grad_output = grad_output.reshape(q.shape)
        grad_p = torch.bmm(grad_output, v.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_p, p, -1, p.dtype).mul_(ctx.scaling)
        return (
            torch.bmm(grad_scores, k).view(query_shape),
            torch.bmm(grad_scores.transpose(1, 2), q).view(key_shape),
            torch.bmm(p.transpose(1, 2), grad_output).view(key_shape),
            None,
            None,
        )
