"""What PPO is paid for a completion: the seam between a policy that learns and whatever rates it.

A payer has the reward model's two verbs, `row` and `score`; `RewardShaper` makes of its opinion what the policy is paid. Leaves out
the KL penalty, which is per token (`ppo_math`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from rlhf.generation.sampling import GeneratedSequence
from rlhf.models.backbone import Backbone
from rlhf.models.decoder import CachedHidden
from rlhf.reward.model import RewardModel, TokenizedExample
from rlhf.runs import reward_function
from rlhf.runs.reward_function import RewardFunction
from storage.core.records import Message

ScoreFunction = Callable[[Sequence[Sequence[int]], Sequence[GeneratedSequence], Callable[[], None]], Float[Tensor, " b"]]
"""`scorer(prompts, sampled, tick)`: one score for each completion."""


class Scorer(Protocol):
    """A reward model, or what stands in its place."""

    def row(self, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> TokenizedExample: ...

    def score(self, rows: Sequence[TokenizedExample], *, on_progress: Callable[[], None] = lambda: None) -> Float[Tensor, " b"]: ...


class Scores(NamedTuple):
    """What a payer says of a batch."""

    scores: Float[Tensor, " b"]
    proxy: Float[Tensor, " b"]
    """Mean over the members of an ensemble; the score itself where there is one alone. The proxy of Gao 2023."""
    disagreement: Float[Tensor, " b"]
    """Standard deviation over the members; 0 where there is one alone."""


def scores_of(scorer: Scorer, rows: Sequence[TokenizedExample], on_progress: Callable[[], None] = lambda: None) -> Scores:
    """Reads each row once, whatever is told of it."""
    if not isinstance(scorer, RewardModel) or scorer.ensemble == 1:
        scores = scorer.score(rows, on_progress=on_progress)
        return Scores(scores, scores, torch.zeros_like(scores))
    ensemble_scores = scorer.ensemble_scores(rows, on_progress=on_progress)
    return Scores(scorer.conservative(ensemble_scores), ensemble_scores.mean(0), scorer.disagreement(ensemble_scores))


class RewardShaper:
    """The payer's scores, less a penalty for length; a completion that never ended gets a fixed score instead.

    Ziegler 2019 pays -1 where a completion has no full stop, Huang 2024 (arXiv 2403.17031) where it has no end.
    """

    def __init__(self, scorer: Scorer, *, missing_eos_score: float | None = None, length_penalty: float = 0.0):
        self.scorer, self.missing_eos_score, self.length_penalty = scorer, missing_eos_score, length_penalty
        self.figures: dict[str, float] = {}
        """Of the last batch, under the names they are logged by."""

    @property
    def frozen_layers(self) -> int:
        """How many of the lowest layers the payer reads as the base has them; 0 where it reads none."""
        return self.scorer.frozen_layers if isinstance(self.scorer, RewardModel) else 0

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        sampled: Sequence[GeneratedSequence],
        on_progress: Callable[[], None] = lambda: None,
        below: Sequence[CachedHidden] | None = None,
    ) -> Float[Tensor, " b"]:
        """Scores; `below` is what frozen layers are known to make of each prompt, completion and end, and may go on after it."""
        rows = [self.scorer.row(p, s.ids) for p, s in zip(prompts, sampled, strict=True)]
        if below is not None:
            rows = [row._replace(below=CachedHidden(b.depth, b.hidden[: len(row.ids)])) for row, b in zip(rows, below, strict=True)]
        said = scores_of(self.scorer, rows, on_progress)
        self.figures = {
            "objective/proxy_scores": float(said.proxy.mean()),
            "objective/disagreement": float(said.disagreement.mean()),
            "objective/conservative_scores": float((said.proxy - said.disagreement).mean()),
        }
        scores = said.scores
        if self.length_penalty:
            scores = scores - self.length_penalty * torch.tensor([len(s.ids) for s in sampled])
        if self.missing_eos_score is not None:
            ended = torch.tensor([s.finish_reason == "stop" for s in sampled])
            scores = torch.where(ended, scores, self.missing_eos_score)
        return scores


class FunctionReward:
    """A Python function in the reward model's place; it reads text, and only here is text made of what was sampled."""

    def __init__(self, function: RewardFunction, name: str, backbone: Backbone, prompts: Sequence[Sequence[Message]]):
        self.function, self.name, self.backbone = function, name, backbone
        self.messages: Mapping[tuple[int, ...], list[Message]] = {tuple(backbone.encode(p)): list(p) for p in prompts}

    def row(self, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> TokenizedExample:
        return TokenizedExample([*prompt_ids, *answer_ids], len(prompt_ids))

    def score(self, rows: Sequence[TokenizedExample], *, on_progress: Callable[[], None] = lambda: None) -> Float[Tensor, " b"]:
        asked = [self.messages[tuple(r.ids[: r.start])] for r in rows]
        said = [self.backbone.decode(r.ids[r.start :]) for r in rows]
        found = torch.tensor(reward_function.checked_scores(self.function, self.name, asked, said))
        on_progress()
        return found
