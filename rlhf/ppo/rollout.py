"""One batch of experience: sampled responses with their scores, values, and log-probabilities under policy and reference.

PPO is trained on exactly the sampled token ids, never on text that is tokenised again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rlhf.config import AdapterConfig
from rlhf.generation.engine import GenerationEngine, requests_for
from rlhf.generation.recording import RolloutRecorder
from rlhf.generation.request import GenerationRequest
from rlhf.generation.sampling import GeneratedSequence
from rlhf.models.backbone import Backbone
from rlhf.models.decoder import CachedHidden
from rlhf.models.padding import pad_left, pad_right
from rlhf.models.ranks import Ranks
from rlhf.ppo.actor_critic import TokenBatch, forward_logprobs
from rlhf.reward.scoring import RewardShaper
from rlhf.runs.work import DECODE_COST, NO_PROGRESS, Work
from rlhf.safe_files import ModelError
from storage.core.records import Sampling

POLICY = "policy"

REFERENCE = "reference"
"""Name of the frozen adapter to which the KL is measured, where the reference is not the base."""


def add_policy(backbone: Backbone, config: AdapterConfig, *, seed: int, start: Path | None) -> str | None:
    """Adds the adapter POLICY: as the base at first, or with the weights in the folder `start`. Returns the reference's adapter.

    Raises:
        ModelError: the folder cannot be read, or holds an adapter of another size than `config` describes.
    """
    backbone.add_adapter(POLICY, config, seed=seed)
    if start is None:
        return None
    if REFERENCE not in backbone.adapters:
        backbone.load_adapter(REFERENCE, start)
    try:
        backbone.restore_adapter(POLICY, start)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{start}: the policy cannot begin with this adapter, which is of another kind or size than the round's"
        ) from error
    return REFERENCE


class Rollout(NamedTuple):
    prompts: Int[Tensor, "b p"]
    """Padded on the left, so that every response starts in the same column."""
    prompt_mask: Bool[Tensor, "b p"]
    responses: Int[Tensor, "b t"]
    """Padded on the right; the end-of-sequence token, if sampled, is part of the response."""
    mask: Bool[Tensor, "b t"]
    logprobs: Float[Tensor, "b t"]
    """Under the policy, as the trainer computes them."""
    rollout_logprobs: Float[Tensor, "b t"]
    """Under the policy, as the engine that sampled computed them: the same, unless that was another one."""
    ref_logprobs: Float[Tensor, "b t"]
    values: Float[Tensor, "b t"]
    entropy: Float[Tensor, "b t"]
    scores: Float[Tensor, " b"]
    finished: Bool[Tensor, " b"]
    lengths: Int[Tensor, "b 2"]
    """Tokens of each prompt and of each response; on the host, which cuts batches by them without waiting for an accelerator."""
    cached: CachedHidden | None
    """Activations below the policy's lowest adapter layer, [b, p+t+1, d], which no update changes; None where there is no such layer."""

    def tokens(self) -> TokenBatch:
        """The rows as a forward pass takes them, which is asked for the responses."""
        ids = torch.cat([self.prompts, self.responses], dim=1)
        real = torch.cat([self.prompt_mask, self.mask], dim=1)
        asked = torch.arange(self.mask.shape[1]) < self.lengths[:, 1:]
        rows, columns = (index.to(ids.device) for index in asked.nonzero(as_tuple=True))
        return TokenBatch(ids, real, self.mask, self.cached, (rows, columns))

    def select(self, rows: Int[Tensor, " n"]) -> Rollout:
        """These rows, without the columns that are padding in all of them.

        Args:
            rows: on the host.
        """
        lengths, at = self.lengths[rows], rows.to(self.prompts.device)
        part = Rollout._make([*(field[at] for field in self[:-2]), lengths, self.cached])
        longest, width = lengths.amax(0).tolist()
        first = part.prompts.shape[1] - longest
        last = part.prompts.shape[1] + width - 1
        return part._replace(
            prompts=part.prompts[:, first:],
            prompt_mask=part.prompt_mask[:, first:],
            cached=self.cached and CachedHidden(self.cached.depth, self.cached.hidden[at, first:last]),
            **{name: getattr(part, name)[:, :width] for name in OF_RESPONSES},
        )

    def of_all(self, ranks: Ranks) -> Rollout:
        """The rows of all ranks, in the order of the ranks."""
        if ranks.alone:
            return self
        cached = self.cached
        if cached is not None:
            # The answers' columns begin where the longest prompt ends, which is another one on each rank: both sides are aligned to it.
            prompt = self.prompts.shape[1]
            before, after = cached.hidden[:, :prompt], cached.hidden[:, prompt:]
            hidden = torch.cat([ranks.gather_padded(before, left=True), ranks.gather_padded(after)], dim=1)
            cached = CachedHidden(cached.depth, hidden)
        return Rollout(
            prompts=ranks.gather_padded(self.prompts, left=True),
            prompt_mask=ranks.gather_padded(self.prompt_mask, left=True),
            scores=ranks.gather(self.scores),
            finished=ranks.gather(self.finished),
            lengths=ranks.gather(self.lengths),
            cached=cached,
            **{name: ranks.gather_padded(getattr(self, name)) for name in OF_RESPONSES},
        )


OF_RESPONSES = ("responses", "mask", "logprobs", "rollout_logprobs", "ref_logprobs", "values", "entropy")
"""The fields of a rollout with a column for each token of the responses."""


