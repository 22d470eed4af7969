"""Shared output of the benchmarks: percentiles, and the machine's load."""

from __future__ import annotations

import os
from collections.abc import Sequence


def percentile(figures: Sequence[float], percent: float) -> float:
    """The percentile of the figures, by the nearest rank; 0 without figures."""
    if not figures:
        return 0.0
    ordered = sorted(figures)
    return ordered[max(0, -(-int(percent * len(ordered)) // 100) - 1)]


def spread(figures: Sequence[float]) -> str:
    """Milliseconds, as a line of a table."""
    p50, p95, p99 = (percentile(figures, p) for p in (50, 95, 99))
    return f"p50 {p50:6.2f}  p95 {p95:6.2f}  p99 {p99:6.2f}  max {max(figures, default=0.0):7.2f} ms (n = {len(figures)})"


def machine() -> str:
    """Load of the last minute includes the benchmark itself."""
    return f"{os.cpu_count()} CPUs, load {' '.join(f'{load:.1f}' for load in os.getloadavg())}"


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"
