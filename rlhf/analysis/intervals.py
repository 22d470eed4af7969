"""Confidence intervals that need no resampling; `bootstrap` has those that resample."""

from __future__ import annotations

from scipy import stats

CONFIDENCE = 0.95
"""Probability that an interval covers the true value, of every interval that is shown."""


def wilson(successes: int, cases: int) -> tuple[float, float]:
    """The ends of Wilson's score interval, without continuity correction, of a fraction of independent cases (at least one)."""
    interval = stats.binomtest(successes, cases).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)
