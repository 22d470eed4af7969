"""Whether a new policy version is better than the current one, decided while the votes come in.

Testing by betting (Waudby-Smith and Ramdas 2023, Estimating means of bounded random variables by betting, arXiv 2010.09686). A
gambler starts with a wealth of 1 and bets, before each outcome, that the new version wins more than half. If it does not, the
wealth is a nonnegative supermartingale, so the probability that it ever reaches 1 / alpha is at most alpha (Ville's inequality), however
often somebody looks. A second gambler bets on the opposite. `assess` is a function of the outcomes alone: it keeps no state.

Given the outcomes before it, each outcome must have the same expectation. That is the caller's part:

- Votes on one prompt are one unit, their mean, and so are votes on one pair of answers.
- A unit enters once, when all its votes are in, and does not change afterwards. A later vote opens no closed unit.
- Which annotator judges a unit is random, or each unit has a vote of each. One annotator's taste over a long stretch of units looks
  like a better version; docs/research/sequential-test.md shows by how much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Verdict = Literal["promote", "reject", "continue"]

NO_DIFFERENCE = 0.5
"""The win rate of a version that is as good as the current one."""

TRUNCATION = 0.5
"""Largest share of the wealth that is at stake in one bet: the paper's c."""

BISECTIONS = 40
"""Halvings in which an end of the confidence sequence is found, to 1e-12."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the outcomes so far say about the new version."""

    verdict: Verdict
    """A verdict other than `continue` is final: later outcomes do not change it."""
    units: int
    """Independent outcomes that entered, at most `most`."""
    win_rate: float | None
    """Mean of the units, a tie is half a win; None before the first."""
    low: float
    high: float
    """Ends of the confidence sequence for the win rate: all intervals together, whenever one looks, cover it with 1 - alpha.

    The interval is two-sided and the verdict is not, so the interval of a version that was just promoted may contain 1/2.
    """
    evidence_better: float
    evidence_worse: float
    """Wealth of the two gamblers; 1 at the start. A verdict falls where one reaches 1 / alpha."""
    likely_needed: int | None
    """Comparisons that are likely to be needed from here, at the pace so far. None before the first, once decided, and where no
    verdict but the last unit's is in sight."""


