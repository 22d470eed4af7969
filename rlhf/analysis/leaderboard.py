"""Leaderboard of policy versions: Bradley-Terry with ties over the votes, with intervals and the win matrix.

evalica fits the scores; this module prepares the counts: pairs of completions by different versions, the groups of versions that
were compared, and bootstrap replicates over prompts. With the style of completions taken out, `style` fits them instead.
docs/research/statistics.md says what the numbers mean. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

from rlhf.analysis import bootstrap, style
from rlhf.analysis.agreement import latest_votes
from rlhf.analysis.style import StyledPairs, StyleEffect
from storage.analytics import rankings
from storage.analytics.rankings import Rankings
from storage.content import policies
from storage.core.database import Database
from storage.core.records import AnnotatorKind, PolicyKind, PolicyVersion

REPLICATES = 500
SEED = 0

MEAN_SCORE = 1000.0
POINTS_PER_NAT = 400 / np.log(10)
"""As in Elo: 400 points are odds of ten to one."""

MIN_TIE_SHARE = 0.01
"""Share of ties below which Newman's iteration oscillates if versions were compared only with a common one."""
ITERATION_LIMIT = 20_000
TOLERANCE = 1e-6

WIN, LOSS, TIE = 0, 1, 2

TieModel = Literal["newman", "bradley_terry"]


