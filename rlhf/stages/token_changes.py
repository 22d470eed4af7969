"""Part of the evaluate stage: the log-ratio of each token of the shown answers, under the tuned policy and the base."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from rlhf.evaluation import SampledCompletion
from rlhf.generation.protocol.text_stream import TextStream
from rlhf.models.backbone import Backbone
from rlhf.models.padding import pad_left, pad_right
from rlhf.ppo.actor_critic import TokenBatch, forward_logprobs
from rlhf.ppo.rollout import POLICY
from rlhf.runs.token_changes import AnswerChange, SampleChange, TokenChange, TokenChanges
from storage.core.records import Prompt


def token_changes(
    backbone: Backbone,
    heldout: Sequence[Prompt],
    before: Sequence[SampledCompletion],
    after: Sequence[SampledCompletion],
    *,
    temperature: float,
    batch_size: int,
) -> TokenChanges:
    """What tuning changed in the answers, of which each list has one for each of these prompts."""
    prompts = [backbone.encode(prompt.messages) for prompt in heldout]
    ratios = log_ratios(backbone, prompts * 2, [a.ids for a in (*before, *after)], temperature, batch_size=batch_size)
    changes = [answer_change(backbone, answer.ids, row) for answer, row in zip((*before, *after), ratios, strict=True)]
    pairs = zip(heldout, changes[: len(before)], changes[len(before) :], strict=True)
    return TokenChanges(temperature, [SampleChange(prompt.id, base, tuned) for prompt, base, tuned in pairs])


@torch.no_grad()
def log_ratios(
    backbone: Backbone, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], temperature: float, *, batch_size: int
) -> list[list[float]]:
    """For each token of each response, its log-probability under the policy minus that under the base, in nats."""
    found: list[list[float]] = []
    for start in range(0, len(prompts), batch_size):
        rows = slice(start, start + batch_size)
        prompt_ids, prompt_mask = pad_left(prompts[rows], backbone.pad_id)
        ids, mask = pad_right(responses[rows], backbone.pad_id)
        if not mask.any():
            found += [[] for _ in responses[rows]]
            continue
        tokens, real = torch.cat([prompt_ids, ids], dim=1), torch.cat([prompt_mask, mask], dim=1)
        batch = TokenBatch(tokens.to(backbone.device), real.to(backbone.device), mask.to(backbone.device))
        policy, base = (forward_logprobs(backbone, None, batch, temperature, adapter=adapter).logprobs for adapter in (POLICY, None))
        difference = (policy - base).float().cpu()
        found += [difference[i, : len(row)].tolist() for i, row in enumerate(responses[rows])]
    return found


def answer_change(backbone: Backbone, ids: Sequence[int], ratios: Sequence[float]) -> AnswerChange:
    """The tokens as text with their log-ratios. A model's reasoning before its answer is left out."""
    stream: TextStream[None] = TextStream(partial(backbone.tokenizer.decode, skip_special_tokens=True), (), backbone.reasoning)
    ends = bool(ids) and ids[-1] in backbone.eos_token_ids
    tokens: list[TokenChange] = []
    held = 0.0
    for token, ratio in zip(ids[:-1] if ends else ids, ratios, strict=False):
        reasoning_before = stream.reasoning_tokens
        text = stream.add(token).text
        if stream.reasoning_tokens > reasoning_before:
            continue
        held += ratio
        if text:
            tokens.append(TokenChange(text, held))
            held = 0.0
    if rest := stream.finish().text:
        tokens.append(TokenChange(rest, held))
    if ends:
        tokens.append(TokenChange("", ratios[-1]))
    return AnswerChange(tokens)