def assess(outcomes: Sequence[float], *, alpha: float = 0.05, most: int = 200) -> Assessment:
    """The verdict on the new version, and the evidence for it.

    `promote` where the evidence that it is better reached 1 / alpha at any time so far; `reject` where the evidence that it is worse
    did so first, or `most` units came without a promotion.

    Args:
        outcomes: one number from 0 to 1 for each independent unit, in the order of arrival: 1 where the new version won, 0 where the
            current one did, .5 for a tie, between them for a mean of several votes. Those beyond `most` do not enter.
        alpha: the largest probability of promoting a version that is not better.
        most: units after which a version without a promotion is rejected. The bets are the best ones for a verdict after half of them.

    Raises:
        ValueError: an argument is out of its range.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha}: must be above 0 and below 1")
    if most < 1:
        raise ValueError(f"most {most}: must be at least 1")
    x = np.asarray(outcomes[:most], dtype=float)
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError(f"outcome {x[~((x >= 0) & (x <= 1))][0]}: must be from 0 (lost) to 1 (won)")
    better, worse = log_wealth(x, alpha=alpha, most=most), log_wealth(1 - x, alpha=alpha, most=most)
    verdict = _verdict(better, worse, alpha, most)
    return Assessment(
        verdict,
        units=len(x),
        win_rate=float(x.mean()) if len(x) else None,
        low=_lower_end(x, alpha, most),
        high=1 - _lower_end(1 - x, alpha, most),
        evidence_better=math.exp(better[-1]) if len(x) else 1.0,
        evidence_worse=math.exp(worse[-1]) if len(x) else 1.0,
        likely_needed=_likely_needed(x, alpha, most) if verdict == "continue" else None,
    )


def bets(x: Float[np.ndarray, "*runs n"], *, log_inverse: float, most: int) -> Float[np.ndarray, "*runs n+1"]:
    """The bet before each outcome and before the next one: wealth at stake per unit of surprise, before truncation.

    The paper's predictable plug-in for a fixed number of units: sqrt(2 log(1 / alpha) / (variance * units)), with the variance of
    the outcomes before, one imagined outcome at 1/2 and of variance 1/4 among them.

    Args:
        log_inverse: log(1 / alpha), the goal of the log wealth.
    """
    n = np.arange(1, x.shape[-1] + 1)
    mean = (NO_DIFFERENCE + x.cumsum(-1)) / (n + 1)
    variance = (0.25 + ((x - mean) ** 2).cumsum(-1)) / (n + 1)
    before = np.concatenate([np.full((*x.shape[:-1], 1), 0.25), variance], axis=-1)
    sizes: Float[np.ndarray, "*runs n+1"] = np.sqrt(2 * log_inverse / (before * max(1.0, most / 2)))
    return sizes


def log_wealth(x: Float[np.ndarray, "*runs n"], *, alpha: float, most: int) -> Float[np.ndarray, "*runs n"]:
    """Log wealth after each outcome of the gambler who bets that the mean is above 1/2 (the paper's capital process at 1/2)."""
    placed = np.minimum(bets(x, log_inverse=-math.log(alpha), most=most)[..., :-1], TRUNCATION / NO_DIFFERENCE)
    wealth: Float[np.ndarray, "*runs n"] = np.log1p(placed * (x - NO_DIFFERENCE)).cumsum(-1)
    return wealth


def _verdict(better: Float[np.ndarray, " n"], worse: Float[np.ndarray, " n"], alpha: float, most: int) -> Verdict:
    goal = -math.log(alpha)
    promoted, rejected = (np.flatnonzero(wealth >= goal) for wealth in (better, worse))
    if len(promoted) and (not len(rejected) or promoted[0] < rejected[0]):
        return "promote"
    return "reject" if len(rejected) or len(better) >= most else "continue"


def _lower_end(x: Float[np.ndarray, " n"], alpha: float, most: int) -> float:
    """Lower end of the hedged capital confidence sequence (the paper's theorem 3), half of the wealth on either side.

    A mean m is outside where half the wealth of the gambler who bets that the mean is above m reaches 1 / alpha. That wealth falls
    with m, so the end is found by bisection. Earlier intervals are not intersected: an interval that later outcomes contradict
    would become empty, and this one is about the outcomes so far.
    """
    goal = math.log(2 / alpha)
    wanted = bets(x, log_inverse=goal, most=most)[:-1]

    def is_outside(m: float) -> bool:
        placed = np.minimum(wanted, TRUNCATION / m) if m else wanted
        return bool(np.log1p(placed * (x - m)).sum() >= goal)

    outside, inside = 0.0, 1.0
    if not is_outside(outside):
        return 0.0
    for _ in range(BISECTIONS):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if is_outside(middle) else (outside, middle)
    return outside


def _likely_needed(x: Float[np.ndarray, " n"], alpha: float, most: int) -> int | None:
    """Units until one of the gamblers reaches the goal, if outcomes go on as so far."""
    return min(filter(None, (_until_goal(side, alpha, most) for side in (x, 1 - x))), default=None)


def _until_goal(x: Float[np.ndarray, " n"], alpha: float, most: int) -> int | None:
    goal = -math.log(alpha)
    placed = min(bets(x, log_inverse=goal, most=most)[-1], TRUNCATION / NO_DIFFERENCE)
    # The imagined outcome at 1/2 adds nothing, and keeps the first units from promising too much.
    pace = np.log1p(placed * (x - NO_DIFFERENCE)).sum() / (len(x) + 1)
    if pace <= 0:
        return None
    left = math.ceil((goal - log_wealth(x, alpha=alpha, most=most)[-1]) / pace)
    return left if len(x) + left <= most else None
