"""How far each annotator's votes can be relied on, estimated from agreement with others and from gold answers; and their weights.

The noisy Bradley-Terry model with one number for each annotator: a vote follows the completions with probability r, the annotator's
reliability, and is a coin flip otherwise (Chen 2013, Pairwise ranking aggregation in a crowdsourced setting, with r = 2 eta - 1; the
one-coin model of Dawid and Skene 1979 where completions differ without limit). A vote that follows them prefers the first with
probability sigmoid(d), and d is different in each pair and known to nobody: fitted by expectation and maximisation over d and over which
votes were coin flips. Somebody who always clicks left is a coin here, because sides are random.

A vote weighs in training as the log-odds of being right (Nitzan and Paroush 1982, the best weighted majority). No torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64
from scipy import sparse
from scipy.special import expit
from scipy.stats import beta, norm

from rlhf.analysis import agreement
from rlhf.analysis.agreement import Agreement, Share, latest_votes
from rlhf.analysis.intervals import CONFIDENCE
from storage.analytics import rankings as ranking_table
from storage.analytics.rankings import Rankings
from storage.core.database import Database
from storage.core.records import AnnotatorKind

DIFFERENCES = 2.0 * norm.ppf((np.arange(8) + 0.5) / 8)
"""Eight equally likely differences d of two completions: a normal distribution of standard deviation 2, so that two votes that follow
the completions agree in 70% of the pairs. Agreement alone cannot tell clear pairs from reliable annotators, so it is not fitted."""

GOLD_ACCURACY = 0.95
"""Probability that a vote that follows the completions has a gold answer's order."""

UNKNOWN_RELIABILITY = 0.75
PRIOR_VOTES = 10.0
"""The average reliability without evidence, and the weight of it in votes."""

SHRINKAGE = 1.0
"""Weight of the average in each annotator's reliability, in votes."""

MAX_ACCURACY = 0.95
"""Largest accuracy that is used: log-odds grow without bound."""

ITERATION_LIMIT = 300
TOLERANCE = 1e-4
GRID_CELLS = 64
CHUNK_VOTES = 50_000
"""Votes whose likelihood on the grid is in memory at a time."""


@dataclass(frozen=True, slots=True)
class AnnotatorReliability:
    """One annotator's reliability, and what it was estimated from."""

    annotator_id: int
    name: str
    kind: AnnotatorKind
    judgments: int
    """Votes that count."""
    shared: int
    """Pairs of completions that somebody else judged too."""
    agreement: float | None
    """Share of the others with the same preference, averaged over the shared pairs."""
    gold: Share
    """Ordered pairs of gold answers that they ranked in the same order."""
    reliability: float | None
    """Probability that a vote follows the completions and is no coin flip; None without a shared pair and a gold answer."""
    low: float | None
    high: float | None
    """Its 95% credible interval, given the reliabilities of the others: a little too narrow where few annotators share pairs."""
    weight: float
    """In training: 1 for an average annotator and for one without evidence, near 0 for one who clicks at random."""


class SharedVotes(NamedTuple):
    """Votes on pairs of completions that at least two annotators judged: v of them, on u pairs."""

    pair: Int64[np.ndarray, " v"]
    """From 0 to u - 1."""
    annotator: Int64[np.ndarray, " v"]
    """Any numbers from 0 on, such as annotator ids."""
    first: Float[np.ndarray, " v"]
    """1 where the first completion is better, 0 where the second is, .5 for a tie."""
    weight: Float[np.ndarray, " v"]
    """1 / (K - 1) for a ranking of K: its pairs are not independent."""


class Estimates(NamedTuple):
    """Reliabilities by annotator number, with their intervals; those without evidence have the average."""

    reliability: Float[np.ndarray, " a"]
    low: Float[np.ndarray, " a"]
    high: Float[np.ndarray, " a"]
    average: float