@dataclass(frozen=True, slots=True)
class ScoreEstimate:
    """An estimate with its 95% interval; `low` and `high` are None where there are too few prompts for one."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """One policy version that was compared with another."""

    policy_id: int
    name: str
    kind: PolicyKind
    group: int
    """Versions of one group were compared, directly or through others; scores of different groups cannot be compared."""
    rank: int
    """Within its group; 1 is the best."""
    score: ScoreEstimate
    """Elo scale: the reference of its group has 1000, and 400 points more are odds of ten to one."""
    over_base: ScoreEstimate | None
    """Probability that a vote without a tie prefers this version to the base; None for the base itself, and in a group without one."""
    votes: int
    """Votes that rank it with another version."""
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """The standings of all compared versions, and the counts that they are computed from."""

    include_simulated: bool
    judgments: int
    """Votes that rank two different versions."""
    pairs: int
    """Pairs of completions by different versions in those votes."""
    prompts: int
    method: TieModel
    references: tuple[str | None, ...]
    """By group: the base model, which has 1000; None in a group without one, whose mean is 1000."""
    smoothed: bool
    """A version won or lost all its pairs: half a win each way was added for every two compared versions, to keep scores finite."""
    standings: tuple[Standing, ...]
    """By group (the one with the most pairs first), then by rank."""
    shares: tuple[tuple[float | None, ...], ...]
    """Wins of row against column plus half their ties, as a share, in the order of the standings; None where they were not compared."""
    met: tuple[tuple[int, ...], ...]
    """Number of pairs of row and column."""
    style: tuple[StyleEffect, ...] | None = None
    """What votes prefer in the style of completions, which is taken out of the scores; None where it is left in."""

    @property
    def connected(self) -> bool:
        return len(self.references) < 2

    def to_dict(self) -> dict[str, Any]:
        """For `--json`: the metrics by policy name."""
        rows = [{key: value for key, value in asdict(standing).items() if key != "policy_id"} for standing in self.standings]
        return {
            "include_simulated": self.include_simulated,
            "judgments": self.judgments,
            "pairs": self.pairs,
            "prompts": self.prompts,
            "method": self.method,
            "smoothed": self.smoothed,
            "connected": self.connected,
            "style": None if self.style is None else [asdict(effect) for effect in self.style],
            "groups": [
                {"reference": reference, "policies": [s.name for s in self.standings if s.group == group]}
                for group, reference in enumerate(self.references)
            ],
            "policies": rows,
            "matrix": {"policies": [s.name for s in self.standings], "win_share": self.shares, "pairs": self.met},
        }


@dataclass(frozen=True, slots=True)
class PairOutcomes:
    """Pairs of completions by different versions, a row each: m of them. Versions are numbered 0 to p - 1."""

    prompt: Int64[np.ndarray, " m"]
    first: Int64[np.ndarray, " m"]
    second: Int64[np.ndarray, " m"]
    outcome: Int64[np.ndarray, " m"]
    """For the first: WIN, LOSS or TIE."""


def leaderboard(store: Database, *, include_simulated: bool = False, control_style: bool = False) -> Leaderboard:
    """The standings by the votes of people, or of all. A version that was compared with no other is left out.

    Args:
        control_style: takes out of the scores what votes prefer in length and markup. Reads all judged completions.
    """
    kinds: tuple[AnnotatorKind, ...] = ("human", "simulated") if include_simulated else ("human",)
    with store.snapshot():
        counted = latest_votes(rankings.read(store, kinds=kinds))
        version_ids, prompt_of = rankings.policy_versions(store), rankings.prompts(store)
        versions = {version.id: version for version in policies.all_versions(store)}
        styles = style.of_store(store, counted.comparisons, version_ids.shape[1]) if control_style else None
    known, version_of = np.unique(version_ids, return_inverse=True)
    version_of = version_of.reshape(version_ids.shape)
    outcomes, votes_of, judgments = _pair_outcomes(counted, version_of, prompt_of, len(known))
    counts = _counts(outcomes, len(known))
    order, references, group_of = _groups(counts, [versions.get(int(version_id)) for version_id in known])
    method: TieModel = "newman" if counts[..., TIE].sum() >= 2 * MIN_TIE_SHARE * len(outcomes.prompt) else "bradley_terry"
    scores, smoothed = _scores(counts, order, group_of, references, method)
    effects = None
    if styles is None:
        sampled = _bootstrap_scores(outcomes, counts, order, group_of, references, method)
        ends = list(map(_ends, sampled.T))
    else:
        styled = _styled_pairs(counted, version_of, prompt_of, styles)
        scores, ends, effects = _style_scores(styled, outcomes, counts, order, group_of, references, method)
    ranked = sorted(order, key=lambda i: (group_of[i], -scores[i], versions[int(known[i])].name))
    rank: dict[int, int] = {}
    for i in ranked:
        rank[i] = 1 + sum(group_of[i] == group_of[j] for j in rank)
    standings = tuple(
        _standing(
            versions[int(known[i])],
            counts[i],
            int(votes_of[i]),
            ScoreEstimate(float(scores[i]), *ends[i]),
            group_of[i],
            rank[i],
            references[group_of[i]] not in (None, i),
        )
        for i in ranked
    )
    met = counts.sum(axis=-1)[np.ix_(ranked, ranked)].astype(int)
    won = (counts[..., WIN] + counts[..., TIE] / 2)[np.ix_(ranked, ranked)]
    return Leaderboard(
        include_simulated,
        judgments,
        len(outcomes.prompt),
        len(np.unique(outcomes.prompt)),
        method,
        tuple(None if i is None else versions[int(known[i])].name for i in references),
        smoothed,
        standings,
        tuple(tuple(float(w / m) if m else None for w, m in zip(*row, strict=True)) for row in zip(won, met, strict=True)),
        tuple(tuple(row) for row in met.tolist()),
        effects,
    )


def strengths(counts: Float[np.ndarray, "p p 3"], method: TieModel) -> Float[np.ndarray, " p"]:
    """Bradley-Terry strengths, on a log scale with mean 0, of versions that are connected by wins (see `is_finite`).

    `newman` is Davidson's model of ties, `P(tie) / sqrt(P(win) P(loss))` the same for all, fitted by Newman's iteration;
    `bradley_terry` takes a tie for half a win each way. Without ties they agree, and only the second converges.
    """
    # Imported here, like scipy below: they take longer than the start of everything else on the pages.
    import evalica
    import pandas as pd

    first, second = np.triu_indices(len(counts), k=1)
    won, tied = counts[..., WIN], counts[..., TIE]
    weights = np.concatenate([won[first, second], won[second, first], tied[first, second]])
    happened = weights > 0
    winners = np.repeat([evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw], len(first))[happened]
    arguments: dict[str, Any] = {
        "index": pd.RangeIndex(len(counts)),
        "xs": np.tile(first, 3)[happened].tolist(),
        "ys": np.tile(second, 3)[happened].tolist(),
        "winners": winners.tolist(),
        "weights": weights[happened].tolist(),
        "limit": ITERATION_LIMIT,
        "tolerance": TOLERANCE,
    }
    fit: evalica.NewmanResult | evalica.BradleyTerryResult | None
    fit = evalica.newman(**arguments) if method == "newman" and tied.any() else None
    if fit is None or fit.iterations >= ITERATION_LIMIT:
        fit = evalica.bradley_terry(**arguments, tie_weight=0.5)
    logs: Float[np.ndarray, " p"] = np.empty(len(counts))
    logs[fit.scores.index] = np.log(fit.scores)
    logs -= logs.mean()
    return logs


def is_finite(counts: Float[np.ndarray, "p p 3"], method: TieModel) -> bool:
    """Whether strengths are finite: no set of versions has won every time against the rest (Ford 1957)."""
    beats = counts[..., WIN] + (counts[..., TIE] if method == "bradley_terry" else 0)
    above = (beats > 0) | np.eye(len(beats), dtype=bool)
    # Each squaring doubles the length of the paths that count.
    for _ in range(len(beats).bit_length()):
        above = above @ above
    return bool(above.all())


def smooth(counts: Float[np.ndarray, "p p 3"], met: Bool[np.ndarray, "p p"]) -> Float[np.ndarray, "p p 3"]:
    """Adds half a win each way for every two versions that were compared."""
    half = met[..., None] * np.array([0.5, 0.5, 0.0])
    smoothed: Float[np.ndarray, "p p 3"] = counts + half
    return smoothed


# ---- counts


def _pair_outcomes(
    counted: Rankings, version_of: Int64[np.ndarray, "c k"], prompt_of: Int64[np.ndarray, " c"], number: int
) -> tuple[PairOutcomes, Int[np.ndarray, " p"], int]:
    """The pairs by different versions; by version, the votes that rank it with another; and the number of such votes."""
    columns: list[tuple[np.ndarray, ...]] = []
    with_other = np.zeros(counted.ranks.shape, dtype=bool)
    repeats = np.zeros(counted.ranks.shape, dtype=bool)
    version = version_of[counted.comparison]
    for i, j in combinations(range(counted.ranks.shape[1]), 2):
        both = (counted.ranks[:, i] >= 0) & (counted.ranks[:, j] >= 0)
        differ = both & (version[:, i] != version[:, j])
        repeats[:, j] |= both & ~differ
        with_other[:, i] |= differ
        with_other[:, j] |= differ
        sign = np.sign(counted.ranks[differ, i].astype(np.int64) - counted.ranks[differ, j])
        outcome = np.select([sign < 0, sign > 0], [WIN, LOSS], TIE)
        columns.append((prompt_of[counted.comparison[differ]], version[differ, i], version[differ, j], outcome))
    votes_of = np.bincount(version[with_other & ~repeats], minlength=number)
    return (
        PairOutcomes(*(np.concatenate(parts) for parts in zip(*columns, strict=True))),
        votes_of,
        int(with_other.any(axis=1).sum()),
    )


def _cells(outcomes: PairOutcomes, number: int) -> Int64[np.ndarray, " m"]:
    cells: Int64[np.ndarray, " m"] = (outcomes.first * number + outcomes.second) * 3 + outcomes.outcome
    return cells


def _both_ways(flat: Float[np.ndarray, "... cells"], number: int) -> Float[np.ndarray, "... p p 3"]:
    """Totals by cell -> for each version against each other: wins, losses, ties."""
    one_way = flat.reshape(*flat.shape[:-1], number, number, 3)
    both_ways: Float[np.ndarray, "... p p 3"] = one_way + one_way.swapaxes(-3, -2)[..., [LOSS, WIN, TIE]]
    return both_ways


def _counts(outcomes: PairOutcomes, number: int) -> Float[np.ndarray, "p p 3"]:
    return _both_ways(np.bincount(_cells(outcomes, number), minlength=3 * number**2).astype(float), number)


def _groups(
    counts: Float[np.ndarray, "p p 3"], versions: list[PolicyVersion | None]
) -> tuple[list[int], tuple[int | None, ...], dict[int, int]]:
    """Versions that were compared with another; the reference of each group; and the group of each version."""
    pairs = counts.sum(axis=-1)
    compared = [int(i) for i in np.flatnonzero(pairs.sum(axis=1))]
    from scipy import sparse

    _, label = sparse.csgraph.connected_components(sparse.csr_array(pairs > 0), directed=False)
    groups = [[i for i in compared if label[i] == each] for each in dict.fromkeys(label[i] for i in compared)]
    groups.sort(key=lambda group: -pairs[group].sum())
    bases = [[i for i in group if (version := versions[i]) and version.kind == "base"] for group in groups]
    references = tuple(max(base, key=lambda i: pairs[i].sum(), default=None) for base in bases)
    return compared, references, {i: number for number, group in enumerate(groups) for i in group}


# ---- scores


def _of_groups(order: list[int], group_of: dict[int, int]) -> Iterator[tuple[int, list[int]]]:
    for group in sorted(set(group_of.values())):
        yield group, [i for i in order if group_of[i] == group]


def _scores(
    counts: Float[np.ndarray, "p p 3"], order: list[int], group_of: dict[int, int], references: tuple[int | None, ...], method: TieModel
) -> tuple[Float[np.ndarray, " p"], bool]:
    """Scores by version, NaN for one that was compared with no other; and whether any group had to be smoothed."""
    scores, smoothed = np.full(len(counts), np.nan), False
    for group, members in _of_groups(order, group_of):
        inside = np.ix_(members, members)
        finite = is_finite(counts[inside], method)
        smoothed |= not finite
        scores[members] = _on_scale(_fit(counts[inside], counts[inside].sum(axis=-1) > 0, method), members, references[group])
    return scores, smoothed


def _bootstrap_scores(
    outcomes: PairOutcomes,
    counts: Float[np.ndarray, "p p 3"],
    order: list[int],
    group_of: dict[int, int],
    references: tuple[int | None, ...],
    method: TieModel,
) -> Float[np.ndarray, "replicates p"]:
    """Scores in every bootstrap replicate; NaN where a group has too few prompts. Prompts are resampled within each group."""
    replicates = np.full((REPLICATES, len(counts)), np.nan)
    group_of_version = np.array([group_of.get(i, -1) for i in range(len(counts))])
    for group, members in _of_groups(order, group_of):
        row = group_of_version[outcomes.first] == group
        if len(np.unique(outcomes.prompt[row])) < bootstrap.MIN_CLUSTERS:
            continue
        here = PairOutcomes(
            outcomes.prompt[row],
            np.searchsorted(members, outcomes.first[row]),
            np.searchsorted(members, outcomes.second[row]),
            outcomes.outcome[row],
        )
        cells = 3 * len(members) ** 2
        sampled = bootstrap.totals(here.prompt, _cells(here, len(members)), cells=cells, replicates=REPLICATES, seed=SEED)
        met = counts[np.ix_(members, members)].sum(axis=-1) > 0
        # With few votes, many replicates are equal: each different one is fitted once.
        different, which = np.unique(sampled, axis=0, return_inverse=True)
        fitted = [_fit(replicate, met, method) for replicate in _both_ways(different, len(members))]
        replicates[:, members] = np.array([_on_scale(logs, members, references[group]) for logs in fitted])[which]
    return replicates


def _ends(sampled: Float[np.ndarray, " replicates"]) -> tuple[float | None, float | None]:
    return (None, None) if np.isnan(sampled).all() else bootstrap.interval(sampled)


def _styled_pairs(
    counted: Rankings, version_of: Int64[np.ndarray, "c k"], prompt_of: Int64[np.ndarray, " c"], styles: Float[np.ndarray, "c k 4"]
) -> StyledPairs:
    """All pairs that votes rank, also of one version: between equal strengths, votes differ by style alone."""
    columns: list[tuple[np.ndarray, ...]] = []
    for i, j in combinations(range(counted.ranks.shape[1]), 2):
        both = (counted.ranks[:, i] >= 0) & (counted.ranks[:, j] >= 0)
        at = counted.comparison[both]
        score = (1 + np.sign(counted.ranks[both, j].astype(np.int64) - counted.ranks[both, i])) / 2
        differ = style.difference(styles[at, i], styles[at, j])
        columns.append((version_of[at, i], version_of[at, j], score, differ, prompt_of[at], np.ones(len(at))))
    return StyledPairs(*(np.concatenate(parts) for parts in zip(*columns, strict=True)))


def _style_scores(
    styled: StyledPairs,
    outcomes: PairOutcomes,
    counts: Float[np.ndarray, "p p 3"],
    order: list[int],
    group_of: dict[int, int],
    references: tuple[int | None, ...],
    method: TieModel,
) -> tuple[Float[np.ndarray, " p"], list[tuple[float | None, float | None]], tuple[StyleEffect, ...]]:
    """Scores and their intervals by version, with style taken out, and the effects of style.

    The intervals are normal ones over votes grouped by prompt: a bootstrap would fit all pairs anew for each replicate.
    """
    fixed = np.ones(len(counts), dtype=bool)
    fixed[order] = False
    for group, members in _of_groups(order, group_of):
        reference = references[group]
        fixed[members[0] if reference is None else reference] = True
        if not is_finite(counts[np.ix_(members, members)], method):
            styled = _smooth_pairs(styled, members, counts)
    fitted = style.fit(styled, fixed, ties=method == "newman")
    scores = np.full(len(counts), np.nan)
    ends: list[tuple[float | None, float | None]] = [(None, None)] * len(counts)
    for group, members in _of_groups(order, group_of):
        # Without a base the mean of the group is 1000.
        centred = np.eye(len(members)) - (1 / len(members) if references[group] is None else 0.0)
        logs = centred @ fitted.strengths[members]
        scores[members] = MEAN_SCORE + POINTS_PER_NAT * logs
        errors = style.NORMAL_95 * POINTS_PER_NAT * np.sqrt(np.diag(centred @ fitted.covariance[np.ix_(members, members)] @ centred.T))
        here = np.isin(outcomes.first, members)
        if len(np.unique(outcomes.prompt[here])) >= bootstrap.MIN_CLUSTERS:
            for i, error in zip(members, errors, strict=True):
                ends[i] = (float(scores[i] - error), float(scores[i] + error))
    return scores, ends, style.effects(fitted, styled)


def _smooth_pairs(styled: StyledPairs, members: list[int], counts: Float[np.ndarray, "p p 3"]) -> StyledPairs:
    """As `smooth`: adds half a win each way for every two versions that were compared, alike in style and on a prompt of their own."""
    first, second = (column.repeat(2) for column in np.array([(i, j) for i, j in combinations(members, 2) if counts[i, j].any()]).T)
    number = len(first)
    added = StyledPairs(
        first, second, np.tile([1.0, 0.0], number // 2), np.zeros((number, len(style.NAMES))), np.full(number, -1), np.full(number, 0.5)
    )
    return StyledPairs(*(np.concatenate(parts) for parts in zip(styled, added, strict=True)))


def _fit(counts: Float[np.ndarray, "p p 3"], met: Bool[np.ndarray, "p p"], method: TieModel) -> Float[np.ndarray, " p"]:
    return strengths(counts if is_finite(counts, method) else smooth(counts, met), method)


def _on_scale(logs: Float[np.ndarray, " g"], members: list[int], reference: int | None) -> Float[np.ndarray, " g"]:
    origin = 0.0 if reference is None else logs[members.index(reference)]
    scores: Float[np.ndarray, " g"] = MEAN_SCORE + POINTS_PER_NAT * (logs - origin)
    return scores


def _standing(
    version: PolicyVersion,
    against: Float[np.ndarray, "p 3"],
    votes_of: int,
    score: ScoreEstimate,
    group: int,
    rank: int,
    has_base: bool,
) -> Standing:
    low, high = (None if end is None else chance(end) for end in (score.low, score.high))
    over = ScoreEstimate(chance(score.value), low, high) if has_base else None
    wins, losses, ties = against.sum(axis=0).astype(int)
    return Standing(version.id, version.name, version.kind, group, rank, score, over, votes_of, int(wins), int(ties), int(losses))


def chance(score: float) -> float:
    """Probability that a version with this score wins against one with 1000, ties aside."""
    return float(1 / (1 + 10 ** ((MEAN_SCORE - score) / 400)))
