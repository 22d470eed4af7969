"""What votes prefer in the style of completions, and Bradley-Terry strengths with that taken out.

Length, headers, list items and bold passages of both completions are covariates beside the strengths of the two versions (as in the style
control of LMSYS's arena, 2024). A coefficient says how votes go between completions of equally strong versions, or of one and the
same version, that differ in style: it measures a preference and not its cause, for a longer answer may well say more. No torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int64
from scipy import sparse
from scipy.special import expit

from rlhf.analysis import agreement
from rlhf.analysis.bootstrap import MIN_CLUSTERS
from storage.analytics import rankings
from storage.core.database import Database

FENCED = re.compile(r"^(```|~~~).*?(^\1|\Z)", re.MULTILINE | re.DOTALL)
"""A block of code: its lines are no headers or lists."""
HEADER = re.compile(r"^ {0,3}#{1,6} ", re.MULTILINE)
LIST_ITEM = re.compile(r"^\s*(?:[-*+]|\d{1,9}[.)]) ", re.MULTILINE)
BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")

NAMES = ("length", "headers", "lists", "bold")

PRIOR_SD = 2.0
"""Standard deviation of the normal prior of each coefficient: keeps one finite that few votes, all alike, would make infinite."""

NORMAL_95 = 1.96
ITERATION_LIMIT = 100
TOLERANCE = 1e-9
MAX_STEP = 2.0
"""Largest change of a parameter in one step, in nats: Newton's steps from zero may overshoot."""


@dataclass(frozen=True, slots=True)
class StyleEffect:
    """How a difference in style moves votes."""

    name: str
    """`length`: one completion is twice as long as the other. `headers`, `lists`, `bold`: one has some and the other has none."""
    chance: float | None
    """Probability that a vote without a tie prefers the longer one, or the one that has some; None where no pair differs."""
    low: float | None
    high: float | None
    """Its 95% interval; None with too few prompts."""
    pairs: int
    """Pairs that differ in it."""


class StyledPairs(NamedTuple):
    """Pairs of completions with their votes: m rows; versions are numbered from 0."""

    first: Int64[np.ndarray, " m"]
    second: Int64[np.ndarray, " m"]
    score: Float[np.ndarray, " m"]
    """1 where the first won, 0 where the second did, .5 for a tie."""
    difference: Float[np.ndarray, "m 4"]
    """Of `NAMES`, first against second."""
    prompt: Int64[np.ndarray, " m"]
    weight: Float[np.ndarray, " m"]


class StyleFit(NamedTuple):
    """Strengths, on a log scale, and coefficients, with their covariance (over votes grouped by prompt) in that order."""

    strengths: Float[np.ndarray, " p"]
    effects: Float[np.ndarray, " 4"]
    covariance: Float[np.ndarray, "n n"]


def of_text(text: str) -> tuple[int, int, int, int]:
    """Characters, headers, list items and bold passages of a completion in Markdown; what stands in blocks of code is only characters."""
    prose = FENCED.sub("", text)
    headers, items, bold = (len(pattern.findall(prose)) for pattern in (HEADER, LIST_ITEM, BOLD))
    return len(text), headers, items, bold


def of_store(store: Database, comparison_ids: Int64[np.ndarray, " c"], positions: int) -> Float[np.ndarray, "c k 4"]:
    """The style of each judged completion by comparison and position; zeros where there is none."""
    styles = np.zeros((len(comparison_ids), positions, len(NAMES)))
    row_of = {int(comparison_id): row for row, comparison_id in enumerate(comparison_ids)}
    for comparison_id, position, text in rankings.judged_texts(store):
        styles[row_of[comparison_id], position] = of_text(text)
    return styles


def longer_share(store: Database, *, include_simulated: bool = False) -> agreement.Share:
    """Votes that prefer the longer of two answers of different length, of all that prefer one of such two: nothing else is taken out."""
    with store.snapshot():
        counted = agreement.latest_votes(rankings.read(store, kinds=agreement.kinds_of(include_simulated)))
        lengths = np.full((len(counted.comparisons), counted.ranks.shape[1]), -1)
        row_of = {int(comparison_id): row for row, comparison_id in enumerate(counted.comparisons)}
        for comparison_id, position, characters in rankings.judged_lengths(store):
            lengths[row_of[comparison_id], position] = characters
    first, second = lengths[counted.comparison, :2].T
    differ = (counted.sizes[counted.comparison] == 2) & (first != second) & (counted.ranks[:, 0] != counted.ranks[:, 1])
    longer = differ & ((first > second) == (counted.ranks[:, 0] < counted.ranks[:, 1]))
    return agreement.proportion(int(longer.sum()), int(differ.sum()))


def difference(first: Float[np.ndarray, "m 4"], second: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "m 4"]:
    """Of the lengths the binary logarithm of their ratio; of a count (a - b) / (a + b), 0 where both are 0."""
    length = np.log2(np.maximum(1, first[:, 0])) - np.log2(np.maximum(1, second[:, 0]))
    a, b = first[:, 1:], second[:, 1:]
    return np.column_stack([length, (a - b) / np.maximum(1, a + b)])


