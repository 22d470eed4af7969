"""The cluster bootstrap behind the intervals: whole comparisons or prompts are drawn again, never single votes.

Both statistics that use it depend only on how often each kind of thing occurred (a cell), and many clusters are alike, so a
replicate draws how many clusters of each make there are instead of the clusters one by one.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

CONFIDENCE = 0.95
FEWEST_CLUSTERS = 10
"""With fewer, a percentile interval says less than it seems to, and none is given."""

MULTINOMIAL_UP_TO = 20_000
"""Makes of cluster up to which one multinomial draw is faster than drawing every cluster."""
CHUNK = 4_000_000
"""Numbers held at a time while replicates are drawn."""


def totals(
    cluster: Int[np.ndarray, " n"], cell: Int[np.ndarray, " n"], *, cells: int, replicates: int, seed: int
) -> Float[np.ndarray, "replicates cells"]:
    """How often each cell occurs in each replicate. Row i of the input says that cell `cell[i]` occurred in `cluster[i]`.

    As many clusters are drawn, with replacement, as there are.
    """
    rng = np.random.default_rng(seed)
    make_of, counts = _makes(cluster, cell, cells)
    clusters, makes = len(make_of), counts.shape[0]
    drawn = np.empty((replicates, cells))
    step = max(1, CHUNK // makes)
    for start in range(0, replicates, step):
        number = min(step, replicates - start)
        if makes <= MULTINOMIAL_UP_TO:
            draws = rng.multinomial(clusters, np.bincount(make_of) / clusters, size=number)
        else:
            draws = np.stack([np.bincount(make_of[rng.integers(clusters, size=clusters)], minlength=makes) for _ in range(number)])
        drawn[start : start + number] = draws @ counts
    return drawn


def _makes(cluster: Int[np.ndarray, " n"], cell: Int[np.ndarray, " n"], cells: int) -> tuple[Int[np.ndarray, " c"], sparse.csr_array]:
    """The make of each cluster (clusters with the same cells are of one make), and how often each make has each cell."""
    order = np.argsort(cluster, kind="stable")
    cluster, cell = cluster[order], cell[order]
    starts = np.flatnonzero(np.diff(cluster, prepend=cluster[0] - 1))
    # Sums of random 64-bit numbers, one for each cell: for a million clusters two different makes collide once in 10^7 stores.
    label = np.random.default_rng(0).integers(np.iinfo(np.uint64).max, size=cells, dtype=np.uint64)
    _, example, make_of = np.unique(np.add.reduceat(label[cell], starts), return_index=True, return_inverse=True)
    lengths = np.diff(starts, append=len(cluster))
    make = np.full(len(starts), -1)
    make[example] = np.arange(len(example))
    row = np.repeat(make, lengths)
    kept = row >= 0
    counts = sparse.coo_array((np.ones(kept.sum()), (row[kept], cell[kept])), shape=(len(example), cells))
    return make_of, counts.tocsr()


def interval(replicates: Float[np.ndarray, " r"]) -> tuple[float, float]:
    """The percentile interval; replicates in which the statistic is not defined (NaN) are left out."""
    low, high = np.nanquantile(replicates, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
