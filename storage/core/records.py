"""The record types of the whole project, as frozen dataclasses that need only the standard library.

Ids are integers assigned by the store, except a run's id, which is a readable string chosen before its row is written.
Times are ISO 8601 strings in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

Split = Literal["train", "heldout"]
AnnotatorKind = Literal["human", "simulated"]
PolicyKind = Literal["base", "tuned", "external"]
Verdict = Literal["rank", "skip", "retract"]
Purpose = Literal["vote", "gold", "repeat"]
Strength = Literal["significantly", "better", "slightly", "negligibly"]
FlagKind = Literal["unsafe", "personal_data", "wrong_language", "broken_prompt"]
Role = Literal["annotator", "lead", "researcher"]
RunStatus = Literal["queued", "running", "done", "failed", "cancelled", "lost"]
RoundTrigger = Literal["hand", "judgments", "schedule", "loop"]
QueuedState = Literal["waiting", "started", "not started", "taken out"]
RoundJudges = Literal["people", "simulated"]
GuardsState = Literal["passed", "failed"]
DecisionAct = Literal["promoted", "rejected", "rolled back"]
DecidedBy = Literal["guards", "comparisons", "person"]

ACTIVE_STATUSES: tuple[RunStatus, ...] = ("queued", "running")
RESUMABLE_STATUSES: tuple[RunStatus, ...] = ("failed", "cancelled", "lost")

STRENGTHS: tuple[Strength, ...] = ("significantly", "better", "slightly", "negligibly")
FLAG_KINDS: tuple[FlagKind, ...] = ("unsafe", "personal_data", "wrong_language", "broken_prompt")
ACCOUNT_ROLES: tuple[Role, ...] = ("annotator", "lead", "researcher")

Tiers = tuple[tuple[int, ...], ...]
"""Completion ids, best tier first; ids that share a tier are tied: `((2,), (1, 4), (3,))`."""


class Message(TypedDict):
    """One turn of a conversation, in the format of chat templates and the OpenAI protocol."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation up to the assistant's turn."""

    id: int
    messages: tuple[Message, ...]
    kind: str
    split: Split

    @property
    def text(self) -> str:
        """The last turn, to which the completion replies."""
        return self.messages[-1]["content"]


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A base model, its adapter (if any) and the run that trained the adapter."""

    id: int
    name: str
    kind: PolicyKind
    base_model: str
    adapter_path: str | None
    run_id: str | None
    created_at: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of completions, stored with every completion."""

    temperature: float = 1.0
    """Divides the logits; 1 samples from the model's own distribution."""
    top_p: float = 1.0
    """Nucleus mass kept, as a fraction; 1 keeps every token."""
    top_k: int = 0
    """Number of likeliest tokens kept; 0 keeps every token."""
    max_new_tokens: int = 64
    """Longest completion, in tokens."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of one policy version to one prompt."""

    id: int
    prompt_id: int
    policy_version_id: int
    text: str
    sampling: Mapping[str, float] = field(hash=False)
    """The sampling parameters that were used. A missing one is unknown, because an external model does not take it."""
    seed: int | None
    finish_reason: str
    latency_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two or more completions of one prompt, shown without their policies."""

    id: int
    prompt: Prompt
    completions: tuple[Completion, ...]
    purpose: str


@dataclass(frozen=True, slots=True)
class Presentation:
    """A comparison as one annotator saw it: slot i (A, B, ...) showed the completion with id `order[i]`."""

    id: int
    comparison_id: int
    annotator_id: int
    order: tuple[int, ...]
    created_at: str
    purpose: Purpose = "vote"
    """A gold comparison has a known answer; a repeat was judged before by the same annotator. Neither counts as a vote."""
    guidelines_id: int | None = None
    """The version of the guidelines that was shown; None before the first version."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A reservation of a comparison for one annotator until it is judged or the lease expires."""

    id: int
    presentation_id: int
    comparison_id: int
    annotator_id: int
    selection: str
    """How the comparison was chosen: from the `queue`, as `gold`, as a `repeat`, or by an `undo`, after a retraction."""
    propensity: float
    """The probability of choosing this comparison, given the state of the store."""
    created_at: str
    expires_at: str
    ended_at: str | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Timing:
    """Time between showing a comparison and submitting the judgment, in milliseconds measured by the browser."""

    active_ms: int
    """Time with the page visible and input in the last 30 s."""
    idle_ms: int
    """Time with the page hidden, or without input for longer than 30 s."""
    client_ms: int
    """Time from painting the page to sending the judgment."""


