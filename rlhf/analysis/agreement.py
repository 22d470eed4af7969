"""Agreement between annotators: Krippendorff's alpha, unanimity, left share, and metrics of each annotator.

docs/research/statistics.md says what each metric means and how it is computed. evalica computes alpha, scipy the tests and the intervals
of shares; this module prepares the counts, and applies alpha's formula to resampled totals for its interval.
No torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int8, Int64

from rlhf.analysis import bootstrap
from rlhf.analysis.intervals import CONFIDENCE, wilson
from storage.analytics import rankings as ranking_table
from storage.analytics.rankings import PURPOSES, Rankings
from storage.content import comparisons
from storage.core.database import Database
from storage.core.records import Annotator, AnnotatorKind
from storage.judging import gold
from storage.people import annotators

REPLICATES = 1000
SEED = 0

MAX_TABLE_CELLS = 20_000_000
"""Cells of the largest table that evalica gets (it takes about 20 bytes for each); beyond it alpha is computed from totals."""

Distance = Literal["nominal", "ordinal"]

VALUES = np.array([-1, 0, 1])
"""An annotator's preference in a pair: the first is better, a tie, the second is better."""


@dataclass(frozen=True, slots=True)
class Alpha:
    """Krippendorff's alpha with its 95% interval. `reason` says why a number is missing."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `of` cases, with Wilson's 95% interval; all None where there are no cases."""

    share: float | None
    low: float | None
    high: float | None
    count: int
    of: int


@dataclass(frozen=True, slots=True)
class LeftShare:
    """Share of `n` votes for the completion shown left (first), among votes on two completions that are not ties.

    The interval is Clopper and Pearson's, which fits the exact two-sided binomial test behind `p_value`.
    """

    share: float | None
    low: float | None
    high: float | None
    n: int
    p_value: float | None
    """Probability of a share this far from a half, or farther, if the side made no difference."""


