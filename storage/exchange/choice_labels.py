"""Parses the labels of choice buttons that name the better answer: `Answer 1`, `left`, `B is slightly better`, `Tie`, `Both are bad`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from storage.core.records import Strength, Tiers
from storage.exchange.field_maps import Outcome

_FILLERS = frozenset(
    [
        "is",
        "are",
        "was",
        "the",
        "i",
        "prefer",
        "prefers",
        "preferred",
        "better",
        "best",
        "best:",
        "than",
        "answer",
        "chosen",
        "choose",
        "winner",
        "wins",
        "option",
        "a",
        "lot",
    ]
)
_STRENGTHS: dict[str, Strength] = {
    "much": "significantly", "significantly": "significantly", "far": "significantly", "strongly": "significantly", "clearly": "better",
    "slightly": "slightly", "somewhat": "slightly", "marginally": "negligibly", "negligibly": "negligibly",
}  # fmt: skip
_TIES = ("tie", "tied", "equal", "equally good", "same", "about same", "draw", "both", "both good", "no preference", "no difference",
         "about equal", "similar", "neutral", "neither better", "both equal", "both equally good", "equivalent")  # fmt: skip
_BOTH_BAD = ("both bad", "bothbad", "neither", "neither good", "none", "none good", "both equally bad", "equally bad", "both poor",
             "tie bothbad", "tie both bad", "all bad", "neither acceptable")  # fmt: skip
_SIDES = (("left", "right"), ("first", "second"), ("a", "b"), ("1", "2"))


class ParsedChoice(NamedTuple):
    """The outcome that a choice's label names, and its strength if it names one."""

    outcome: Outcome
    strength: Strength | None = None

    def tiers(self, number: int) -> Tiers:
        """The tiers of `number` completions."""
        everything = tuple(range(number))
        if not isinstance(self.outcome, int):
            return (everything,)
        return ((self.outcome,), tuple(index for index in everything if index != self.outcome))


def parse(text: str, names: Sequence[str]) -> ParsedChoice | None:
    """The outcome that a label names for the answers in the fields of these names; None if it names none.

    The name of a field comes first; then `left`, `A`, `1` and the like where there are two.
    """
    plain = [_plain(name) for name in names]
    words = re.sub(r"[\W_]+", " ", text.lower()).split()
    strength = next((_STRENGTHS[word] for word in words if word in _STRENGTHS), None)
    words = [word for word in words if word not in _STRENGTHS]
    # The name may itself hold a word that is left out otherwise: `answer 1`.
    for candidate in (
        words,
        [word for word in words if word not in _FILLERS or word == "a"],
        [word for word in words if word not in _FILLERS],
    ):
        phrase, joined_words = " ".join(candidate), "".join(candidate)
        if plain.count(joined_words) == 1:
            return ParsedChoice(plain.index(joined_words), strength)
        if len(names) == 2 and (pair := next((pair for pair in _SIDES if phrase in pair), None)):
            return ParsedChoice(pair.index(phrase), strength)
        if phrase in _BOTH_BAD:
            return ParsedChoice("both_bad")
        if phrase in _TIES:
            return ParsedChoice("tie")
    if len(names) == 2 and len(words) <= 8:
        return _by_side(words, strength)
    return None


def _by_side(words: Sequence[str], strength: Strength | None) -> ParsedChoice | None:
    # `A is better than B` names both: the first one named is meant, unless it is called worse.
    joined = " ".join(words)
    match = re.search(
        r"(?:^|\b(?:answer|response|text|completion|output|reply|summary|generation|model|option|assistant|side) ?)"
        r"(left|right|first|second|a|b|1|2)\b(?! lot)",
        joined,
    ) or re.search(r"\b(left|right|first|second)\b", joined)
    if match is None or re.search(r"\b(worse|worst|not|bad|neither|both)\b", joined):
        return None
    return next((ParsedChoice(pair.index(match[1]), strength) for pair in _SIDES if match[1] in pair), None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())