def of_store(store: Database, *, include_simulated: bool, report: Agreement | None = None) -> tuple[AnnotatorReliability, ...]:
    """The reliability of each annotator, most judgments first.

    Args:
        report: the agreement of the same annotators, where the caller has it already.
    """
    with store.snapshot():
        found = report or agreement.report(store, include_simulated=include_simulated)
        kinds: tuple[AnnotatorKind, ...] = ("human", "simulated") if include_simulated else ("human",)
        votes = shared_votes(latest_votes(ranking_table.read(store, kinds=kinds)))
    number = 1 + max((row.id for row in found.annotators), default=0)
    right, known = np.zeros(number), np.zeros(number)
    for row in found.annotators:
        right[row.id], known[row.id] = row.gold.count, row.gold.of
    estimates = fit(votes, right, known)
    average = log_odds(estimates.average)

    def of(row: agreement.AnnotatorRow) -> AnnotatorReliability:
        values = [float(column[row.id]) for column in estimates[:3]]
        is_known = bool(row.agreement_units or row.gold.of)
        reliability, low, high = values if is_known else (None, None, None)
        weight = log_odds(values[0]) / average if is_known else 1.0
        return AnnotatorReliability(
            row.id, row.name, row.kind, row.judgments, row.agreement_units, row.agreement, row.gold, reliability, low, high, weight
        )

    return tuple(of(row) for row in found.annotators)


def weights(store: Database, *, include_simulated: bool) -> dict[int, float]:
    """Weights in training by annotator id."""
    return {row.annotator_id: row.weight for row in of_store(store, include_simulated=include_simulated)}


def log_odds(reliability: float) -> float:
    """log(p / (1 - p)) of the probability p = (1 + reliability) / 2 that a vote on a clear pair is right."""
    p = min(MAX_ACCURACY, (1 + reliability) / 2)
    return math.log(p / (1 - p))


def shared_votes(counted: Rankings) -> SharedVotes:
    """The votes on pairs that at least two annotators judged, from one vote of each annotator on each comparison."""
    ranked = (counted.ranks >= 0).sum(axis=1)
    parts = []
    for place, (i, j) in enumerate(combinations(range(counted.ranks.shape[1]), 2)):
        rows = np.flatnonzero((counted.ranks[:, i] >= 0) & (counted.ranks[:, j] >= 0))
        several = np.bincount(counted.comparison[rows], minlength=len(counted.comparisons))[counted.comparison[rows]] > 1
        rows = rows[several]
        first = (1 + np.sign(counted.ranks[rows, j].astype(int) - counted.ranks[rows, i])) / 2
        parts.append((place * len(counted.comparisons) + counted.comparison[rows], counted.annotator[rows], first, 1 / (ranked[rows] - 1)))
    keys, annotator, first, weight = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return SharedVotes(np.unique(keys, return_inverse=True)[1].astype(np.int64), annotator, first, weight)


