"""Declared rules: simulated annotators judge by them, and a tuned policy can be evaluated under them.

A rule gives every answer a score; a higher score is better and equal scores tie. Rules are fixed functions; nothing is learned.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from storage.core.records import Tiers

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


class JudgeError(ValueError):
    """The rule is unknown, or needs a word list that was not given."""


@dataclass(frozen=True, slots=True)
class LabelRule:
    """A rule by name. `words` is the list that the `lexical` rule counts."""

    name: str
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise JudgeError(f"--judge {self.name}: choose one of {', '.join(RULES)}")
        if self.name == "lexical" and not self.words:
            raise JudgeError("--judge lexical needs --words, such as --words please,thanks")

    def score(self, answer: str) -> float:
        """The answer's score under the rule, in the rule's unit; higher is better."""
        return RULES[self.name](answer, self.words)

    def prefer(self, answers: Sequence[str]) -> list[list[int]]:
        """Tiers of indexes into `answers`, best first; equal scores share a tier."""
        scores = [self.score(a) for a in answers]
        return [[i for i, s in enumerate(scores) if s == level] for level in sorted(set(scores), reverse=True)]

    def to_json(self, flip: float) -> str:
        return json.dumps({"judge": self.name, "words": list(self.words), "flip": flip})

    @classmethod
    def from_json(cls, text: str) -> LabelRule:
        rule = json.loads(text)
        return cls(rule["judge"], tuple(rule["words"]))


def with_label_noise(tiers: Tiers, flip: float, rng: random.Random) -> Tiers:
    """The tiers, reversed with probability `flip`: label noise, in place of an annotator's mistakes."""
    return tuple(reversed(tiers)) if rng.random() < flip else tiers


@cache
def _polarity_scores() -> Callable[[str], Mapping[str, float]]:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    scores: Callable[[str], Mapping[str, float]] = SentimentIntensityAnalyzer().polarity_scores
    return scores


def sentiment(answer: str, words: Sequence[str]) -> float:
    """VADER's compound score, -1 (negative) to 1 (positive) (Hutto and Gilbert 2014)."""
    return _polarity_scores()(answer)["compound"]


def concise(answer: str, words: Sequence[str]) -> float:
    """Fewer words are better; an empty answer is worst."""
    return -float(len(WORD.findall(answer)) or 10**6)


def lexical(answer: str, words: Sequence[str]) -> float:
    """How many of the answer's words are on the list."""
    wanted = {w.lower() for w in words}
    return float(sum(w.lower() in wanted for w in WORD.findall(answer)))


RULES = {"sentiment": sentiment, "concise": concise, "lexical": lexical}