@dataclass(frozen=True, slots=True)
class AnnotatorRow:
    """Metrics of one annotator; excluded judgments are left out of them."""

    id: int
    name: str
    kind: AnnotatorKind
    judgments: int
    """Votes that count."""
    excluded: int
    """Judgments that do not count because of an exclusion."""
    median_active_s: float | None
    """Active time of their votes, in seconds; None where none was measured."""
    gold: Share
    """Ordered pairs of gold answers that they ranked in the same order."""
    consistency: Share
    """Pairs with the same preference when the comparison was repeated."""
    left_share: LeftShare
    agreement: float | None
    """Share of the other annotators with the same preference in a pair, averaged over the pairs that somebody else judged too."""
    agreement_units: int
    """Number of pairs in that average."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The whole report."""

    include_simulated: bool
    judgments: int
    """Votes that count; of one annotator's several on a comparison the latest."""
    comparisons: int
    """Comparisons with at least one of them."""
    units: int
    """Pairs of completions that at least two annotators judged: the units of alpha."""
    alpha_nominal: Alpha
    alpha_ordinal: Alpha
    unanimous: Share
    """Comparisons that all their annotators ranked alike, of those with at least two annotators."""
    left_share: LeftShare
    annotators: tuple[AnnotatorRow, ...]
    """Annotators with a judgment or an exclusion; most votes first."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ComparisonAgreement:
    """Agreement of the annotators on one comparison."""

    comparison_id: int
    prompt: str
    """The last turn."""
    annotators: int
    agreement: float
    """Over all pairs of annotators and all pairs of completions that both ranked: the share with the same preference."""
    unanimous: bool


@dataclass(frozen=True, slots=True)
class Units:
    """Pairs of completions with the preferences of their annotators; u of them, those with at least two annotators."""

    comparison: Int64[np.ndarray, " u"]
    counts: Int64[np.ndarray, "u 3"]
    """Number of annotators with each of `VALUES`."""
    unordered: Bool[np.ndarray, " u"] | None = None
    """Pairs from files that do not record what was shown where; None if there are none. The order of their completions has no
    meaning: many files put the chosen one first. In `counts` the first is the one that more annotators prefer."""


def report(store: Database, *, include_simulated: bool = False) -> Agreement:
    """Computes the report from the votes of people, or of all annotators."""
    with store.snapshot():
        rankings = ranking_table.read(store, kinds=kinds_of(include_simulated))
        gold_ranks = _gold_ranks(store, rankings)
        excluded = ranking_table.excluded(store)
        known = [a for a in annotators.all_annotators(store) if a.kind in kinds_of(include_simulated)]
    counted = latest_votes(rankings)
    units = units_of(counted)
    several, alike = _unanimity(counted)
    return Agreement(
        include_simulated,
        len(counted.judgment),
        len(np.unique(counted.comparison)),
        len(units.comparison),
        _alpha(units, "nominal"),
        _alpha(units, "ordinal"),
        proportion(int(alike.sum()), int(several.sum())),
        left_share(*map(int, _sides(counted).sum(axis=0))),
        _annotator_rows(known, rankings, counted, gold_ranks, excluded),
    )


def items(store: Database, limit: int = 20, *, include_simulated: bool = False) -> list[ComparisonAgreement]:
    """Comparisons with at least two annotators, lowest agreement first; of equal ones those with more annotators, then the newest."""
    with store.snapshot():
        counted = latest_votes(ranking_table.read(store, kinds=kinds_of(include_simulated)))
        units = units_of(counted)
        if not len(units.comparison):
            return []
        same, annotator_pairs = _annotator_pairs(units.counts)
        at, row = np.unique(units.comparison, return_inverse=True)
        share = np.bincount(row, same) / np.bincount(row, annotator_pairs)
        judges = np.bincount(counted.comparison, minlength=len(counted.comparisons))[at]
        _, alike = _unanimity(counted)
        chosen = np.lexsort((-at, -judges, share))[:limit]
        ids = counted.comparisons[at[chosen]].tolist()
        prompt_of = {comparison.id: comparison.prompt.text for comparison in comparisons.many(store, ids)}
    return [
        ComparisonAgreement(comparison_id, prompt_of[comparison_id], int(judges[i]), float(share[i]), bool(alike[at[i]]))
        for comparison_id, i in zip(ids, chosen, strict=True)
    ]


def latest_votes(rankings: Rankings) -> Rankings:
    """The votes that count; where an import has several of one annotator on one comparison, only the latest."""
    cast = rankings.where(rankings.purpose == PURPOSES.index("vote"))
    # An annotator's rows on a comparison are in the order of their times, so the first of the reversed ones is the latest.
    _, last = np.unique(_judgment_key(cast)[::-1], return_index=True)
    return cast.where(np.sort(len(cast.judgment) - 1 - last))


def units_of(counted: Rankings) -> Units:
    """Each pair of completions that at least two annotators ranked, with their preferences."""
    tallies = [_tally(counted, i, j) for i, j in _pairs(counted)]
    shared = [(np.flatnonzero(several), counts[several]) for counts in tallies for several in [counts.sum(axis=1) > 1]]
    if not shared:
        return Units(np.empty(0, dtype=np.int64), np.empty((0, 3), dtype=np.int64))
    comparison, values = (np.concatenate(parts) for parts in zip(*shared, strict=True))
    # A comparison keeps its order if the sides of one of its votes are known.
    known = np.bincount(counted.comparison, counted.sides_known, minlength=len(counted.comparisons)) > 0
    unordered = ~known[comparison]
    turned = unordered & (values[:, 0] < values[:, 2])
    return Units(comparison, np.where(turned[:, None], values[:, ::-1], values), unordered)


def alpha_of(units: Units, distance: Distance) -> float:
    """Krippendorff's alpha of units with at least two values each, not all of them the same."""
    widest = int(units.counts.sum(axis=1).max())
    if widest * len(units.counts) > MAX_TABLE_CELLS or _some(units.unordered):
        return float(alpha_of_coincidences(_coincidences(units.counts, units.unordered).sum(axis=0), distance))
    # Alpha does not depend on which annotator gave which value: row r holds the r-th lowest value of each unit.
    upto = units.counts.cumsum(axis=1)
    table = np.full((widest, len(units.counts)), np.nan, dtype=np.float32)
    for r in range(widest):
        for value, top in reversed(list(zip(VALUES, upto.T, strict=True))):
            table[r, r < top] = value
    # Imported here, like scipy below: they take longer than the start of everything else on the pages.
    import evalica
    import pandas as pd

    return float(evalica.alpha(pd.DataFrame(table, copy=False), distance).alpha)