@dataclass(frozen=True, slots=True)
class Flag:
    """A problem with the prompt (`completion_id` is None) or with one completion, reported by an annotator."""

    kind: FlagKind
    note: str = ""
    completion_id: int | None = None


@dataclass(frozen=True, slots=True)
class IdealAnswer:
    """A better answer written by the annotator; a demonstration for SFT."""

    text: str
    completion_id: int | None = None
    """The completion that the annotator edited; None if the answer was written from scratch."""


@dataclass(frozen=True, slots=True)
class Details:
    """The optional parts of a judgment besides its tiers. Parts that the project does not ask for are empty."""

    strength: Strength | None = None
    """How much better the preferred one of two completions is."""
    aspects: dict[int, dict[str, int]] = field(default_factory=dict)
    """Ratings by completion id, then by aspect."""
    rationale: str = ""
    ideal: IdealAnswer | None = None
    flags: tuple[Flag, ...] = ()
    timing: Timing | None = None


@dataclass(frozen=True, slots=True)
class Judgment:
    """One annotator's act on a comparison. Rows are never changed; a later judgment may supersede this one."""

    id: int
    comparison_id: int
    presentation_id: int | None
    annotator_id: int
    verdict: Verdict
    tiers: Tiers
    all_bad: bool
    skip_reason: str | None
    supersedes: int | None
    created_at: str
    purpose: Purpose = "vote"
    strength: Strength | None = None
    partial: bool = False
    """The ranking omits some completions and says nothing about them."""
    rationale: str = ""
    counts: bool = False
    """Whether it counts as a vote: a ranking that is not superseded, not excluded, and neither of a gold comparison nor of a repeat."""


