"""How good a round is: held-out accuracy of the reward model, win rate of the policy, each with a 95% interval.

Measured on prompts that nothing was learned from. Statistics are scipy's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from rlhf.data.pairs import PreferencePair
from rlhf.generation.sampling import GeneratedSequence, generator, sample
from rlhf.models.backbone import Backbone
from rlhf.ppo.checkpoint_selection import best_of_n_kl, n_at_kl
from rlhf.reward.model import RewardModel
from rlhf.reward.scoring import ScoreFunction
from rlhf.simulation.judges import LabelRule
from storage.core.records import Prompt, Sampling

CONFIDENCE = 0.95
BATCH_SIZE = 64


@dataclass(frozen=True, slots=True)
class Estimate:
    """A fraction with its 95% interval and the number of cases behind it."""

    value: float
    low: float
    high: float
    cases: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Answer:
    """One sampled answer to a held-out prompt."""

    prompt_id: int
    ids: list[int]
    text: str
    finish_reason: str


def proportion(successes: int, cases: int) -> Estimate | None:
    """A fraction of independent cases, with Wilson's interval; None when there are no cases."""
    if cases == 0:
        return None
    interval = stats.binomtest(successes, cases).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(successes / cases, float(interval.low), float(interval.high), cases)


def mean_by_prompt(values: dict[int, list[float]], *, seed: int = 0) -> Estimate | None:
    """The mean over prompts of each prompt's mean; the interval resamples prompts (percentile bootstrap).

    Answers to one prompt resemble each other, so prompts, not answers, are the cases.
    """
    means = np.array([np.mean(v) for v in values.values()])
    if len(means) == 0:
        return None
    if len(means) == 1 or np.ptp(means) == 0:
        return Estimate(float(means.mean()), float(means.mean()), float(means.mean()), len(means))
    interval = stats.bootstrap(
        (means,), np.mean, confidence_level=CONFIDENCE, method="percentile", n_resamples=9999, rng=np.random.default_rng(seed)
    ).confidence_interval
    return Estimate(float(means.mean()), float(interval.low), float(interval.high), len(means))


def pair_scores(
    backbone: Backbone, model: RewardModel, pairs: Sequence[PreferencePair], on_progress: Callable[[], None] = lambda: None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The reward model's scores of the chosen and of the rejected answers."""
    rows = [
        model.row(prompt, backbone.encode_answer(text))
        for p in pairs
        for prompt in [backbone.encode(p.prompt)]
        for text in (p.chosen, p.rejected)
    ]
    scores = model.score(rows, on_progress=on_progress) if rows else torch.empty(0)
    return scores[0::2], scores[1::2]


def accuracy_on_votes(chosen: torch.Tensor, rejected: torch.Tensor) -> Estimate | None:
    """How often the reward model prefers what the annotator preferred."""
    return proportion(int((chosen > rejected).sum()), len(chosen))


def accuracy_on_rule(pairs: Sequence[PreferencePair], chosen: torch.Tensor, rejected: torch.Tensor, judge: LabelRule) -> Estimate | None:
    """How often the reward model prefers what the declared rule prefers; pairs that the rule ties are left out."""
    agree = cases = 0
    for pair, c, r in zip(pairs, chosen.tolist(), rejected.tolist(), strict=True):
        difference = judge.score(pair.chosen) - judge.score(pair.rejected)
        if difference:
            cases += 1
            # A tie of the reward model agrees with neither side.
            agree += (c - r) * difference > 0
    return proportion(agree, cases)


def answers(
    backbone: Backbone,
    adapter: str | None,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    per_prompt: int,
    seed: int,
    on_progress: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """`per_prompt` answers to each prompt, through one adapter or the base alone, in the order of the prompts."""
    asked = [p for p in prompts for _ in range(per_prompt)]
    drawn = []
    with backbone.use_adapter(adapter):
        for start in range(0, len(asked), BATCH_SIZE):
            batch = asked[start : start + BATCH_SIZE]
            rng = generator(backbone.device, seed, start)
            drawn += sample(backbone, [backbone.encode(p.messages) for p in batch], sampling, rng, on_progress)
    return [Answer(p.id, s.ids, backbone.decode(s.ids), s.finish_reason) for p, s in zip(asked, drawn, strict=True)]


def best_of(drawn: Sequence[Answer], n: int, values: Sequence[float]) -> list[Answer]:
    """Of each n answers in a row the one with the highest value; the first of equals."""
    groups = [range(start, start + n) for start in range(0, len(drawn), n)]
    return [drawn[max(group, key=lambda i: values[i])] for group in groups]


def best_of_n(
    backbone: Backbone,
    scorer: ScoreFunction,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    kl: float,
    most: int,
    per_prompt: int,
    seed: int,
    on_progress: Callable[[], None] = lambda: None,
    read: Callable[[], None] = lambda: None,
) -> tuple[list[Answer], dict[str, Any]]:
    """Answers of best-of-n over the base, with the n that comes nearest to a KL: as far from the base, without any learning.

    Chosen by what PPO was paid for (Gao 2023, section 2). Beside the answers: n, its KL, the KL to match, and whether that is
    more than best-of-`most` reaches. `tick` is called once a position that is sampled, `read` once a batch that is scored.
    """
    n = n_at_kl(kl, most)
    drawn = answers(backbone, None, prompts, sampling, per_prompt=n * per_prompt, seed=seed, on_progress=on_progress)
    asked = {p.id: backbone.encode(p.messages) for p in prompts}
    scores = scorer([asked[a.prompt_id] for a in drawn], [GeneratedSequence(a.ids, a.finish_reason) for a in drawn], read)
    said = {"n": n, "kl": best_of_n_kl(n), "policy_kl": kl, "most": most, "beyond_most": kl > best_of_n_kl(most)}
    return best_of(drawn, n, scores.tolist()), said


def win_rate(tuned: Sequence[Answer], base: Sequence[Answer], value: Callable[[Answer], float]) -> Estimate | None:
    """How often the tuned policy's answer has the higher value, over all pairs of answers to one prompt; a tie is half."""
    by_prompt: dict[int, list[float]] = {}
    ours, theirs = _values(tuned, value), _values(base, value)
    for prompt_id, values in ours.items():
        by_prompt[prompt_id] = [0.5 + 0.5 * np.sign(a - b) for a in values for b in theirs[prompt_id]]
    return mean_by_prompt(by_prompt)


def _values(drawn: Sequence[Answer], value: Callable[[Answer], float]) -> dict[int, list[float]]:
    by_prompt: dict[int, list[float]] = {}
    for answer in drawn:
        by_prompt.setdefault(answer.prompt_id, []).append(value(answer))
    return by_prompt
