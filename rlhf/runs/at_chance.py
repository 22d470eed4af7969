"""What a round does whose reward model cannot be told from a coin: it asks, goes on, or stops, before the policy is trained. No torch.

A policy that learns from such scores learns noise. People may want it all the same, so nothing is forbidden.
"""

from __future__ import annotations

from rlhf.analysis import run_verdict
from rlhf.config import AtChance, RoundConfig
from rlhf.runs.progress import Cancelled
from rlhf.runs.results import Estimate
from storage.core.records import Round

LEARN_FROM_SCORES = ("ppo", "rloo", "grpo")
"""Methods whose policy learns from the reward model's scores."""

MACHINE_TRIGGERS = ("judgments", "schedule")
"""Triggers behind which nobody waits for the round."""


class StoppedAtChance(Cancelled):
    """The round stopped before its policy was trained. It can be resumed, and then goes on if a person says so."""

    def __init__(self, accuracy: Estimate, asks: bool):
        super().__init__(f"The round has stopped before its policy was trained: {in_words(accuracy)}.")
        self.accuracy, self.asks = accuracy, asks


def in_words(accuracy: Estimate) -> str:
    """`the reward model orders 52% (41 to 63%) of 80 held-out pairs as annotators did, which a coin would do too`"""
    as_coin = "which a coin would do too" if run_verdict.against_coin(accuracy) == "coin" else "which is worse than a coin"
    return f"the reward model orders {run_verdict.percent(accuracy)} of {accuracy.cases} held-out pairs as annotators did, {as_coin}"


def matters(config: RoundConfig) -> bool:
    """Whether the round's policy learns from the scores of its reward model alone."""
    return config.method in LEARN_FROM_SCORES and config.reward_function is None and not config.reward.model_path


def is_at_chance(accuracy: Estimate | None) -> bool:
    """Whether the held-out accuracy is known and does not beat a coin."""
    return run_verdict.against_coin(accuracy) in ("coin", "below")


def act(option: AtChance, found: Round | None) -> AtChance:
    """What the round does: the option, and where that is `auto`, what suits who started it.

    A page asks, a trigger behind which nobody waits stops, and the command line warns and goes on.
    """
    if option != "auto":
        return option
    if found is not None and found.trigger in MACHINE_TRIGGERS:
        return "stop"
    return "ask" if found is not None and found.by_id is not None else "continue"