@dataclass(frozen=True, slots=True)
class Annotator:
    """A person, or a simulated annotator, who judges by `rule`. Their judgments are always counted separately."""

    id: int
    name: str
    kind: AnnotatorKind
    rule: str | None
    pseudonym: str = ""
    """The random name used in all exports."""
    shows_name: bool = False
    """Whether the leaderboard may show the name."""
    judged: int = field(default=0, compare=False)
    """Number of the annotator's active judgments, skips included."""


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """The settings of annotation and of rounds. Each change is stored as a new version."""

    overlap: int = 1
    """Judgments wanted for each comparison, 1 to 20."""
    lease_minutes: int = 15
    """Minutes for which a comparison is reserved for one annotator, counted from their last activity."""
    gold_share: float = 0.0
    """Share of what is shown that has a known answer, 0 to 0.5."""
    repeat_share: float = 0.0
    """Share of what is shown that was judged before by the same annotator, sides swapped, 0 to 0.5."""
    strength: bool = True
    """Ask how much better the preferred one of two answers is."""
    aspects: tuple[str, ...] = ()
    """Names of the aspects to rate each answer on."""
    aspect_scale: int = 5
    """Highest rating of an aspect; the lowest is 1."""
    rationale: Literal["off", "optional", "required"] = "off"
    """Whether annotators are asked for a written reason."""
    rationale_min_chars: int = 20
    """Shortest rationale that is accepted where one is required, in characters."""
    ideal_answers: bool = False
    """Offer to write a better answer."""
    flags: bool = True
    """Offer to flag what is unsafe, personal, broken or in the wrong language."""
    show_system: bool = True
    """Show system prompts to annotators."""
    text_max_chars: int = 100_000
    """Longest prompt, answer or rationale that an import takes, in characters, 1,000 to 10,000,000."""
    fold_system: bool = True
    """Put a system message before the first user turn where a model's chat template has no system role; off sets such prompts aside."""
    starters: Literal["auto", "on", "off"] = "auto"
    """Whether the packaged starter prompts are in use; `auto` uses them while the store has no other prompts."""
    base_share: float = 0.1
    """Share of the current policy's new comparisons that set it beside the base, 0 to 0.9."""
    heldout_share: float = 0.15
    """Largest share of new comparisons on held-out prompts, 0.1 to 0.2, besides those that decide about a new policy version."""
    deciding_share: float = 0.5
    """Share of new comparisons that decide about a new policy version while there is one to decide about, 0 to 0.9; 0 asks for none."""
    deciding_annotators: int = 2
    """Fewest annotators whose comparisons may promote or reject a policy version without a person, 1 to 20."""
    deciding_error: float = 0.05
    """Probability at most of promoting a version that is no better, or rejecting one that is no worse, 0.001 to 0.2."""
    deciding_most: int = 200
    """Comparisons after which a version that was not promoted is rejected, 10 to 5,000."""
    four_strengths: bool = False
    """Ask for the strength in four steps for each answer instead of two: much better, better, slightly better, negligibly better."""
    daily_goal: int = 0
    """Judgments that each annotator should give on a day, 0 to 1,000; 0 sets no goal."""
    retrain_after_judgments: int = 0
    """New judgments after which a round begins by itself, at most 1,000,000; 0 begins none."""
    retrain_schedule: str = ""
    """When a round begins by itself: a cron expression in UTC of minute, hour, day of month, month and day of week; empty begins none."""
    retrain_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Options of the rounds that begin by themselves, by their names on the command line: `preset`, and those that differ from it."""
    target_judgments: int = 0
    """Judgments that people should make here in all, 0 to 10,000,000; 0 sets no target. Annotators see their daily goal alone."""
    target_date: str = ""
    """Day by which these judgments should be made, such as 2026-12-12; empty sets none."""


@dataclass(frozen=True, slots=True)
class Guidelines:
    """One version of the instructions for annotators, in Markdown."""

    id: int
    text: str
    by_id: int | None
    created_at: str


@dataclass(frozen=True, slots=True)
class PromptFilter:
    """Which prompts are meant. What is empty leaves none out."""

    text: str = ""
    """Contained in one of the turns, ignoring case."""
    kind: str | None = None
    split: Split | None = None
    import_id: int | None = None
    """The import that added the prompt; an edited prompt keeps that of the one it replaces."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A lead's request for comparisons; the policy server generates their completions."""

    id: int
    policy_ids: tuple[int, ...]
    completions: int
    """Completions in each comparison, 2 to 9."""
    sampling: Sampling
    requested: int
    """Number of comparisons to generate."""
    generated: int
    priority: int
    by_id: int | None
    created_at: str
    cancelled_at: str | None
    prompts: PromptFilter = PromptFilter()
    """The prompts that it takes, of those in use."""
    wanted: int | None = None
    """Judgments that each comparison needs; None takes the number from the settings."""
    annotator_ids: tuple[int, ...] = ()
    """The annotators who get its comparisons; nobody here means everybody."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A rule and a reason for which some judgments do not count, until the exclusion is lifted."""

    id: int
    rule: str
    reason: str
    by_id: int | None
    created_at: str
    judgments: int
    """Number of excluded judgments."""
    lifted_at: str | None = None
    annotator_ids: tuple[int, ...] = ()
    """Whose judgments they are."""


@dataclass(frozen=True, slots=True)
class PastJudgment:
    """An active judgment with its comparison and details, as the history page shows it."""

    judgment: Judgment
    details: Details
    comparison: Comparison
    order: tuple[int, ...]
    """Completion ids in the order shown."""
    exclusion: Exclusion | None
    presentation: Presentation | None = None
    """None if the judgment was imported without one; then `order` is that of the comparison."""


