"""One batch of experience: sample, read it with policy, reference and reward model.

What PPO learns from is exactly what was sampled: ids are kept, never text that is tokenised again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rlhf.backbone import Backbone, Output, pad_left, pad_right
from rlhf.ppo_math import entropy, token_logprobs
from rlhf.reward import RewardModel
from rlhf.sampling import Sampled, sample
from storage.records import Sampling

POLICY = "policy"


class Reading(NamedTuple):
    """What one forward pass says about the response tokens."""

    logits: Float[Tensor, "b t vocab"]
    logprobs: Float[Tensor, "b t"]
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

    def take(self, rows: Int[Tensor, " n"]) -> Rollout:
        """The chosen rows, without the columns that only others need."""
        part = Rollout(*(field[rows] for field in self))
        first = int(part.prompt_mask.any(0).nonzero()[0])
        width = int(part.mask.sum(-1).max())
        return part._replace(
            prompts=part.prompts[:, first:], prompt_mask=part.prompt_mask[:, first:],
            **{name: getattr(part, name)[:, :width] for name in
               ("responses", "mask", "logprobs", "ref_logprobs", "values", "entropy")},
        )


def forward(
    backbone: Backbone,
    prompts: Int[Tensor, "b p"],
    prompt_mask: Bool[Tensor, "b p"],
    responses: Int[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
) -> Output:
    """Logits about each response token, and the hidden states they come from, through the adapter in use."""
    ids, real = torch.cat([prompts, responses], dim=1), torch.cat([prompt_mask, mask], dim=1)
    out = backbone.forward(ids, real, keep=responses.shape[1] + 1)
    # The logits at one position are about the next token: the last position speaks of none of ours.
    return Output(out.logits[:, :-1], out.hidden[:, :-1])


def read(backbone: Backbone, value_head: nn.Module, part: Rollout, temperature: float) -> Reading:
    """Logits, log-probabilities and values at the response tokens, through the adapter in use."""
    out = forward(backbone, part.prompts, part.prompt_mask, part.responses, part.mask)
    return Reading(out.logits, token_logprobs(out.logits, part.responses, temperature), value_head(out.hidden.float())[..., 0])


@torch.no_grad()
def collect(
    backbone: Backbone,
    reward_model: RewardModel,
    value_head: nn.Module,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    rng: torch.Generator,
    *,
    minibatch_size: int,
    missing_eos_score: float | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Rollout:
    """Samples one response per prompt with the policy and reads it in full."""
    with backbone.using(POLICY):
        sampled = sample(backbone, prompts, sampling, rng, tick)
    scores = score(reward_model, prompts, sampled, missing_eos_score, tick)
    prompt_ids, prompt_mask = (x.to(backbone.device) for x in pad_left(prompts, backbone.pad_id))
    responses, mask = (x.to(backbone.device) for x in pad_right([s.ids for s in sampled], backbone.pad_id))
    blank = torch.zeros(responses.shape, device=backbone.device)
    rollout = Rollout(
        prompt_ids, prompt_mask, responses, mask, blank, blank.clone(), blank.clone(), blank.clone(),
        scores.to(backbone.device), torch.tensor([s.finish_reason == "stop" for s in sampled], device=backbone.device),
    )
    # Rows of like length are read together: less padding.
    for rows in rollout.prompt_mask.sum(-1).argsort(stable=True).split(minibatch_size):
        part = rollout.take(rows)
        width = part.responses.shape[1]
        with backbone.using(POLICY):
            ours = read(backbone, value_head, part, sampling.temperature)
        tick()
        with backbone.using(None):
            theirs = forward(backbone, part.prompts, part.prompt_mask, part.responses, part.mask)
        tick()
        rollout.logprobs[rows, :width] = ours.logprobs * part.mask
        rollout.values[rows, :width] = ours.values * part.mask
        rollout.entropy[rows, :width] = entropy(ours.logits, sampling.temperature) * part.mask
        rollout.ref_logprobs[rows, :width] = token_logprobs(theirs.logits, part.responses, sampling.temperature) * part.mask
    return rollout


def score(
    reward_model: RewardModel,
    prompts: Sequence[Sequence[int]],
    sampled: Sequence[Sampled],
    missing_eos_score: float | None,
    tick: Callable[[], None] = lambda: None,
) -> Float[Tensor, " b"]:
    """The reward model's scores; a response that never ended gets `missing_eos_score` instead, if there is one."""
    scores = reward_model.score([reward_model.row(p, s.ids) for p, s in zip(prompts, sampled, strict=True)], tick=tick)
    if missing_eos_score is not None:
        ended = torch.tensor([s.finish_reason == "stop" for s in sampled])
        scores = torch.where(ended, scores, missing_eos_score)
    return scores


@torch.no_grad()
def sequence_kl(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    temperature: float,
    *,
    batch_size: int,
    tick: Callable[[], None] = lambda: None,
) -> Float[Tensor, " b"]:
    """Each response's log-probability under the policy minus that under the reference, in nats.

    Over responses that the policy drew, the mean estimates KL(policy || reference).
    """
    kl = torch.empty(len(prompts))
    for start in range(0, len(prompts), batch_size):
        batch = slice(start, start + batch_size)
        prompt_ids, prompt_mask = (x.to(backbone.device) for x in pad_left(prompts[batch], backbone.pad_id))
        ids, mask = (x.to(backbone.device) for x in pad_right(responses[batch], backbone.pad_id))
        total = []
        for adapter in (POLICY, None):
            with backbone.using(adapter):
                out = forward(backbone, prompt_ids, prompt_mask, ids, mask)
                total.append((token_logprobs(out.logits, ids, temperature) * mask).sum(-1))
            tick()
        kl[batch] = (total[0] - total[1]).cpu()
    return kl
