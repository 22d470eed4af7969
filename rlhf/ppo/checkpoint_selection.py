"""Over-optimisation: the policy's score under the reward model still rises while its true quality falls.

Gao 2023 (Scaling Laws for Reward Model Overoptimization, arXiv 2210.10760) measures both over the square root of the KL.
This module has the rule that selects a checkpoint, and the KL of best-of-n, the baseline beside PPO. Pure; no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

SMOOTHING = 3
"""Steps over which conservative scores are averaged before the best is taken: itself and its neighbours."""


class PolicyMetrics(NamedTuple):
    """A policy's metrics on the batch that it sampled."""

    score: float
    """Conservative score: mean minus standard deviation over the reward ensemble, mean over completions."""
    kl: float
    """To the reference, per completion, in nats."""


def smoothed(values: Sequence[float], width: int = SMOOTHING) -> list[float]:
    """Each value's mean with its neighbours, as far as there are any."""
    reach = width // 2
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(w) / len(w) for w in windows]


def best(measured: Sequence[PolicyMetrics], kl_budget: float, *, before: int | None = None) -> int:
    """The index of the highest smoothed conservative score among those within the KL budget; the earliest of equals.

    The first is the reference itself, so where none is within the budget that one is taken. A budget of 0 is none.

    Args:
        before: only indices below this one are candidates; the others still smooth.
    """
    scores = smoothed([m.score for m in measured])
    within = [i for i, m in enumerate(measured[:before]) if not kl_budget or m.kl <= kl_budget]
    return max(within, key=lambda i: scores[i], default=0)


def best_of_n_kl(n: int) -> float:
    """KL of best-of-n to the policy it chooses from: log n - (n - 1) / n, in nats (Stiennon 2020, appendix G.3; Nakano 2021).

    Exact where no two answers are alike, and an upper bound otherwise (Beirami 2024, arXiv 2401.01879).
    """
    return math.log(n) - (n - 1) / n


def n_at_kl(kl: float, most: int) -> int:
    """The n up to `most` whose best-of-n comes nearest to this KL."""
    return min(range(1, most + 1), key=lambda n: abs(best_of_n_kl(n) - kl))
