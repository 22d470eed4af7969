"""Rows of token ids of different lengths as one batch, and the positions of its real tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def positions(mask: Bool[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """0, 1, 2, ... over the real tokens; padding gets 0."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def pad_left(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Ids and mask of rows of different lengths, padded on the left."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        if row:
            ids[i, width - len(row) :] = torch.tensor(row)
            mask[i, width - len(row) :] = True
    return ids, mask


def pad_right(rows: Sequence[Sequence[int]], pad_id: int, width: int | None = None) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Ids and mask of rows of different lengths, padded on the right."""
    width = max(len(row) for row in rows) if width is None else width
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[i, : len(row)] = True
    return ids, mask
