"""The results of a round, stored as JSON in its row and shown by the command line and the Training page.

They are measured by `rlhf.evaluation` and `rlhf.ppo`. The reward model's cross-validation, which is stored before the policy is
trained, is in `rlhf.analysis.validation`. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    """The checkpoint that checkpoint selection chose as the round's policy."""

    step: int
    steps: int
    """Number of steps that PPO took."""
    conservative_score: float
    """Mean minus standard deviation over the reward ensemble, mean over completions."""
    kl: float
    """KL to the reference, in nats per completion."""


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
    policy_win_rate: Estimate | None = None
    """Win rate of the policy over these answers, under the rule."""


@dataclass(frozen=True, slots=True)
class LengthReport:
    """Data that exceeded `max_length` tokens: truncated answers, and items left out because the prompt alone is too long."""

    max_length: int | None = None
    """Maximum tokens of prompt and answer together; None where neither the options nor the model set a limit."""
    cut_answers: int = 0
    judgments: list[int] = field(default_factory=list)
    """Ids of the judgments whose pairs were left out."""
    demonstrations: int = 0
    prompts: list[int] = field(default_factory=list)
    """Ids of the prompts that were left out."""

    def __bool__(self) -> bool:
        return bool(self.cut_answers or self.judgments or self.demonstrations or self.prompts)

    def in_words(self) -> str:
        """`2 answers cut, pairs of 1 judgment (17) and 1 prompt (4) left out`."""
        parts = [f"{self.cut_answers} answers cut at their end"] if self.cut_answers else []
        if self.judgments:
            parts.append(f"pairs of {len(self.judgments)} judgments left out ({first_ids(self.judgments)})")
        if self.demonstrations:
            parts.append(f"{self.demonstrations} ideal answers left out")
        if self.prompts:
            parts.append(f"{len(self.prompts)} prompts left out ({first_ids(self.prompts)})")
        return f"over {self.max_length} tokens: {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class TemplateReport:
    """Data that the model's chat template does not support: items that were left out, and system messages without a system role."""

    reasons: list[str] = field(default_factory=list)
    """The template's error messages, each once."""
    folded: int = 0
    """Prompts whose system message was put before the first user turn."""
    judgments: list[int] = field(default_factory=list)
    """Ids of the judgments whose pairs were left out."""
    demonstrations: int = 0
    prompts: list[int] = field(default_factory=list)
    """Ids of the prompts that were left out."""

    def __bool__(self) -> bool:
        return bool(self.folded or self.judgments or self.demonstrations or self.prompts)

    def in_words(self) -> str:
        """`pairs of 1 judgments left out (17), 2 prompts left out (4, 9): System role not supported`."""
        parts = [f"system messages of {self.folded} prompts put before the user's turn"] if self.folded else []
        if self.judgments:
            parts.append(f"pairs of {len(self.judgments)} judgments left out ({first_ids(self.judgments)})")
        if self.demonstrations:
            parts.append(f"{self.demonstrations} ideal answers left out")
        if self.prompts:
            parts.append(f"{len(self.prompts)} prompts left out ({first_ids(self.prompts)})")
        return ", ".join(parts) + (f": {'; '.join(self.reasons)}" if self.reasons else "")


MAX_SHOWN_IDS = 10
"""Maximum number of ids in a message."""


def first_ids(ids: Sequence[int]) -> str:
    """`3, 5, 8`: the first `MAX_SHOWN_IDS` ids, with `...` if there are more."""
    return ", ".join(map(str, ids[:MAX_SHOWN_IDS])) + (", ..." if len(ids) > MAX_SHOWN_IDS else "")


@dataclass(frozen=True, slots=True)
class GuardCheck:
    """One figure of the new version's held-out answers, and the bounds within which people are asked about it."""

    name: str
    """`win_rate`, `kl`, `length_ratio`, `repetition`, `unended`, `empty` or `phrase`: `rlhf.analysis.guards`."""
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def passed(self) -> bool:
        return (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)

    def in_words(self) -> str:
        """`empty answers 38% (at most 10%)`"""
        title, show = GUARDS.get(self.name, (self.name, "{:.2f}"))
        bounds = [f"{word} {show.format(bound)}" for word, bound in (("at least", self.low), ("at most", self.high)) if bound is not None]
        return f"{title} {show.format(self.value)} ({', '.join(bounds)})"


GUARDS = {
    "win_rate": ("upper end of the win rate under the reward model", "{:.0%}"),
    "kl": ("KL to the base", "{:.1f} nats"),
    "length_ratio": ("length beside the base's", "{:.2f}"),
    "repetition": ("rise of repeated text", "{:.0%}"),
    "unended": ("rise of answers without an end", "{:.0%}"),
    "empty": ("empty answers", "{:.0%}"),
    "phrase": ("rise of one phrase", "{:.0%}"),
}
"""By guard, its title and how its value is written."""


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
    """Win rate of the policy over the base, under the rule."""
    win_rate_by_reward_model: Estimate | None = None
    """Under the learned reward model, or the weighted sum with the model from elsewhere that scored in training."""
    win_rate_by_reward_function: Estimate | None = None
    kl: float | None = None
    """KL of the policy to the base, in nats per completion."""
    started_from: str | None = None
    """Name of the policy version with which training began and to which its KL was held; None for the base."""
    kl_to_start: float | None = None
    """KL of the policy to that version, in nats per completion."""
    best_of_n: BestOfN | None = None
    stopped_by_kl: KLStop | None = None
    best_checkpoint: BestCheckpoint | None = None
    stopped_at_chance: bool | None = None
    """Whether the round stopped before its policy was trained, because its reward model could not be told from a coin; None otherwise."""
    lengths: LengthReport | None = None
    template: TemplateReport | None = None
    """None where the template supports all of the data."""
    guards: list[GuardCheck] | None = None
    """What the new version had to pass before people are asked about it; None in rounds of older versions."""
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
