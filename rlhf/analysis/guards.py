"""Guards: what a new policy version must pass before people are asked about it, from its held-out answers before and after training.

They catch a version that collapsed, by rule and without a vote: empty answers, answers without an end, one phrase everywhere, far from
the base, or worse under the very model that trained it. Whether a version is better is not theirs to say. No torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from rlhf.config import GuardsConfig
from rlhf.runs.results import Estimate, GuardCheck

NGRAM = 4
"""Tokens of a repetition."""

PHRASE_WORDS = 5
"""Words of a phrase; a shorter answer is a phrase as a whole."""

T = TypeVar("T")

_WORD = re.compile(r"\w+|[^\w\s]")


@runtime_checkable
class Answer(Protocol):
    """One answer to a held-out prompt, as `rlhf.evaluation.SampledCompletion` has it."""

    @property
    def prompt_id(self) -> int: ...
    @property
    def ids(self) -> list[int]: ...
    @property
    def text(self) -> str: ...
    @property
    def finish_reason(self) -> str: ...


def check(
    before: Sequence[Answer], after: Sequence[Answer], *, win_rate: Estimate | None, kl: float | None, config: GuardsConfig
) -> list[GuardCheck]:
    """Every guard that can be computed, passed or not. Without held-out answers there is none.

    Args:
        before: answers of the base.
        after: answers of the new version to the same prompts.
        win_rate: of the new version over the base, under the reward model.
        kl: of the new version to the base, in nats per answer.
    """
    checks = []
    if win_rate is not None:
        checks.append(GuardCheck("win_rate", win_rate.high, low=config.min_win_rate))
    if kl is not None:
        checks.append(GuardCheck("kl", kl, high=config.max_kl))
    if before and after:
        ratio = mean(len(a.ids) for a in after) / max(1.0, mean(len(a.ids) for a in before))
        checks += [
            GuardCheck("length_ratio", ratio, low=1 / config.max_length_ratio, high=config.max_length_ratio),
            GuardCheck("repetition", rise(repetition, before, after), high=config.max_repetition),
            GuardCheck("unended", rise(unended, before, after), high=config.max_unended),
            GuardCheck("empty", mean(not a.text.strip() for a in after), high=config.max_empty),
            GuardCheck("phrase", new_phrase(before, after), high=config.max_phrase),
        ]
    return checks


def rise(measure: Callable[[Answer], float], before: Sequence[Answer], after: Sequence[Answer]) -> float:
    """How much more the answers have of something on average than those before."""
    return mean(map(measure, after)) - mean(map(measure, before))


def unended(answer: Answer) -> float:
    """1 where an answer was cut at the limit of tokens, 0 where it came to an end."""
    return float(answer.finish_reason == "length")


def repetition(answer: Answer) -> float:
    """The share of an answer's runs of `NGRAM` tokens that stood in it before: 0 where none is repeated, near 1 in a loop."""
    grams = _grams(answer.ids, NGRAM)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def new_phrase(before: Sequence[Answer], after: Sequence[Answer]) -> float:
    """By how much the share of prompts that are answered with one phrase rose, for the phrase of which it rose most."""
    was, is_now = phrase_shares(before), phrase_shares(after)
    return max((share - was.get(phrase, 0.0) for phrase, share in is_now.items()), default=0.0)


def phrase_shares(answers: Sequence[Answer]) -> dict[tuple[str, ...], float]:
    """By phrase, the share of prompts with an answer that contains it. Empty answers have no phrase."""
    phrases: dict[int, set[tuple[str, ...]]] = {}
    for answer in answers:
        words = _WORD.findall(answer.text.lower())
        found = _grams(words, PHRASE_WORDS) or ([tuple(words)] if words else [])
        phrases.setdefault(answer.prompt_id, set()).update(found)
    counts = Counter(phrase for of_prompt in phrases.values() for phrase in of_prompt)
    # A phrase in one prompt's answers alone is no sign of anything, however few prompts there are.
    return {phrase: count / len(phrases) for phrase, count in counts.items() if count > 1}


def mean(values: Iterable[float]) -> float:
    numbers = [float(value) for value in values]
    return sum(numbers) / len(numbers)


def _grams(items: Sequence[T], size: int) -> list[tuple[T, ...]]:
    return [tuple(items[i : i + size]) for i in range(len(items) - size + 1)]