def fit(pairs: StyledPairs, fixed: Bool[np.ndarray, " p"], *, ties: bool) -> StyleFit:
    """Maximum likelihood of all strengths and coefficients together, by Newton's method.

    Args:
        fixed: versions whose strength is 0; one at least in each group of versions that were compared.
        ties: Davidson's model, with the probability of ties fitted too, as `leaderboard.strengths` with `newman`; otherwise a tie is half a
            win each way.
    """
    design = _design(pairs, fixed)
    number = design.shape[1]
    ridge = np.zeros(number)
    ridge[number - len(NAMES) :] = PRIOR_SD**-2
    parameters, log_nu = np.zeros(number), 0.0
    for _ in range(ITERATION_LIMIT):
        slope, curvature = _derivatives(design @ parameters, log_nu, pairs.score, ties=ties)
        slope, curvature = slope * pairs.weight[:, None], curvature * pairs.weight[:, None]
        gradient = np.append(design.T @ slope[:, 0] - ridge * parameters, slope[:, 1].sum())
        cross = design.T @ curvature[:, 1]
        information = np.block(
            [
                [(design.T @ sparse.diags_array(curvature[:, 0]) @ design).toarray() + np.diag(ridge), cross[:, None]],
                [cross[None], np.array([[curvature[:, 2].sum() if ties else 1.0]])],
            ]
        )
        step = np.clip(np.linalg.solve(information, gradient), -MAX_STEP, MAX_STEP)
        parameters, log_nu = parameters + step[:-1], log_nu + step[-1]
        if np.abs(step).max() < TOLERANCE:
            break
    by_prompt = _sums(np.column_stack([design.multiply(slope[:, :1]).toarray(), slope[:, 1:]]), pairs.prompt)
    bread = np.linalg.inv(information)
    clusters = len(by_prompt)
    votes = by_prompt.T @ by_prompt * clusters / max(1, clusters - 1)
    # The prior is one observation more: what votes cannot tell apart, as strength and length of a version that is always longer, is wide.
    covariance = (bread @ (votes + np.diag(np.append(ridge, 0.0))) @ bread)[:-1, :-1]
    return _with_fixed(parameters, covariance, fixed)


def effects(found: StyleFit, pairs: StyledPairs) -> tuple[StyleEffect, ...]:
    """The coefficients as probabilities."""
    several = len(np.unique(pairs.prompt)) >= MIN_CLUSTERS
    errors = NORMAL_95 * np.sqrt(np.diag(found.covariance)[-len(NAMES) :])
    differing = ((pairs.difference != 0) & (pairs.weight > 0)[:, None]).sum(axis=0)
    return tuple(
        StyleEffect(
            name,
            float(expit(value)) if number else None,
            float(expit(value - error)) if number and several else None,
            float(expit(value + error)) if number and several else None,
            int(number),
        )
        for name, value, error, number in zip(NAMES, found.effects, errors, differing, strict=True)
    )


def _design(pairs: StyledPairs, fixed: Bool[np.ndarray, " p"]) -> sparse.csr_array:
    """A row for each pair: +1 and -1 in the columns of its versions, then the differences in style. Fixed versions have no column."""
    rows = np.arange(len(pairs.first))
    signs = np.concatenate([np.ones(len(rows)), -np.ones(len(rows))])
    versions = sparse.csr_array((signs, (np.tile(rows, 2), np.concatenate([pairs.first, pairs.second]))), shape=(len(rows), len(fixed)))
    return sparse.hstack([versions[:, np.flatnonzero(~fixed)], sparse.csr_array(pairs.difference)], format="csr")


def _derivatives(
    u: Float[np.ndarray, " m"], log_nu: float, score: Float[np.ndarray, " m"], *, ties: bool
) -> tuple[Float[np.ndarray, "m 2"], Float[np.ndarray, "m 3"]]:
    """Derivatives of each pair's log-likelihood by the log-odds `u` of a win and `log_nu`; the second ones negated (uu, un, nn)."""
    if not ties:
        p, zero = expit(u), np.zeros(len(u))
        return np.column_stack([score - p, zero]), np.column_stack([p * (1 - p), zero, zero])
    # Davidson 1970, eq. 2.2: P(win), P(loss), P(tie) = softmax(u / 2, -u / 2, log nu).
    ways = np.column_stack([u / 2, -u / 2, np.full(len(u), log_nu)])
    ways = np.exp(ways - ways.max(axis=1, keepdims=True))
    win, loss, tie = (ways / ways.sum(axis=1, keepdims=True)).T
    lead = win - loss
    slope = np.column_stack([score - 0.5 - lead / 2, (score == 0.5) - tie])
    return slope, np.column_stack([(win + loss - lead**2) / 4, -lead * tie / 2, tie * (1 - tie)])


def _sums(values: Float[np.ndarray, "m n"], group: Int[np.ndarray, " m"]) -> Float[np.ndarray, "g n"]:
    _, row = np.unique(group, return_inverse=True)
    sums: Float[np.ndarray, "g n"] = sparse.csr_array((np.ones(len(row)), (row, np.arange(len(row))))) @ values
    return sums


def _with_fixed(parameters: Float[np.ndarray, " n"], covariance: Float[np.ndarray, "n n"], fixed: Bool[np.ndarray, " p"]) -> StyleFit:
    """Fixed strengths are 0 with variance 0."""
    free = np.concatenate([np.flatnonzero(~fixed), len(fixed) + np.arange(len(NAMES))])
    whole, spread = np.zeros(len(fixed) + len(NAMES)), np.zeros((len(fixed) + len(NAMES),) * 2)
    whole[free] = parameters
    spread[np.ix_(free, free)] = covariance
    return StyleFit(whole[: len(fixed)], whole[len(fixed) :], spread)
