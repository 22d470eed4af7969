"""Whether annotators agree with the others as they did at first: their last third of shared votes beside their first."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from rlhf.analysis import agreement
from rlhf.analysis.intervals import wilson
from storage.analytics import rankings as ranking_table
from storage.core.database import Database

MIN_VOTES = 10
"""Votes in each third, at least: with fewer nothing is said."""


@dataclass(frozen=True, slots=True)
class Drift:
    """The agreement of one annotator's first and last votes with the others' votes on the same comparisons, as fractions."""

    first: float
    last: float
    votes: int
    """Votes in each third that somebody else shares."""
    low: float
    high: float
    """The 95% interval of `last - first`."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def of_store(store: Database, *, include_simulated: bool = False) -> dict[int, Drift]:
    """The drift of each annotator with enough votes that others share, by annotator id.

    Votes are in the order in which they were written. The interval is Newcombe's for the difference of two fractions (1998, method 10),
    from Wilson's intervals of each; a vote's agreement may be a fraction, and then counts as that part of a success.
    """
    kinds = agreement.kinds_of(include_simulated)
    counted = agreement.latest_votes(ranking_table.read(store, kinds=kinds))
    agreed, pairs = np.zeros(len(counted.judgment)), np.zeros(len(counted.judgment))
    for row, share in agreement.votes_with_others(counted):
        np.add.at(agreed, row, share)
        np.add.at(pairs, row, 1)
    shared = np.flatnonzero(pairs)
    drifts = {}
    for annotator_id in np.unique(counted.annotator[shared]).tolist():
        mine = shared[counted.annotator[shared] == annotator_id]
        third = len(mine) // 3
        if third >= MIN_VOTES:
            values = agreed[mine] / pairs[mine]
            drifts[annotator_id] = between(float(values[:third].mean()), float(values[-third:].mean()), third)
    return drifts


def between(first: float, last: float, votes: int) -> Drift:
    """The drift from one agreement to another, each over so many votes."""
    (low_1, high_1), (low_2, high_2) = (wilson(round(share * votes), votes) for share in (first, last))
    change = last - first
    low = change - sqrt(max(0.0, last - low_2) ** 2 + max(0.0, high_1 - first) ** 2)
    high = change + sqrt(max(0.0, high_2 - last) ** 2 + max(0.0, first - low_1) ** 2)
    return Drift(first, last, votes, max(-1.0, low), min(1.0, high))
