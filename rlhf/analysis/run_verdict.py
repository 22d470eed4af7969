"""What a finished round showed, in a word: whether the policy improved, by which measure, and whether its reward model beats a coin.

The figures are those of `rlhf.runs.results`, and those of the blind comparisons, which count first. Nothing is measured here. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rlhf.runs.results import Estimate, RoundResult

CHANCE = 0.5

Improvement = Literal["better", "not_shown", "worse", "proxy", "unknown"]
"""`proxy`: only the reward model that the policy was trained by, or that learned from the same votes, says that it is better."""

Measure = Literal["people", "simulated", "rule", "reward_function", "reward_model"]

AgainstCoin = Literal["above", "coin", "below", "unknown"]

Tone = Literal["good", "warn", "bad", "muted"]

IMPROVEMENTS: Mapping[Improvement, str] = {
    "better": "Improved",
    "not_shown": "No improvement shown",
    "worse": "Worse than before",
    "proxy": "No improvement shown but by its own yardstick",
    "unknown": "Nothing has measured the policy",
}
MEASURES: Mapping[Measure, str] = {
    "people": "by people's blind votes",
    "simulated": "by simulated annotators' blind votes",
    "rule": "under the rule",
    "reward_function": "under the reward function",
    "reward_model": "under the reward model",
}
REWARD_MODELS: Mapping[AgainstCoin, str] = {
    "above": "the reward model is better than a coin",
    "coin": "the reward model cannot be told from a coin",
    "below": "the reward model is worse than a coin",
    "unknown": "no held-out pair has measured the reward model",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    improvement: Improvement
    measure: Measure | None
    win_rate: Estimate | None
    reward_model: AgainstCoin
    accuracy: Estimate | None
    """Held-out accuracy of the reward model, against the votes."""

    @property
    def tone(self) -> Tone:
        tones: dict[Improvement, Tone] = {"better": "good", "not_shown": "warn", "worse": "bad", "proxy": "warn", "unknown": "muted"}
        return tones[self.improvement]

    def in_words(self) -> str:
        """`No improvement shown: 46% (37 to 56%) under the rule; the reward model cannot be told from a coin: 52% (41 to 63%)`"""
        figure = f": {percent(self.win_rate)} {MEASURES[self.measure]}" if self.win_rate and self.measure else ""
        accuracy = f": {percent(self.accuracy)}" if self.accuracy else ""
        return f"{IMPROVEMENTS[self.improvement]}{figure}; {REWARD_MODELS[self.reward_model]}{accuracy}"


def of(result: RoundResult, votes: Mapping[str, Any] | None = None) -> Verdict:
    """The verdict on a finished round.

    Args:
        votes: the evidence of the blind comparisons with the policy that was current, with `win_rate`, `low`, `high` and `units`, if any;
            `judges` is `simulated` where no person judged.
    """
    measure, win_rate = _best_measure(result, votes or {})
    return Verdict(_improvement(measure, win_rate), measure, win_rate, against_coin(result.heldout_accuracy), result.heldout_accuracy)


def against_coin(accuracy: Estimate | None) -> AgainstCoin:
    """Whether an accuracy on pairs can be told from 50%, by its interval."""
    if accuracy is None:
        return "unknown"
    if accuracy.low > CHANCE:
        return "above"
    return "below" if accuracy.high < CHANCE else "coin"


def percent(figure: Estimate) -> str:
    """`46% (37 to 56%)`"""
    return f"{100 * figure.value:.0f}% ({100 * figure.low:.0f} to {100 * figure.high:.0f}%)"


def _best_measure(result: RoundResult, votes: Mapping[str, Any]) -> tuple[Measure | None, Estimate | None]:
    """The measure that depends least on what the policy was trained by."""
    found: dict[Measure, Estimate | None] = {
        "simulated" if votes.get("judges") == "simulated" else "people": estimate_of(votes),
        "rule": result.win_rate,
        "reward_function": result.win_rate_by_reward_function,
        "reward_model": result.win_rate_by_reward_model,
    }
    return next(((measure, figure) for measure, figure in found.items() if figure is not None), (None, None))


def estimate_of(evidence: Mapping[str, Any]) -> Estimate | None:
    """The figures of a decision's row, which may hold anything."""
    numbers = [evidence.get(name) for name in ("win_rate", "low", "high", "units")]
    known = [float(number) for number in numbers if isinstance(number, int | float)]
    if len(known) < len(numbers):
        return None
    value, low, high, cases = known
    return Estimate(value, low, high, int(cases))


def _improvement(measure: Measure | None, win_rate: Estimate | None) -> Improvement:
    if win_rate is None:
        return "unknown"
    if win_rate.low > CHANCE:
        return "proxy" if measure == "reward_model" else "better"
    return "worse" if win_rate.high < CHANCE else "not_shown"
