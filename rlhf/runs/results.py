"""What a round ends with: the results that its row keeps as JSON, and that the command line and the Training page show.

Leaves out how they are measured (`rlhf.evaluation`, `rlhf.ppo`) and the reward model's cross-validation, which is written before
the policy is trained (`rlhf.analysis.validation`). No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhf.runs import typed_json
from storage.core.records import Run


@dataclass(frozen=True, slots=True)
class Estimate:
    """A fraction with its 95% interval and the number of cases behind it."""

    value: float
    low: float
    high: float
    cases: int


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Preference pairs that the reward model was fitted to, without ties, and held-out ones that it was measured on."""

    train: int
    heldout: int


@dataclass(frozen=True, slots=True)
class KLStop:
    """PPO ended early: the policy's KL to the reference exceeded its budget."""

    step: int
    kl: float
    """Nats per completion."""
    budget: float


@dataclass(frozen=True, slots=True)
class BestCheckpoint:
    """The policy that was kept, of those after each step of PPO."""

    step: int
    steps: int
    """Number of steps that PPO took."""
    conservative_score: float
    """Mean minus standard deviation over the reward ensemble, mean over completions."""
    kl: float
    """To the reference, in nats per completion."""


@dataclass(frozen=True, slots=True)
class PolicyOutcome:
    """How the training of the policy ended; None where the options ask for neither."""

    stopped_by_kl: KLStop | None = None
    best_checkpoint: BestCheckpoint | None = None


@dataclass(frozen=True, slots=True)
class BestOfN:
    """Best-of-n sampling from the base, with the n whose KL is nearest to the policy's."""

    n: int
    kl: float
    policy_kl: float
    max_n: int
    beyond_max_n: bool
    """Whether the policy's KL is more than that of the best of `max_n`."""
    win_rate: Estimate | None = None
    win_rate_by_reward_model: Estimate | None = None


@dataclass(frozen=True, slots=True)
class RoundResult:
    """The results of a round, measured on held-out prompts; None where nothing was measured."""

    pairs: PairCounts | None = None
    rule: str | None = None
    """Name of the label rule that all simulated annotators of the snapshot share."""
    heldout_accuracy: Estimate | None = None
    """How often the reward model prefers what the annotator preferred."""
    heldout_accuracy_on_rule: Estimate | None = None
    win_rate: Estimate | None = None
    """Of the policy over the base, under the rule."""
    win_rate_by_reward_model: Estimate | None = None
    win_rate_by_reward_function: Estimate | None = None
    kl: float | None = None
    """Of the policy to the base, in nats per completion."""
    best_of_n: BestOfN | None = None
    stopped_by_kl: KLStop | None = None
    best_checkpoint: BestCheckpoint | None = None
    policy_version: str | None = None
    minutes: float | None = None
    peak_memory_gib: float | None = None

    def to_json(self) -> dict[str, Any]:
        return typed_json.to_json(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RoundResult:
        """Raises UnreadableRecord."""
        return typed_json.from_json(cls, value)


def of_run(run: Run) -> RoundResult:
    """The run's results; empty before its end.

    Raises:
        UnreadableRecord: rankloop did not write them.
    """
    return RoundResult.from_json(run.result or {})


def of_run_or_empty(run: Run) -> RoundResult:
    """The run's results; empty before its end, and where they cannot be read. For tables of many runs."""
    try:
        return of_run(run)
    except typed_json.UnreadableRecord:
        return RoundResult()