@runtime_checkable
class Sampler(Protocol):
    """Another engine than the trainer's own, which samples a rollout with the policy."""

    def __call__(
        self, requests: Sequence[GenerationRequest], recorder: RolloutRecorder, on_progress: Work = NO_PROGRESS
    ) -> tuple[list[GeneratedSequence], list[list[float]]]:
        """A response to each request, and each token's log-probability there; the recorder gets what the trainer's own pass computes."""


@torch.no_grad()
def collect(
    backbone: Backbone,
    reward_shaper: RewardShaper,
    value_head: nn.Module,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    seed: int,
    *,
    minibatch_size: int,
    share: slice = slice(None),
    reference: str | None = None,
    engine: GenerationEngine | None = None,
    sampler: Sampler | None = None,
    on_progress: Work = NO_PROGRESS,
) -> Rollout:
    """Samples one response per prompt with the policy, scores it, and computes the reference's log-probabilities.

    The policy's log-probabilities and hidden states are recorded during sampling, and so are the activations of the frozen layers.
    Where another engine samples, they are computed of its tokens.

    Args:
        share: the prompts that this process answers. A response's random stream follows from the prompt's place among all of them.
        reference: the reference's adapter, on the same layers as the policy's; None for the base.
        engine: keeps what it allocates for the next rollout; by default one of its own.
        sampler: another engine, which samples in its place.
    """
    requests = requests_for(prompts, sampling, seed, adapter=POLICY)[share]
    prompts = prompts[share]
    lowest = backbone.first_adapted_layer(POLICY)
    for_scoring = min(lowest, reward_shaper.frozen_layers)
    recorder = RolloutRecorder(backbone, [len(prompt) for prompt in prompts], sampling.max_new_tokens, (lowest, for_scoring))
    on_progress.total(DECODE_COST + 2)
    engine = GenerationEngine(backbone) if engine is None else engine
    sampled_logprobs: list[list[float]] | None = None
    if sampler is None:
        sequences = engine.run(requests, recorder=recorder, on_progress=on_progress.part(DECODE_COST))
    else:
        sequences, sampled_logprobs = sampler(requests, recorder, on_progress.part(DECODE_COST))
    prompt_ids, prompt_mask = (x.to(backbone.device) for x in pad_left(prompts, backbone.pad_id))
    responses, mask = (x.to(backbone.device) for x in pad_right([s.ids for s in sequences], backbone.pad_id))
    cached = recorder.cached(for_scoring)
    scores = reward_shaper(
        prompts,
        sequences,
        on_progress.part(1),
        cached
        and [
            CachedHidden(cached.depth, row[prompt_ids.shape[1] - len(prompt) :]) for row, prompt in zip(cached.hidden, prompts, strict=True)
        ],
    )
    width = mask.shape[1]
    logprobs = recorder.logprobs[:, :width] * mask
    rollout = Rollout(
        prompts=prompt_ids,
        prompt_mask=prompt_mask,
        responses=responses,
        mask=mask,
        logprobs=logprobs,
        rollout_logprobs=logprobs if sampled_logprobs is None else _padded(sampled_logprobs, width).to(backbone.device),
        ref_logprobs=torch.zeros(mask.shape, device=backbone.device),
        values=value_head(recorder.hidden[:, :width].float()) * mask,
        entropy=recorder.entropy[:, :width] * mask,
        scores=scores.to(backbone.device),
        finished=torch.tensor([s.finish_reason == "stop" for s in sequences], device=backbone.device),
        lengths=torch.tensor([[len(prompt), len(s.ids)] for prompt, s in zip(prompts, sequences, strict=True)]),
        cached=recorder.cached(lowest),
    )
    # Rows of similar length share a batch: less padding.
    referenced = on_progress.part(1)
    referenced.total(len(prompts))
    for rows in torch.split(rollout.lengths.sum(-1).argsort(stable=True), minibatch_size):
        part = rollout.select(rows)
        stats = forward_logprobs(backbone, None, part.tokens(), sampling.temperature, adapter=reference)
        rollout.ref_logprobs[rows.to(backbone.device), : part.responses.shape[1]] = stats.logprobs
        referenced(len(rows))
    return rollout


def _padded(rows: Sequence[Sequence[float]], width: int) -> Float[Tensor, "b t"]:
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows])


@torch.no_grad()
def sequence_kl(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    temperature: float,
    *,
    batch_size: int,
    reference: str | None = None,
    on_progress: Work = NO_PROGRESS,
) -> Float[Tensor, " b"]:
    """Each response's log-probability under the policy minus that under the reference, in nats.

    Over responses that the policy sampled, the mean estimates KL(policy || reference).

    Args:
        reference: its adapter; None for the base.
    """
    kl = torch.empty(len(prompts))
    # Rows of similar length share a batch: less padding.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(responses[i]))
    on_progress.total(2 * len(prompts))
    for start in range(0, len(prompts), batch_size):
        batch = order[start : start + batch_size]
        part = _batch(backbone, [prompts[i] for i in batch], [responses[i] for i in batch])
        total = []
        for adapter in (POLICY, reference):
            total.append(forward_logprobs(backbone, None, part, temperature, adapter=adapter).logprobs.sum(-1))
            on_progress(len(batch))
        kl[batch] = (total[0] - total[1]).cpu()
    return kl


def _batch(backbone: Backbone, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> TokenBatch:
    """Given prompts and responses, padded as those of a rollout are."""
    prompt_ids, prompt_mask = pad_left(prompts, backbone.pad_id)
    ids, mask = pad_right(responses, backbone.pad_id)
    tokens, real = torch.cat([prompt_ids, ids], dim=1), torch.cat([prompt_mask, mask], dim=1)
    return TokenBatch(tokens.to(backbone.device), real.to(backbone.device), mask.to(backbone.device))
