"""Confidence intervals that need no resampling; `bootstrap` has those that resample."""

from __future__ import annotations

CONFIDENCE = 0.95
"""Probability that an interval covers the true value, of every interval that is shown."""


def wilson(successes: int, cases: int) -> tuple[float, float]:
    """The ends of Wilson's score interval, without continuity correction, of a fraction of independent cases (at least one)."""
    # Imported here: it takes longer than a command that prints no interval.
    from scipy import stats

    interval = stats.binomtest(successes, cases).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)
