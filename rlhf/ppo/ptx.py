"""The language-modelling loss on demonstrations that PPO adds to its own, PPO-ptx (Ouyang 2022, eq. 2).

Ouyang uses pretraining text; here it is the ideal answers of annotators.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rlhf.data.demonstrations import Demonstration
from rlhf.models.backbone import Backbone, pad_right, positions
from rlhf.models.lengths import ended_answer
from rlhf.reward.model import TokenizedExample


def encode(backbone: Backbone, demonstrations: Sequence[Demonstration]) -> list[TokenizedExample]:
    """Prompt, answer and end-of-sequence token, so that the policy learns to end its answers too; a cut answer has none."""
    prompts = [backbone.encode(d.prompt) for d in demonstrations]
    return [
        TokenizedExample([*prompt, *ended_answer(backbone, prompt, d.text)], len(prompt))
        for prompt, d in zip(prompts, demonstrations, strict=True)
    ]


def summed_nll(backbone: Backbone, rows: Sequence[TokenizedExample], temperature: float) -> Float[Tensor, ""]:
    """-log pi(answer | prompt) in nats, summed over answer tokens, with the active adapter.

    `pi` is the distribution that is sampled, so the temperature divides the logits here too.
    """
    ids, real = (x.to(backbone.device) for x in pad_right([r.ids for r in rows], backbone.pad_id))
    starts = torch.tensor([r.start for r in rows], device=backbone.device)
    answer = (real & (torch.arange(ids.shape[1], device=backbone.device) >= starts[:, None]))[:, 1:]
    hidden = backbone.decoder.forward(ids[:, :-1], real[:, :-1], positions=positions(real[:, :-1]))
    return -backbone.token_logprobs(hidden[answer], ids[:, 1:][answer], temperature).logprobs.sum()


def batch(rows: Sequence[TokenizedExample], number: int, size: int, rng: torch.Generator) -> list[TokenizedExample]:
    """The demonstrations of an epoch's minibatch `number`: passes over all of them in the order that `rng` gives, cut into batches."""
    order = torch.randperm(len(rows), generator=rng).tolist()
    return [rows[order[(number * size + i) % len(rows)]] for i in range(min(size, len(rows)))]


def add_gradients(
    backbone: Backbone, rows: Sequence[TokenizedExample], coef: float, temperature: float, *, microbatch_size: int = 0
) -> float:
    """Accumulates the gradients of `coef` times the mean loss per answer token; returns that mean.

    Args:
        microbatch_size: rows per forward pass; 0 for all at once.
    """
    tokens = sum(len(row.ids) - row.start for row in rows)
    size, total = microbatch_size or len(rows), 0.0
    for start in range(0, len(rows), size):
        nll = summed_nll(backbone, rows[start : start + size], temperature)
        (coef / tokens * nll).backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        total += nll.item()
    return total / tokens
