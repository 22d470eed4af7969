"""The cluster bootstrap behind the intervals: whole comparisons or prompts are resampled, never single votes.

The statistics that use it depend only on counts of events by kind (a cell), and many clusters have the same counts (a pattern):
a replicate samples how many clusters of each pattern there are instead of the clusters one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from rlhf.analysis.intervals import CONFIDENCE

if TYPE_CHECKING:
    from scipy import sparse

MIN_CLUSTERS = 10
"""With fewer, a percentile interval is too narrow, and none is computed."""

MULTINOMIAL_UP_TO = 20_000
"""Number of patterns up to which one multinomial sample is faster than sampling every cluster."""
MAX_SAMPLED_NUMBERS = 4_000_000
"""Numbers in memory at a time while replicates are sampled."""


def totals(
    cluster: Int[np.ndarray, " n"], cell: Int[np.ndarray, " n"], *, cells: int, replicates: int, seed: int
) -> Float[np.ndarray, "replicates cells"]:
    """How often each cell occurs in each replicate. Row i of the input says that cell `cell[i]` occurred in `cluster[i]`.

    As many clusters are sampled, with replacement, as there are.
    """
    rng = np.random.default_rng(seed)
    pattern_of, counts = _patterns(cluster, cell, cells)
    clusters, patterns = len(pattern_of), counts.shape[0]
    sampled = np.empty((replicates, cells))
    step = max(1, MAX_SAMPLED_NUMBERS // patterns)
    for start in range(0, replicates, step):
        number = min(step, replicates - start)
        if patterns <= MULTINOMIAL_UP_TO:
            cluster_counts = rng.multinomial(clusters, np.bincount(pattern_of) / clusters, size=number)
        else:
            resamples = (pattern_of[rng.integers(clusters, size=clusters)] for _ in range(number))
            cluster_counts = np.stack([np.bincount(resample, minlength=patterns) for resample in resamples])
        sampled[start : start + number] = cluster_counts @ counts
    return sampled


def _patterns(cluster: Int[np.ndarray, " n"], cell: Int[np.ndarray, " n"], cells: int) -> tuple[Int[np.ndarray, " c"], sparse.csr_array]:
    """The pattern of each cluster (clusters with the same cells have one pattern), and how often each pattern has each cell."""
    order = np.argsort(cluster, kind="stable")
    cluster, cell = cluster[order], cell[order]
    starts = np.flatnonzero(np.diff(cluster, prepend=cluster[0] - 1))
    # Sums of random 64-bit numbers, one for each cell: for a million clusters two different patterns collide once in 10^7 stores.
    label = np.random.default_rng(0).integers(np.iinfo(np.uint64).max, size=cells, dtype=np.uint64)
    _, example, pattern_of = np.unique(np.add.reduceat(label[cell], starts), return_index=True, return_inverse=True)
    lengths = np.diff(starts, append=len(cluster))
    pattern = np.full(len(starts), -1)
    pattern[example] = np.arange(len(example))
    row = np.repeat(pattern, lengths)
    is_first = row >= 0
    # Imported here: pages that show no interval need none of it.
    from scipy import sparse

    counts = sparse.coo_array((np.ones(is_first.sum()), (row[is_first], cell[is_first])), shape=(len(example), cells))
    return pattern_of, counts.tocsr()


def interval(replicates: Float[np.ndarray, " r"]) -> tuple[float, float]:
    """The percentile interval; replicates in which the statistic is not defined (NaN) are left out."""
    low, high = np.nanquantile(replicates, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
