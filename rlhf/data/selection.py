"""Which comparison to ask next, of candidates whose features are known: at random, by disagreement, or by expected information.

For the linear reward model (`rlhf.reward.probe`): a candidate is the difference of two completions' features on the probe's standardised
scale. Pairs of several samples of one prompt are candidates too, so that choosing which two of four to show is the same act. Comparisons
chosen one after another are diverse: each prompt has its turn before another's second, and information counts what is chosen already.

A share of the choices is always random, and each comes with the probability that it had: figures that must not depend on the
choice weigh by its inverse. Nothing is fitted or stored here. No torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

Rule = Literal["random", "disagreement", "information"]

MIN_RANDOM_SHARE = 0.05
"""Least share of random choices: the inverse of a propensity must stay bounded."""


class Choice(NamedTuple):
    candidate: int
    """Its row."""
    propensity: float
    """Probability of this choice at its turn, given the choices before it."""


class Knowledge(NamedTuple):
    """What the votes so far say about the reward."""

    heads: Float[np.ndarray, "m d"]
    """Weights of the probe, or of each member of an ensemble. Disagreement needs two at least."""
    information: Float[np.ndarray, "d d"]
    """Curvature of the probe's objective at its minimum: see `information_of`."""


def information_of(asked: Float[np.ndarray, "n d"], head: Float[np.ndarray, " d"], *, l2: float) -> Float[np.ndarray, "d d"]:
    """Fisher information of the votes on `asked`, and the curvature of the penalty, of n times the probe's objective.

    The votes' part is the sum of p (1 - p) x x^T over differences x (last-layer Fisher information, arXiv 2502.04354).
    """
    certainty = expit(asked @ head)
    curvature: Float[np.ndarray, "d d"] = (asked * (certainty * (1 - certainty))[:, None]).T @ asked
    return curvature + 2 * max(1, len(asked)) * l2 * np.eye(asked.shape[1])


def choose(
    difference: Float[np.ndarray, "n d"],
    prompt: Int[np.ndarray, " n"],
    count: int,
    rng: np.random.Generator,
    *,
    rule: Rule,
    knowledge: Knowledge | None,
    random_share: float = 0.2,
) -> list[Choice]:
    """Up to `count` candidates, in the order in which to ask them.

    Args:
        difference: features of a candidate's one completion minus the other's; its sign has no meaning.
        prompt: candidates of one prompt have one number.
        knowledge: None before there is a probe: then every choice is random.

    Raises:
        ValueError: the random share is too small, or disagreement has one head.
    """
    if not MIN_RANDOM_SHARE <= random_share <= 1:
        raise ValueError(f"random_share {random_share}: must be from {MIN_RANDOM_SHARE} to 1, so that every candidate can be chosen")
    if rule == "disagreement" and knowledge is not None and len(knowledge.heads) < 2:
        raise ValueError("disagreement of 1 head: give the heads of an ensemble, or choose by information")
    share = 1.0 if knowledge is None or rule == "random" else random_share
    scores: _Scores = _Random(len(difference)) if knowledge is None or rule == "random" else SCORES[rule](difference, knowledge)
    free, turn = np.ones(len(difference), dtype=bool), np.zeros(len(difference), dtype=int)
    choices: list[Choice] = []
    while len(choices) < count and free.any():
        # Prompts of which the fewest candidates were chosen.
        now = free & (turn == turn[free].min())
        best = int(np.argmax(np.where(now, scores.values, -np.inf)))
        candidate = int(rng.choice(np.flatnonzero(now))) if rng.random() < share else best
        choices.append(Choice(candidate, share / int(now.sum()) + (1 - share) * (candidate == best)))
        free[candidate] = False
        turn[prompt == prompt[candidate]] += 1
        scores.chosen(candidate)
    return choices


class _Scores(Protocol):
    @property
    def values(self) -> Float[np.ndarray, " n"]:
        """How much each candidate is wanted."""

    def chosen(self, candidate: int) -> None:
        """Takes note of a choice."""


class _Random:
    def __init__(self, number: int):
        self.values: Float[np.ndarray, " n"] = np.zeros(number)

    def chosen(self, candidate: int) -> None:
        pass


class _Disagreement:
    """Standard deviation of the heads' margins."""

    def __init__(self, difference: Float[np.ndarray, "n d"], knowledge: Knowledge):
        self.values: Float[np.ndarray, " n"] = (difference @ knowledge.heads.T).std(axis=1)

    def chosen(self, candidate: int) -> None:
        pass


class _Information:
    """How much a vote adds to the log-determinant of the information (D-optimal): log(1 + p (1 - p) x^T A^-1 x).

    A is updated with each choice (Sherman and Morrison 1950), so that of near duplicates one is asked.
    """

    def __init__(self, difference: Float[np.ndarray, "n d"], knowledge: Knowledge):
        self.difference = difference
        certainty = expit(difference @ knowledge.heads.mean(axis=0))
        self.certainty: Float[np.ndarray, " n"] = certainty * (1 - certainty)
        self.inverse = np.linalg.inv(knowledge.information)
        self.spread: Float[np.ndarray, " n"] = np.einsum("nd,nd->n", difference @ self.inverse, difference)

    @property
    def values(self) -> Float[np.ndarray, " n"]:
        gains: Float[np.ndarray, " n"] = np.log1p(self.certainty * self.spread)
        return gains

    def chosen(self, candidate: int) -> None:
        toward = self.inverse @ self.difference[candidate]
        scale = self.certainty[candidate] / (1 + self.certainty[candidate] * self.spread[candidate])
        self.spread = self.spread - scale * (self.difference @ toward) ** 2
        self.inverse = self.inverse - scale * np.outer(toward, toward)


SCORES: dict[str, Callable[[Float[np.ndarray, "n d"], Knowledge], _Scores]] = {"disagreement": _Disagreement, "information": _Information}
