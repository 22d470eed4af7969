"""The loss on demonstrations beside PPO's, which keeps the policy a writer of good text (Ouyang 2022, eq. 2).

Ouyang takes the text that the base was pretrained on; here it is the ideal answers of annotators.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rlhf.data.demonstrations import Demonstration
from rlhf.models.backbone import Backbone, pad_right, positions
from rlhf.reward.model import TokenizedExample


def encode(backbone: Backbone, demonstrations: Sequence[Demonstration]) -> list[TokenizedExample]:
    """Prompt, answer and end of sequence, for ending is a part of answering well."""
    asked = [backbone.encode(d.prompt) for d in demonstrations]
    return [
        TokenizedExample([*prompt, *backbone.encode_answer(d.text), backbone.eos_id], len(prompt))
        for prompt, d in zip(asked, demonstrations, strict=True)
    ]


def summed_nll(backbone: Backbone, rows: Sequence[TokenizedExample], temperature: float) -> Float[Tensor, ""]:
    """-log pi(answer | prompt) in nats, summed over answer tokens, through the adapter in use.

    `pi` is the distribution that is sampled, so the temperature divides the logits here too.
    """
    ids, real = (x.to(backbone.device) for x in pad_right([r.ids for r in rows], backbone.pad_id))
    starts = torch.tensor([r.start for r in rows], device=backbone.device)
    answer = (real & (torch.arange(ids.shape[1], device=backbone.device) >= starts[:, None]))[:, 1:]
    hidden = backbone.decoder.read(ids[:, :-1], real[:, :-1], positions=positions(real[:, :-1]))
    return -backbone.chosen(hidden[answer], ids[:, 1:][answer], temperature).logprobs.sum()


def batch(rows: Sequence[TokenizedExample], number: int, size: int, rng: torch.Generator) -> list[TokenizedExample]:
    """The demonstrations of an epoch's minibatch `number`: passes in the order that `rng` draws, cut into batches."""
    order = torch.randperm(len(rows), generator=rng).tolist()
    return [rows[order[(number * size + i) % len(rows)]] for i in range(min(size, len(rows)))]


def add_gradients(backbone: Backbone, rows: Sequence[TokenizedExample], coef: float, temperature: float, *, at_once: int = 0) -> float:
    """Adds up the gradients of `coef` times the mean loss per answer token, so many rows at once; returns that mean."""
    tokens = sum(len(row.ids) - row.start for row in rows)
    size, total = at_once or len(rows), 0.0
    for start in range(0, len(rows), size):
        nll = summed_nll(backbone, rows[start : start + size], temperature)
        (coef / tokens * nll).backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        total += nll.item()
    return total / tokens