@dataclass(frozen=True, slots=True)
class JudgedComparison:
    """A judgment that counts as a vote, with its annotator, prompt and completions; used by training and exports."""

    judgment: Judgment
    annotator: Annotator
    prompt: Prompt
    completions: dict[int, Completion] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt of a training round. The row is written before its process starts."""

    id: str
    status: RunStatus
    config: dict[str, Any]
    seed: int
    versions: dict[str, Any]
    snapshot: dict[str, Any] | None
    stage: str | None
    progress: float
    """Fraction of the whole round that is done, 0 to 1."""
    eta_s: float | None
    cancel_requested: bool
    pid: int | None
    heartbeat_at: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    error: str | None
    result: dict[str, Any] | None
    validation: dict[str, Any] | None = None
    """The reward model's validation results of `rlhf.analysis.validation`, computed before the policy is trained."""
    job: dict[str, Any] | None = None
    """The job of a cluster that the worker is, `rlhf.runs.scheduler.Job`; None where it is a process of this machine."""
    problem: str = ""
    """Which part of the row cannot be read, as a sentence; the other fields are then empty and the run cannot be used."""
    name: str = ""
    """The name that a researcher gave it; empty without one."""
    note: str = ""
    """What a researcher wrote about it, in lines of plain text."""
    activity: str | None = None
    """What is done within the stage now, as a name; None where the stage says enough."""
    activity_done: int | None = None
    activity_count: int | None = None
    """How many things the activity does, of which `activity_done` are done; 0 where they are not counted."""


@dataclass(frozen=True, slots=True)
class QueuedRound:
    """A round that somebody or a trigger asked for. It begins when no other round trains."""

    id: int
    trigger: RoundTrigger
    judges: RoundJudges
    config: Mapping[str, Any] = field(hash=False)
    """Empty where `problem` says that it cannot be read."""
    by_id: int | None
    """The person who asked; None for the command line and the triggers."""
    created_at: str
    state: QueuedState
    run_id: str | None
    """The run that it became."""
    reason: str | None
    """Why it was not started."""
    ended_at: str | None
    """When it left the queue; None while it waits."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """One act by which a policy version became current, or leaves new comparisons. Rows are never changed."""

    id: int
    round_id: int | None
    version_id: int
    """The version that was promoted or rejected, or the one that a rollback went back to."""
    act: DecisionAct
    decided_by: DecidedBy
    by_id: int | None
    reason: str
    evidence: Mapping[str, Any] = field(hash=False)
    """The figures that decided: those of the guards, or of the sequential test; empty for a person's decision without any."""
    current_before_id: int
    """The policy version that was current until then."""
    created_at: str


@dataclass(frozen=True, slots=True)
class Round:
    """A run with its end: who judges its policy version, and what was decided about it."""

    id: int
    run_id: str
    trigger: RoundTrigger
    judges: RoundJudges
    """Whose comparisons decide: people's or simulated annotators', never both."""
    baseline_version_id: int | None
    """The policy that was current when the round began; None in rounds of older versions whose base is not known."""
    guards: GuardsState | None
    """None before the new version was measured, and in rounds of older versions."""
    by_id: int | None
    """The person who started its run; None for the command line and the program itself."""
    created_at: str
    status: RunStatus
    """That of its run."""
    version: PolicyVersion | None
    """The policy version that the round made; None before its end."""
    decision: Decision | None
    """The newest decision about the round; None while it is open."""

    @property
    def is_open(self) -> bool:
        """Whether comparisons are to decide about its version."""
        return self.status == "done" and self.guards == "passed" and self.version is not None and self.decision is None


@dataclass(frozen=True, slots=True)
class DecidingVote:
    """What one annotator said of a new version beside the current one: 1 better, 0.5 a tie, 0 worse."""

    annotator_id: int
    outcome: float


@dataclass(frozen=True, slots=True)
class DecidingUnit:
    """One comparison that helps to decide a round, with all the votes that it needs. Its votes are one unit of evidence."""

    comparison_id: int
    prompt_id: int
    votes: tuple[DecidingVote, ...]

    @property
    def value(self) -> float:
        """The mean of its votes, 0 to 1."""
        return sum(vote.outcome for vote in self.votes) / len(self.votes)


@dataclass(frozen=True, slots=True)
class Metric:
    """The value of one metric of a run at one step."""

    name: str
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class RunSample:
    """The completions of a fixed held-out prompt before and after training."""

    prompt: str
    before: str
    after: str | None
    score_before: float | None
    score_after: float | None
