"""The vocabulary of the whole project, as frozen dataclasses over the standard library alone.

Every other module speaks in these. Ids are integers that the store hands out, except a run's, which is a
readable string chosen before its row is written. Times are ISO 8601 strings in UTC.
"""

from __future__ import annotations

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

ACTIVE_STATUSES: tuple[RunStatus, ...] = ("queued", "running")
RESUMABLE_STATUSES: tuple[RunStatus, ...] = ("failed", "cancelled", "lost")

STRENGTHS: tuple[Strength, ...] = ("significantly", "better", "slightly", "negligibly")
FLAG_KINDS: tuple[FlagKind, ...] = ("unsafe", "personal_data", "wrong_language", "broken_prompt")
ROLES: tuple[Role, ...] = ("annotator", "lead", "researcher")

Tiers = tuple[tuple[int, ...], ...]
"""Completion ids, best tier first; ids that share a tier are tied: `((2,), (1, 4), (3,))`."""


class Message(TypedDict):
    """One turn of a conversation, as chat templates and the OpenAI protocol spell it."""

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
        """The last turn, which is what the completion answers."""
        return self.messages[-1]["content"]


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A base model, the adapter over it (if any) and the run that made it."""

    id: int
    name: str
    kind: PolicyKind
    base_model: str
    adapter_path: str | None
    run_id: str | None
    created_at: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn; kept beside every completion."""

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
    sampling: Sampling
    seed: int | None
    finish_reason: str
    latency_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two or more completions of one prompt, to be shown blind."""

    id: int
    prompt: Prompt
    completions: tuple[Completion, ...]
    purpose: str


@dataclass(frozen=True, slots=True)
class Presentation:
    """A comparison as one annotator saw it: slot i (A, B, ...) held `order[i]`, a completion id."""

    id: int
    comparison_id: int
    annotator_id: int
    order: tuple[int, ...]
    created_at: str
    purpose: Purpose = "vote"
    """A gold comparison has a known answer, a repeat was judged before by the same annotator; neither is a vote."""
    guidelines_id: int | None = None
    """The version of the guidelines on display; None before the first."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A comparison reserved for one annotator until it is judged or the time is over."""

    id: int
    presentation_id: int
    comparison_id: int
    annotator_id: int
    policy: str
    """What chose it: `oldest`, `gold`, `repeat`, or `undo` for what the annotator took back."""
    propensity: float
    """The probability with which it was chosen, given the state of the store."""
    created_at: str
    expires_at: str
    ended_at: str | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time went between the first sight of a comparison and the judgment, in milliseconds of the browser."""

    active_ms: int
    """With the page in sight and a hand or key moving in the last 30 s."""
    idle_ms: int
    """With the page hidden, or nothing moving for longer."""
    client_ms: int
    """From painted to sent."""


@dataclass(frozen=True, slots=True)
class Flag:
    """Something wrong with the prompt (`completion_id` None) or with one completion."""

    kind: FlagKind
    note: str = ""
    completion_id: int | None = None


@dataclass(frozen=True, slots=True)
class IdealAnswer:
    """What the annotator would rather have read; a demonstration for SFT."""

    text: str
    completion_id: int | None = None
    """The completion that the edit began from."""


@dataclass(frozen=True, slots=True)
class Details:
    """All that a judgment may say beside its tiers. What the project does not ask for stays empty."""

    strength: Strength | None = None
    """How much better, of two completions."""
    aspects: dict[int, dict[str, int]] = field(default_factory=dict)
    """Ratings by completion id, then by aspect."""
    rationale: str = ""
    ideal: IdealAnswer | None = None
    flags: tuple[Flag, ...] = ()
    timing: Timing | None = None


@dataclass(frozen=True, slots=True)
class Judgment:
    """One annotator's act on a comparison. Never changed: a later one may supersede it."""

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
    """Some completions were left out of the ranking: nothing is known of them."""
    rationale: str = ""
    counts: bool = False
    """Whether it is a vote that stands: a ranking, not superseded, not excluded, neither gold nor repeat."""


@dataclass(frozen=True, slots=True)
class Annotator:
    """Who judges. A simulated one judges by `rule`, and is never mixed silently with people."""

    id: int
    name: str
    kind: AnnotatorKind
    rule: str | None
    pseudonym: str = ""
    """The name in exports: random, and the same in all of them."""
    shows_name: bool = False
    """Whether the name may stand on the leaderboard."""
    judged: int = field(default=0, compare=False)
    """How many of the annotator's judgments stand, skips included."""


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """What a project asks of its annotators. Each change is kept as a version of its own."""

    overlap: int = 1
    """Judgments wanted for each comparison, 1 to 20."""
    lease_minutes: int = 15
    """Minutes for which a comparison is reserved for one annotator, from the last sign of life."""
    gold_share: float = 0.0
    """Share of what is shown that has a known answer, 0 to 0.5."""
    repeat_share: float = 0.0
    """Share of what is shown that was judged before by the same annotator, sides swapped, 0 to 0.5."""
    strength: bool = True
    """Ask how much better, of two answers."""
    aspects: tuple[str, ...] = ()
    """Names of the aspects to rate each answer on."""
    aspect_scale: int = 5
    """Highest rating of an aspect; the lowest is 1."""
    rationale: Literal["off", "optional", "required"] = "off"
    """Whether a reason is asked for in words."""
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


@dataclass(frozen=True, slots=True)
class Guidelines:
    """One version of what annotators are told, in Markdown."""

    id: int
    text: str
    by_id: int | None
    created_at: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Comparisons that a lead asked for; the policy server writes them."""

    id: int
    policy_ids: tuple[int, ...]
    answers: int
    """Completions in each comparison, 2 to 9."""
    sampling: Sampling
    asked: int
    made: int
    priority: int
    by_id: int | None
    created_at: str
    cancelled_at: str | None


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Why some judgments do not count: a rule and a reason, by somebody, until it is lifted."""

    id: int
    rule: str
    reason: str
    by_id: int | None
    created_at: str
    judgments: int
    """How many judgments it names."""
    lifted_at: str | None = None


@dataclass(frozen=True, slots=True)
class PastJudgment:
    """A standing judgment with all it was about, as its annotator finds it again."""

    judgment: Judgment
    details: Details
    comparison: Comparison
    order: tuple[int, ...]
    """Completion ids as they were shown."""
    exclusion: Exclusion | None


@dataclass(frozen=True, slots=True)
class JudgedComparison:
    """A judgment that stands, beside everything it was about: what training and exports read."""

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
    """How far the reward model can be trusted, as `rlhf.analysis.validation` found it before the policy learned from it."""
    problem: str = ""
    """What of the row cannot be read, as a sentence; there the fields are empty, and nothing may be done with the run."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of one run at one step, under the name the field uses for it."""

    name: str
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class RunSample:
    """A fixed held-out prompt answered before and after training."""

    prompt: str
    before: str
    after: str | None
    score_before: float | None
    score_after: float | None