def alpha_of_coincidences(coincidences: Float[np.ndarray, "... 3 3"], distance: Distance) -> Float[np.ndarray, "..."]:
    """Alpha from matrices of coinciding values (Krippendorff 2011, section 3.D); NaN where there is no variation."""
    of_value = coincidences.sum(axis=-1)
    n = of_value.sum(axis=-1)
    midpoint = of_value.cumsum(axis=-1) - of_value / 2
    apart = (midpoint[..., :, None] - midpoint[..., None, :]) ** 2 if distance == "ordinal" else 1 - np.eye(3)
    observed = (coincidences * apart).sum(axis=(-2, -1))
    expected = (of_value[..., :, None] * of_value[..., None, :] * apart).sum(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        alpha: Float[np.ndarray, "..."] = np.where(expected > 0, 1 - (n - 1) * observed / expected, np.nan)
    return alpha


def proportion(count: int, of: int) -> Share:
    """A share of cases with Wilson's interval."""
    if of == 0:
        return Share(None, None, None, 0, 0)
    return Share(count / of, *wilson(count, of), count, of)


def left_share(left: int, n: int) -> LeftShare:
    """`left` of `n` preferences went to the completion shown left."""
    if n == 0:
        return LeftShare(None, None, None, 0, None)
    from scipy import stats

    test = stats.binomtest(left, n)
    interval = test.proportion_ci(CONFIDENCE, method="exact")
    return LeftShare(left / n, float(interval.low), float(interval.high), n, float(test.pvalue))


def kinds_of(include_simulated: bool) -> tuple[AnnotatorKind, ...]:
    return ("human", "simulated") if include_simulated else ("human",)


# ---- pairs and units


def _pairs(rankings: Rankings) -> Iterator[tuple[int, int]]:
    """Every pair of positions."""
    return combinations(range(rankings.ranks.shape[1]), 2)


def _preferences(ranks: Int8[np.ndarray, "n k"], i: int, j: int) -> tuple[Bool[np.ndarray, " n"], Int8[np.ndarray, " n"]]:
    """Which rows rank both positions, and the preference of each: -1 first better, 0 tie, 1 second better."""
    return (ranks[:, i] >= 0) & (ranks[:, j] >= 0), np.sign(ranks[:, i] - ranks[:, j])


def _tally(counted: Rankings, i: int, j: int) -> Int64[np.ndarray, "c 3"]:
    """By comparison, how many annotators gave each value to the pair."""
    both, preferences = _preferences(counted.ranks, i, j)
    cell = counted.comparison[both] * 3 + preferences[both] + 1
    return np.bincount(cell, minlength=3 * len(counted.comparisons)).reshape(-1, 3)


def _annotator_pairs(counts: Int64[np.ndarray, "u 3"]) -> tuple[Int64[np.ndarray, " u"], Int64[np.ndarray, " u"]]:
    """By unit: pairs of annotators with the same preference, and all pairs of annotators."""
    number = counts.sum(axis=1)
    return (counts * (counts - 1)).sum(axis=1) // 2, number * (number - 1) // 2


def _some(unordered: Bool[np.ndarray, " u"] | None) -> bool:
    return unordered is not None and bool(unordered.any())


def _coincidences(counts: Int64[np.ndarray, "u 3"], unordered: Bool[np.ndarray, " u"] | None = None) -> Float[np.ndarray, "u 3 3"]:
    """How often two values coincide in each unit. A pair without an order counts half in each of its two orders."""
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(3)
    coincidences: Float[np.ndarray, "u 3 3"] = pairs / (counts.sum(axis=1) - 1)[:, None, None]
    if unordered is None:
        return coincidences
    return np.where(unordered[:, None, None], (coincidences + coincidences[:, ::-1, ::-1]) / 2, coincidences)


def _alpha(units: Units, distance: Distance) -> Alpha:
    if not len(units.counts):
        return Alpha(None, reason="No pair has been judged by two annotators yet.")
    if np.count_nonzero(_coincidences(units.counts, units.unordered).sum(axis=(0, 1))) < 2:
        return Alpha(None, reason="All annotators had the same preference in every pair: without variation alpha is not defined.")
    value = alpha_of(units, distance)
    if len(np.unique(units.comparison)) < bootstrap.MIN_CLUSTERS:
        return Alpha(value, reason=f"Fewer than {bootstrap.MIN_CLUSTERS} comparisons: too few for an interval.")
    unordered = np.zeros(len(units.counts), dtype=bool) if units.unordered is None else units.unordered
    patterns, pattern = np.unique(np.column_stack([units.counts, unordered]), axis=0, return_inverse=True)
    sampled = bootstrap.totals(units.comparison, pattern, cells=len(patterns), replicates=REPLICATES, seed=SEED)
    coincidences = (sampled @ _coincidences(patterns[:, :3], patterns[:, 3] > 0).reshape(-1, 9)).reshape(-1, 3, 3)
    return Alpha(value, *bootstrap.interval(alpha_of_coincidences(coincidences, distance)))


def _unanimity(counted: Rankings) -> tuple[Bool[np.ndarray, " c"], Bool[np.ndarray, " c"]]:
    """Which comparisons have at least two annotators, and which of those were ranked alike by all."""
    number = len(counted.comparisons)
    example = np.zeros(number, dtype=np.int64)
    example[counted.comparison] = np.arange(len(counted.comparison))
    differs = (counted.ranks != counted.ranks[example[counted.comparison]]).any(axis=1)
    several = np.bincount(counted.comparison, minlength=number) > 1
    return several, several & (np.bincount(counted.comparison, differs, minlength=number) == 0)


def _sides(counted: Rankings) -> Int64[np.ndarray, "n 2"]:
    """By vote: whether the left completion won, and whether the vote prefers one of two that were shown."""
    ranks = counted.ranks[:, :2]
    decided = (counted.sizes[counted.comparison] == 2) & (counted.first_shown >= 0) & (ranks[:, 0] != ranks[:, 1])
    left = counted.first_shown == ranks.argmin(axis=1)
    return np.column_stack([decided & left, decided]).astype(np.int64)


# ---- per annotator


def _judgment_key(rankings: Rankings) -> Int64[np.ndarray, " n"]:
    """One number for each annotator on each comparison."""
    act: Int64[np.ndarray, " n"] = rankings.comparison * (int(rankings.annotator.max(initial=0)) + 1) + rankings.annotator
    return act


def _gold_ranks(store: Database, rankings: Rankings) -> Int8[np.ndarray, "c k"]:
    """The gold answers as ranks; -1 where there is none."""
    gold_ranks = np.full((len(rankings.comparisons), rankings.ranks.shape[1]), -1, dtype=np.int8)
    answers = gold.answers(store)
    for comparison in comparisons.many(store, list(answers)):
        row = np.searchsorted(rankings.comparisons, comparison.id)
        rank = {completion: rank for rank, tier in enumerate(answers[comparison.id]) for completion in tier}
        for position, completion in enumerate(comparison.completions):
            gold_ranks[row, position] = rank.get(completion.id, -1)
    return gold_ranks


def _annotator_rows(
    known: list[Annotator], rankings: Rankings, counted: Rankings, gold_ranks: Int8[np.ndarray, "c k"], excluded: dict[int, int]
) -> tuple[AnnotatorRow, ...]:
    top = max((a.id for a in known), default=0) + 1
    judged = np.bincount(counted.annotator, minlength=top)
    sides = _sides(counted)
    left, preferred = (np.bincount(counted.annotator, column, minlength=top).astype(int) for column in sides.T)
    agreed, units = _with_others(counted, top)
    right, known_pairs = _on_gold(rankings, gold_ranks, top)
    same, repeated = _on_repeats(rankings, top)
    median = _medians(counted)
    rows = [
        AnnotatorRow(
            a.id,
            a.name,
            a.kind,
            int(judged[a.id]),
            excluded.get(a.id, 0),
            median.get(a.id),
            proportion(int(right[a.id]), int(known_pairs[a.id])),
            proportion(int(same[a.id]), int(repeated[a.id])),
            left_share(int(left[a.id]), int(preferred[a.id])),
            float(agreed[a.id] / units[a.id]) if units[a.id] else None,
            int(units[a.id]),
        )
        for a in known
        if judged[a.id] or known_pairs[a.id] or repeated[a.id] or a.id in excluded
    ]
    return tuple(sorted(rows, key=lambda row: (-row.judgments, row.name)))


def _with_others(counted: Rankings, top: int) -> tuple[Float[np.ndarray, " a"], Float[np.ndarray, " a"]]:
    """By annotator: the summed shares of others with the same preference, and the number of units."""
    agreed, units = np.zeros(top), np.zeros(top)
    for row, share in votes_with_others(counted):
        agreed += np.bincount(counted.annotator[row], share, minlength=top)
        units += np.bincount(counted.annotator[row], minlength=top)
    return agreed, units


def votes_with_others(counted: Rankings) -> Iterator[tuple[Int64[np.ndarray, " m"], Float[np.ndarray, " m"]]]:
    """For each pair of positions: the votes on it that others share, as rows, and the shares of the others with the same preference."""
    for i, j in _pairs(counted):
        counts = _tally(counted, i, j)
        both, preferences = _preferences(counted.ranks, i, j)
        others = counts.sum(axis=1)[counted.comparison] - 1
        row = np.flatnonzero(both & (others > 0))
        same = counts[counted.comparison[row], preferences[row] + 1] - 1
        yield row, same / others[row]


def _on_gold(rankings: Rankings, gold_ranks: Int8[np.ndarray, "c k"], top: int) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " a"]]:
    """By annotator: ordered pairs of gold answers ranked in the same order, and those of which both were ranked."""
    answers = rankings.where(rankings.purpose == PURPOSES.index("gold"))
    return _alike(answers.ranks, gold_ranks[answers.comparison], answers.annotator, top, ordered=True)


