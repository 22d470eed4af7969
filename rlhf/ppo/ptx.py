"""The language-modelling loss on demonstrations that PPO adds to its own, PPO-ptx (Ouyang 2022, eq. 2).

Ouyang uses pretraining text; here it is the ideal answers of annotators.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from rlhf.data.demonstrations import Demonstration
from rlhf.models.adapters import AdapterChoice
from rlhf.models.backbone import Backbone
from rlhf.models.lengths import ended_answer
from rlhf.models.padding import pad_right
from rlhf.models.ranks import Ranks
from rlhf.ppo.actor_critic import TokenBatch
from rlhf.reward.model import TokenizedExample


def encode(backbone: Backbone, demonstrations: Sequence[Demonstration]) -> list[TokenizedExample]:
    """Prompt, answer and end-of-sequence token, so that the policy learns to end its answers too; a cut answer has none."""
    prompts = [backbone.encode(d.prompt) for d in demonstrations]
    return [
        TokenizedExample([*prompt, *ended_answer(backbone, prompt, d.text)], len(prompt))
        for prompt, d in zip(prompts, demonstrations, strict=True)
    ]


def tokens(backbone: Backbone, rows: Sequence[TokenizedExample]) -> TokenBatch:
    """The rows as a forward pass takes them, which is asked for the answers."""
    ids, real = (x.to(backbone.device) for x in pad_right([r.ids for r in rows], backbone.pad_id))
    starts = torch.tensor([r.start for r in rows], device=backbone.device)
    answer = real & (torch.arange(ids.shape[1], device=backbone.device) >= starts[:, None])
    return TokenBatch(ids, real, answer[:, 1:])


def batch(rows: Sequence[TokenizedExample], number: int, size: int, rng: torch.Generator) -> list[TokenizedExample]:
    """The demonstrations of an epoch's minibatch `number`: passes over all of them in the order that `rng` gives, cut into batches."""
    order = torch.randperm(len(rows), generator=rng).tolist()
    return [rows[order[(number * size + i) % len(rows)]] for i in range(min(size, len(rows)))]


def add_gradients(model: nn.Module, batches: Iterable[TokenBatch], coef: float, *, adapter: AdapterChoice, ranks: Ranks = Ranks()) -> float:
    """Accumulates the gradients of `coef` times the mean loss per answer token; returns that mean, in nats.

    The loss is -log pi(answer | prompt), where `pi` is the distribution that is sampled: the temperature divides the logits here too.

    Args:
        model: an `ActorCritic`, or what wraps one.
        batches: this rank's share of them. The gradients are those of the share, and the mean is over all ranks.
    """
    batches = list(batches)
    count, total = ranks.total(sum(int(batch.mask.sum()) for batch in batches)), 0.0
    for batch in batches:
        nll = -model(batch, adapter=adapter, values=False).logprobs[batch.mask].sum()
        (coef / count * nll).backward()
        total += nll.item()
    return ranks.total(total) / count
