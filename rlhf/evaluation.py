"""Evaluates a round: held-out accuracy of the reward model and win rate of the policy, each with a 95% interval.

Held-out prompts are not used in training. The statistics are scipy's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from rlhf.analysis.intervals import CONFIDENCE, wilson
from rlhf.data.pairs import PreferencePair
from rlhf.generation.sampling import GeneratedSequence, generator, sample
from rlhf.models.backbone import Backbone
from rlhf.ppo.checkpoint_selection import best_of_n_kl, n_at_kl
from rlhf.reward.model import RewardModel
from rlhf.reward.scoring import ScoreFunction, Scorer
from rlhf.runs.results import BestOfN, Estimate
from rlhf.runs.work import DECODE_COST, NO_PROGRESS, Work
from rlhf.simulation.judges import LabelRule
from storage.core.records import Prompt, Sampling

ValuesByPrompt = dict[int, list[float]]
"""The values of the answers to each prompt, by its id."""

BATCH_SIZE = 64


@dataclass(frozen=True, slots=True)
class SampledCompletion:
    """One sampled answer to a held-out prompt."""

    prompt_id: int
    ids: list[int]
    text: str
    finish_reason: str


def proportion(successes: int, cases: int) -> Estimate | None:
    """A fraction of independent cases, with Wilson's interval; None when there are no cases."""
    if cases == 0:
        return None
    low, high = wilson(successes, cases)
    return Estimate(successes / cases, low, high, cases)


def mean_by_prompt(values: ValuesByPrompt, *, seed: int = 0) -> Estimate | None:
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
    backbone: Backbone, model: RewardModel, pairs: Sequence[PreferencePair], on_progress: Work = NO_PROGRESS
) -> tuple[torch.Tensor, torch.Tensor]:
    """The reward model's scores of the chosen and of the rejected answers."""
    rows = [model.text_row(prompt, text) for p in pairs for prompt in [backbone.encode(p.prompt)] for text in (p.chosen, p.rejected)]
    scores = model.score(rows, on_progress=on_progress) if rows else torch.empty(0)
    return scores[0::2], scores[1::2]


def accuracy_on_votes(chosen: torch.Tensor, rejected: torch.Tensor) -> Estimate | None:
    """How often the reward model prefers what the annotator preferred."""
    return proportion(int((chosen > rejected).sum()), len(chosen))


def accuracy_on_rule(pairs: Sequence[PreferencePair], chosen: torch.Tensor, rejected: torch.Tensor, rule: LabelRule) -> Estimate | None:
    """How often the reward model prefers what the declared rule prefers; pairs that the rule scores equally are left out."""
    agree = cases = 0
    for pair, c, r in zip(pairs, chosen.tolist(), rejected.tolist(), strict=True):
        difference = rule.score(pair.chosen) - rule.score(pair.rejected)
        if difference:
            cases += 1
            # A tie of the reward model agrees with neither side.
            agree += (c - r) * difference > 0
    return proportion(agree, cases)


def sample_completions(
    backbone: Backbone,
    adapter: str | None,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    per_prompt: int,
    seed: int,
    on_progress: Work = NO_PROGRESS,
) -> list[SampledCompletion]:
    """`per_prompt` answers to each prompt, with one adapter or the base alone, in the order of the prompts."""
    repeated = [p for p in prompts for _ in range(per_prompt)]
    sequences: list[GeneratedSequence] = []
    on_progress.total(len(repeated))
    for start in range(0, len(repeated), BATCH_SIZE):
        batch = repeated[start : start + BATCH_SIZE]
        prompt_ids = [backbone.encode(p.messages) for p in batch]
        rng = generator(backbone.device, seed, start)
        sequences += sample(backbone, prompt_ids, sampling, rng, on_progress.part(len(batch)), adapter=adapter)
    return [SampledCompletion(p.id, s.ids, backbone.decode(s.ids), s.finish_reason) for p, s in zip(repeated, sequences, strict=True)]


def score_completions(
    backbone: Backbone, scorer: Scorer, prompts: Sequence[Prompt], answers: Sequence[SampledCompletion], on_progress: Work = NO_PROGRESS
) -> list[float]:
    """The scorer's score of each answer, in their order."""
    prompt_ids = {p.id: backbone.encode(p.messages) for p in prompts}
    scores: list[float] = scorer.score([scorer.row(prompt_ids[a.prompt_id], a.ids) for a in answers], on_progress=on_progress).tolist()
    return scores


def best_of(candidates: Sequence[SampledCompletion], n: int, values: Sequence[float]) -> list[SampledCompletion]:
    """The answer with the highest value in each group of n consecutive answers; the first where several are equal."""
    groups = [range(start, start + n) for start in range(0, len(candidates), n)]
    return [candidates[max(group, key=lambda i: values[i])] for group in groups]


def best_of_n(
    backbone: Backbone,
    scorer: ScoreFunction,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    kl: float,
    max_n: int,
    per_prompt: int,
    seed: int,
    on_progress: Work = NO_PROGRESS,
) -> tuple[list[SampledCompletion], BestOfN]:
    """Best-of-n answers of the base, with the n whose KL is nearest to the given KL: a baseline that needs no training.

    Selected by the scores that PPO was trained on (Gao 2023, section 2). Also returns n and its KL, without win rates.
    """
    n = n_at_kl(kl, max_n)
    # The caller reserves the work of the largest n.
    on_progress.total(max_n)
    on_progress(max_n - n)
    on_progress.total(DECODE_COST + 1)
    candidates = sample_completions(
        backbone, None, prompts, sampling, per_prompt=n * per_prompt, seed=seed, on_progress=on_progress.part(DECODE_COST)
    )
    prompt_ids = {p.id: backbone.encode(p.messages) for p in prompts}
    sequences = [GeneratedSequence(a.ids, a.finish_reason) for a in candidates]
    scores = scorer([prompt_ids[a.prompt_id] for a in candidates], sequences, on_progress.part(1))
    result = BestOfN(n, best_of_n_kl(n), policy_kl=kl, max_n=max_n, beyond_max_n=kl > best_of_n_kl(max_n))
    return best_of(candidates, n, scores.tolist()), result


def win_rate(tuned: ValuesByPrompt, base: ValuesByPrompt) -> Estimate | None:
    """How often the tuned policy's answer has the higher value, over all pairs of answers to one prompt; a tie is half."""
    return mean_by_prompt(
        {prompt_id: [0.5 + 0.5 * np.sign(a - b) for a in values for b in base[prompt_id]] for prompt_id, values in tuned.items()}
    )


def by_prompt(answers: Sequence[SampledCompletion], values: Iterable[float]) -> ValuesByPrompt:
    """The values of the answers, which are in the same order, by prompt."""
    found: ValuesByPrompt = {}
    for answer, value in zip(answers, values, strict=True):
        found.setdefault(answer.prompt_id, []).append(value)
    return found