def _on_repeats(rankings: Rankings, top: int) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " a"]]:
    """By annotator: pairs with the same preference in a repeat as in the first judgment on that comparison, and all pairs."""
    repeat = rankings.purpose == PURPOSES.index("repeat")
    again, before = rankings.where(repeat), rankings.where(~repeat)
    # Annotators are numbered alike in both, so that the acts are.
    width = int(rankings.annotator.max(initial=0)) + 1
    acts, first = np.unique(before.comparison * width + before.annotator, return_index=True)
    if not len(acts):
        return np.zeros(top, dtype=int), np.zeros(top, dtype=int)
    wanted = again.comparison * width + again.annotator
    at = np.minimum(np.searchsorted(acts, wanted), len(acts) - 1)
    has_first = acts[at] == wanted
    return _alike(again.ranks[has_first], before.ranks[first[at[has_first]]], again.annotator[has_first], top, ordered=False)


def _alike(
    ranks: Int8[np.ndarray, "n k"], model: Int8[np.ndarray, "n k"], annotator: Int64[np.ndarray, " n"], top: int, *, ordered: bool
) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " a"]]:
    """By annotator: pairs of which `ranks` say what `model` says, and pairs of which both say something.

    `ordered` leaves out the pairs that `model` ties.
    """
    same, number = np.zeros(top, dtype=int), np.zeros(top, dtype=int)
    for i, j in combinations(range(ranks.shape[1]), 2):
        (both, preferences), (both_there, wanted) = _preferences(ranks, i, j), _preferences(model, i, j)
        compared = both & both_there & ((wanted != 0) | (not ordered))
        number += np.bincount(annotator[compared], minlength=top)
        same += np.bincount(annotator[compared & (preferences == wanted)], minlength=top)
    return same, number


def _medians(counted: Rankings) -> dict[int, float]:
    """Median active seconds by annotator id, of the votes that were timed."""
    timed = ~np.isnan(counted.active_s)
    import pandas as pd

    medians = pd.Series(counted.active_s[timed]).groupby(counted.annotator[timed]).median()
    return {int(annotator_id): float(seconds) for annotator_id, seconds in medians.items()}
