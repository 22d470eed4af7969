"""Scores of completions: the interface between policy training and the reward model, or a reward function in its place.

A scorer has the reward model's two methods, `row` and `score`; `RewardShaper` turns its scores into those that the policy is
trained on. Leaves out the KL penalty, which is per token (`ppo_math`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from rlhf.config import ScoringConfig
from rlhf.generation.sampling import GeneratedSequence
from rlhf.models.backbone import Backbone
from rlhf.models.decoder import CachedHidden
from rlhf.reward.model import RewardModel, TokenizedExample
from rlhf.runs import reward_function
from rlhf.runs.reward_function import RewardFunction
from rlhf.runs.work import NO_PROGRESS, Work
from storage.core.records import Message

ScoreFunction = Callable[[Sequence[Sequence[int]], Sequence[GeneratedSequence], Work], Float[Tensor, " b"]]
"""`score(prompt_ids, sequences, on_progress)`: one score for each completion."""


@runtime_checkable
class Scorer(Protocol):
    """A reward model, or a reward function in its place."""

    def row(self, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> TokenizedExample: ...

    def score(self, rows: Sequence[TokenizedExample], *, on_progress: Work = NO_PROGRESS) -> Float[Tensor, " b"]: ...


class Scores(NamedTuple):
    """A scorer's results for a batch."""

    scores: Float[Tensor, " b"]
    proxy: Float[Tensor, " b"]
    """Mean over the ensemble's members; with one member, its score. The proxy score of Gao 2023."""
    disagreement: Float[Tensor, " b"]
    """Standard deviation over the members; 0 with one member."""


def scores_of(scorer: Scorer, rows: Sequence[TokenizedExample], on_progress: Work = NO_PROGRESS) -> Scores:
    """All three results, from one forward pass per row."""
    if not isinstance(scorer, RewardModel) or scorer.ensemble == 1:
        scores = scorer.score(rows, on_progress=on_progress)
        return Scores(scores, scores, torch.zeros_like(scores))
    ensemble_scores = scorer.ensemble_scores(rows, on_progress=on_progress)
    return Scores(scorer.conservative(ensemble_scores), ensemble_scores.mean(0), scorer.disagreement(ensemble_scores))


class RewardShaper:
    """The scorer's scores, less a penalty for length; a completion without an end-of-sequence token gets a fixed score instead.

    Ziegler 2019 scores -1 where a completion has no full stop, Huang 2024 (arXiv 2403.17031) where it has no end of sequence.
    """

    def __init__(self, scorer: Scorer, config: ScoringConfig = ScoringConfig()):
        self.scorer, self.config = scorer, config
        self.metrics: dict[str, float] = {}
        """Metrics of the last batch, by the names under which they are logged."""

    @property
    def frozen_layers(self) -> int:
        """The reward model's number of lowest layers without adapter weights; 0 for a reward function."""
        return self.scorer.frozen_layers if isinstance(self.scorer, RewardModel) else 0

    def _has_reasoning(self, sequence: GeneratedSequence) -> bool:
        return isinstance(self.scorer, RewardModel) and len(self.scorer.backbone.answer_ids(sequence.ids)) < len(sequence.ids)

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        sequences: Sequence[GeneratedSequence],
        on_progress: Work = NO_PROGRESS,
        cached: Sequence[CachedHidden] | None = None,
    ) -> Float[Tensor, " b"]:
        """One score per sequence. `cached` holds frozen layers' activations of each prompt, completion and end; it may be longer."""
        rows = [self.scorer.row(p, s.ids) for p, s in zip(prompts, sequences, strict=True)]
        # Activations were recorded after the reasoning, which the row of an answer leaves out.
        if cached is not None and not any(map(self._has_reasoning, sequences)):
            rows = [row._replace(cached=CachedHidden(c.depth, c.hidden[: len(row.ids)])) for row, c in zip(rows, cached, strict=True)]
        batch = scores_of(self.scorer, rows, on_progress)
        self.metrics = {
            "objective/proxy_scores": float(batch.proxy.mean()),
            "objective/disagreement": float(batch.disagreement.mean()),
            "objective/conservative_scores": float((batch.proxy - batch.disagreement).mean()),
        }
        scores = batch.scores
        if self.config.length_penalty:
            scores = scores - self.config.length_penalty * torch.tensor([len(s.ids) for s in sequences])
        if self.config.missing_eos_score is not None:
            ended = torch.tensor([s.finish_reason == "stop" for s in sequences])
            scores = torch.where(ended, scores, self.config.missing_eos_score)
        return scores


class FunctionReward:
    """A Python function in the reward model's place. It takes text, so token ids are decoded before the call."""

    def __init__(self, function: RewardFunction, name: str, backbone: Backbone, prompts: Sequence[Sequence[Message]]):
        self.function, self.name, self.backbone = function, name, backbone
        self.messages: Mapping[tuple[int, ...], list[Message]] = {tuple(backbone.encode(p)): list(p) for p in prompts}

    def row(self, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> TokenizedExample:
        return TokenizedExample([*prompt_ids, *answer_ids], len(prompt_ids))

    def score(self, rows: Sequence[TokenizedExample], *, on_progress: Work = NO_PROGRESS) -> Float[Tensor, " b"]:
        prompts = [self.messages[tuple(r.ids[: r.start])] for r in rows]
        completions = [self.backbone.decode(r.ids[r.start :]) for r in rows]
        scores = torch.tensor(reward_function.checked_scores(self.function, self.name, prompts, completions))
        on_progress.done()
        return scores
