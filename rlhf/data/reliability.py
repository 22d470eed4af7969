"""Annotator weights: the log-odds of being right, estimated from gold answers and from agreement with others.

One number for each annotator, as in the one-coin model of Dawid and Skene (1979): an annotator who is right with
probability p in every pair has a vote of weight log(p / (1 - p)) (Nitzan and Paroush 1982, the best weighted majority). Few
judgments are weak evidence, so p is shrunk towards the average. The counts come from `agreement`. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rlhf.analysis import agreement
from rlhf.analysis.agreement import AnnotatorRow
from storage.core.database import Database

PRIOR_PAIRS = 10.0
"""Weight of the average accuracy in each annotator's estimate, in pairs."""

MAX_ACCURACY = 0.95
"""Largest accuracy that is used: log-odds grow without bound."""

UNKNOWN_ACCURACY = 0.75
"""Average accuracy without evidence: no two annotators judged the same pair, and there are no gold answers."""


def weights(store: Database, *, include_simulated: bool) -> dict[int, float]:
    """Weights by annotator id: 1 for an average annotator and for one without evidence, 0 for one no better than chance."""
    rows = agreement.report(store, include_simulated=include_simulated).annotators
    average = average_accuracy(rows)
    return {row.id: log_odds(accuracy(row, average)) / log_odds(average) for row in rows}


def average_accuracy(rows: Sequence[AnnotatorRow]) -> float:
    """The accuracy of all annotators together: gold answers, pooled with the accuracy that agreement implies.

    Two annotators who are right with probability p, and err independently, agree on a pair with probability p^2 + (1 - p)^2.
    """
    units = sum(row.agreement_units for row in rows)
    agreed = sum(row.agreement * row.agreement_units for row in rows if row.agreement is not None)
    implied = (1 + math.sqrt(max(0.0, 2 * agreed / units - 1))) / 2 if units else 0.0
    cases = units + sum(row.gold.of for row in rows)
    if not cases:
        return UNKNOWN_ACCURACY
    # At an average of one half, its log-odds would be 0, and weights are divided by them.
    return min(MAX_ACCURACY, max(0.55, (implied * units + sum(row.gold.count for row in rows)) / cases))


def accuracy(row: AnnotatorRow, average: float) -> float:
    """One annotator's accuracy, shrunk towards the average by `PRIOR_PAIRS`.

    Agreement a with others who are right with probability q gives p from a = p q + (1 - p)(1 - q).
    """
    implied = (row.agreement - (1 - average)) / (2 * average - 1) if row.agreement is not None else 0.0
    right = row.gold.count + min(1.0, max(0.0, implied)) * row.agreement_units + average * PRIOR_PAIRS
    return right / (row.gold.of + row.agreement_units + PRIOR_PAIRS)


def log_odds(p: float) -> float:
    """log(p / (1 - p)), not below 0: a vote that is wrong more often than right is ignored rather than reversed."""
    p = min(MAX_ACCURACY, p)
    return math.log(p / (1 - p)) if p > 0.5 else 0.0
