"""One batch of experience: sample it, have it scored, read it with policy and reference.

What PPO learns from is exactly what was sampled: ids are kept, never text that is tokenised again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rlhf.generation.sampling import PrefixActivationCache, collect_sequences, stream
from rlhf.models.backbone import Backbone, pad_left, pad_right, positions
from rlhf.models.decoder import CachedHidden
from rlhf.reward.scoring import RewardShaper
from storage.core.records import Sampling

POLICY = "policy"


class TokenStats(NamedTuple):
    """What one pass says about the response tokens; 0 outside the mask."""

    logprobs: Float[Tensor, "b t"]
    entropy: Float[Tensor, "b t"] | None
    values: Float[Tensor, "b t"]


class Rollout(NamedTuple):
    prompts: Int[Tensor, "b p"]
    """Padded on the left, so that every response starts in the same column."""
    prompt_mask: Bool[Tensor, "b p"]
    responses: Int[Tensor, "b t"]
    """Padded on the right; the end-of-sequence token, if drawn, is part of the response."""
    mask: Bool[Tensor, "b t"]
    logprobs: Float[Tensor, "b t"]
    ref_logprobs: Float[Tensor, "b t"]
    values: Float[Tensor, "b t"]
    entropy: Float[Tensor, "b t"]
    scores: Float[Tensor, " b"]
    finished: Bool[Tensor, " b"]
    below: CachedHidden | None
    """Under the policy's lowest adapter, [b, p+t+1, d], which no update changes; None where that is the embedding."""

    def take(self, rows: Int[Tensor, " n"]) -> Rollout:
        """The chosen rows, without the columns that only others need."""
        part = Rollout._make([*(field[rows] for field in self[:-1]), self.below])
        first = int(part.prompt_mask.any(0).nonzero()[0])
        width = int(part.mask.sum(-1).max())
        last = part.prompts.shape[1] + width - 1
        return part._replace(
            prompts=part.prompts[:, first:],
            prompt_mask=part.prompt_mask[:, first:],
            below=self.below and CachedHidden(self.below.depth, self.below.hidden[rows, first:last]),
            **{name: getattr(part, name)[:, :width] for name in ("responses", "mask", "logprobs", "ref_logprobs", "values", "entropy")},
        )


def forward_logprobs(
    backbone: Backbone, value_head: nn.Module | None, part: Rollout, temperature: float, *, entropy: bool = False
) -> TokenStats:
    """Log-probabilities, entropy and values at the response tokens, through the adapter in use.

    Only what is about a response token is turned into logits.

    Args:
        entropy: work the entropy out too, with its gradient; it is heard for nothing while sampling.
    """
    # The last token is followed by nothing, so nothing need be read from it.
    ids = torch.cat([part.prompts, part.responses], dim=1)[:, :-1]
    real = torch.cat([part.prompt_mask, part.mask], dim=1)[:, :-1]
    hidden = backbone.decoder.forward_upper(part.below, ids, real, positions=positions(real))
    about = hidden[:, part.prompts.shape[1] - 1 :]
    chosen = backbone.chosen(about[part.mask], part.responses[part.mask], temperature, entropy=entropy)
    values = torch.zeros_like(part.values) if value_head is None else value_head(about.float()) * part.mask
    entropies = None if chosen.entropy is None else _placed(chosen.entropy, part.mask)
    return TokenStats(_placed(chosen.logprobs, part.mask), entropies, values)


def _placed(flat: Float[Tensor, " n"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    return torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)


@torch.no_grad()
def collect(
    backbone: Backbone,
    reward_shaper: RewardShaper,
    value_head: nn.Module,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    rng: torch.Generator,
    *,
    minibatch_size: int,
    on_progress: Callable[[], None] = lambda: None,
) -> Rollout:
    """Samples one response per prompt with the policy, has it scored, and reads it with the reference.

    What the policy itself has to say was read on the way, and so was what the frozen layers under all adapters make of it.
    """
    lowest = backbone.first_adapted_layer(POLICY)
    for_pay = min(lowest, reward_shaper.frozen_layers)
    kept = PrefixActivationCache(backbone.decoder, (lowest, for_pay))
    with backbone.use_adapter(POLICY):
        steps = []
        for step in stream(backbone, prompts, sampling, rng, return_stats=True, kept=kept):
            steps.append(step)
            on_progress()
    sampled = collect_sequences(steps, len(prompts), backbone.eos_id)
    prompt_ids, prompt_mask = (x.to(backbone.device) for x in pad_left(prompts, backbone.pad_id))
    below = kept.below(for_pay)
    scores = reward_shaper(
        prompts,
        sampled,
        on_progress,
        below
        and [
            CachedHidden(below.depth, row[prompt_ids.shape[1] - len(prompt) :]) for row, prompt in zip(below.hidden, prompts, strict=True)
        ],
    )
    mask = torch.stack([step.active_rows for step in steps], dim=1)
    stats = [step.stats for step in steps if step.stats is not None]
    rollout = Rollout(
        prompts=prompt_ids,
        prompt_mask=prompt_mask,
        responses=torch.stack([step.tokens for step in steps], dim=1),
        mask=mask,
        logprobs=torch.stack([h.logprobs for h in stats], dim=1) * mask,
        ref_logprobs=torch.zeros(mask.shape, device=backbone.device),
        values=value_head(torch.stack([h.hidden for h in stats], dim=1).float()) * mask,
        entropy=torch.stack([h.entropy for h in stats], dim=1) * mask,
        scores=scores.to(backbone.device),
        finished=torch.tensor([s.finish_reason == "stop" for s in sampled], device=backbone.device),
        below=kept.below(lowest),
    )
    # Rows of like length are read together: less padding.
    lengths = rollout.prompt_mask.sum(-1) + rollout.mask.sum(-1)
    with backbone.use_adapter(None):
        for rows in torch.split(lengths.argsort(stable=True), minibatch_size):
            part = rollout.take(rows)
            reference = forward_logprobs(backbone, None, part, sampling.temperature)
            rollout.ref_logprobs[rows, : part.responses.shape[1]] = reference.logprobs
            on_progress()
    return rollout


@torch.no_grad()
def sequence_kl(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    temperature: float,
    *,
    batch_size: int,
    on_progress: Callable[[], None] = lambda: None,
) -> Float[Tensor, " b"]:
    """Each response's log-probability under the policy minus that under the reference, in nats.

    Over responses that the policy drew, the mean estimates KL(policy || reference).
    """
    kl = torch.empty(len(prompts))
    # Rows of like length are read together: less padding.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(responses[i]))
    for start in range(0, len(prompts), batch_size):
        batch = order[start : start + batch_size]
        part = _cut_by_limit(backbone, [prompts[i] for i in batch], [responses[i] for i in batch])
        total = []
        for adapter in (POLICY, None):
            with backbone.use_adapter(adapter):
                total.append(forward_logprobs(backbone, None, part, temperature).logprobs.sum(-1))
            on_progress()
        kl[batch] = (total[0] - total[1]).cpu()
    return kl


def _cut_by_limit(backbone: Backbone, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Rollout:
    """Prompts and responses of which nothing else is known yet."""
    prompt_ids, prompt_mask = (x.to(backbone.device) for x in pad_left(prompts, backbone.pad_id))
    ids, mask = (x.to(backbone.device) for x in pad_right(responses, backbone.pad_id))
    nothing = torch.zeros(mask.shape, device=backbone.device)
    return Rollout(prompt_ids, prompt_mask, ids, mask, nothing, nothing, nothing, nothing, nothing[:, 0], mask[:, 0], None)