def fit(votes: SharedVotes, gold_right: Float[np.ndarray, " a"], gold_known: Float[np.ndarray, " a"]) -> Estimates:
    """The reliability of each annotator: the fixed point of expectation and maximisation, with an interval.

    Args:
        gold_right: by annotator, pairs of gold answers in the right order.
        gold_known: by annotator, pairs of gold answers.
    """
    shape = (int(votes.pair.max(initial=-1)) + 1, len(gold_known))
    firsts, seconds = (
        sparse.csr_array((votes.weight * share, (votes.pair, votes.annotator)), shape=shape) for share in (votes.first, 1 - votes.first)
    )
    evidence = firsts.sum(axis=0) + seconds.sum(axis=0) + gold_known
    r, average = np.full(shape[1], UNKNOWN_RELIABILITY), UNKNOWN_RELIABILITY
    for _ in range(ITERATION_LIMIT):
        prefers_first = _preference(r)
        of_difference = _differences(firsts, seconds, prefers_first)
        # Expected votes that are no coin flips: by Bayes' rule for each difference, annotator and preference.
        of_first, of_second = r[:, None] * expit(DIFFERENCES) / prefers_first, r[:, None] * expit(-DIFFERENCES) / (1 - prefers_first)
        followed = (of_first * (firsts.T @ of_difference) + of_second * (seconds.T @ of_difference)).sum(axis=1)
        gold = _gold_preference(r)
        followed += gold_right * r * GOLD_ACCURACY / gold + (gold_known - gold_right) * r * (1 - GOLD_ACCURACY) / (1 - gold)
        before = r
        r = (followed + SHRINKAGE * average) / (evidence + SHRINKAGE)
        average = float((r @ evidence + UNKNOWN_RELIABILITY * PRIOR_VOTES) / (evidence.sum() + PRIOR_VOTES))
        if np.abs(r - before).max(initial=0) < TOLERANCE:
            break
    posterior, cells = _posterior(votes, _differences(firsts, seconds, _preference(r)), r, average, gold_right, gold_known)
    total = posterior.cumsum(axis=1)
    low, high = (cells[(total < share).sum(axis=1).clip(max=GRID_CELLS - 1)] for share in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Estimates(np.where(evidence > 0, posterior @ cells, average), low, high, average)


def _preference(r: Float[np.ndarray, " a"]) -> Float[np.ndarray, "a 8"]:
    """Probability that the annotator prefers the first completion, by difference."""
    chosen: Float[np.ndarray, "a 8"] = r[:, None] * expit(DIFFERENCES) + (1 - r[:, None]) / 2
    return chosen


def _gold_preference(r: Float[np.ndarray, " a"]) -> Float[np.ndarray, " a"]:
    """Probability of a gold answer's order."""
    return r * GOLD_ACCURACY + (1 - r) / 2


def _differences(firsts: sparse.csr_array, seconds: sparse.csr_array, prefers_first: Float[np.ndarray, "a 8"]) -> Float[np.ndarray, "u 8"]:
    """Probability of each difference in each pair, given all its votes. A tie is half a vote each way."""
    log_likelihood = firsts @ np.log(prefers_first) + seconds @ np.log(1 - prefers_first)
    likelihood = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
    of_difference: Float[np.ndarray, "u 8"] = likelihood / likelihood.sum(axis=1, keepdims=True)
    return of_difference


def _posterior(
    votes: SharedVotes,
    of_difference: Float[np.ndarray, "u 8"],
    r: Float[np.ndarray, " a"],
    average: float,
    gold_right: Float[np.ndarray, " a"],
    gold_known: Float[np.ndarray, " a"],
) -> tuple[Float[np.ndarray, "a cells"], Float[np.ndarray, " cells"]]:
    """Probability of each reliability on a grid, given those of the others; and the grid.

    The likelihood of a pair is linear in the reliability of one of its annotators: L(q) = L(r) (1 + slope (q - r)).
    """
    edges = np.linspace(0, 1, GRID_CELLS + 1)
    cells = (edges[1:] + edges[:-1]) / 2
    prior = np.diff(beta.cdf(edges, SHRINKAGE * average, SHRINKAGE * (1 - average)))
    gold = _gold_preference(cells)
    log_likelihood = gold_right[:, None] * np.log(gold) + (gold_known - gold_right)[:, None] * np.log(1 - gold) + np.log(prior)
    shift = expit(DIFFERENCES) - 0.5
    for start in range(0, len(votes.pair), CHUNK_VOTES):
        pair, annotator, first, weight = (column[start : start + CHUNK_VOTES] for column in votes)
        by_annotator = sparse.csr_array((np.ones(len(pair)), (annotator, np.arange(len(pair)))), shape=(len(r), len(pair)))
        prefers_first, likely = _preference(r)[annotator], of_difference[pair]
        for share, slope in (
            (first, (likely * shift / prefers_first).sum(axis=1)),
            (1 - first, -(likely * shift / (1 - prefers_first)).sum(axis=1)),
        ):
            of_votes = (weight * share)[:, None] * np.log1p(slope[:, None] * (cells - r[annotator, None]))
            log_likelihood += by_annotator @ of_votes
    likelihood = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
    return likelihood / likelihood.sum(axis=1, keepdims=True), cells
