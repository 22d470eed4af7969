"""The vocabulary of the whole project, as frozen dataclasses over the standard library alone.

Every other module speaks in these. Ids are integers that the store hands out, except a run's, which is a
readable string chosen before its row is written. Times are ISO 8601 strings in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypedDict

Split = Literal["train", "heldout"]
AnnotatorKind = Literal["human", "simulated"]
PolicyKind = Literal["base", "tuned", "external"]
Verdict = Literal["rank", "skip", "retract"]
RunStatus = Literal["queued", "running", "done", "failed", "cancelled", "lost"]

ACTIVE_STATUSES: tuple[RunStatus, ...] = ("queued", "running")
RESUMABLE_STATUSES: tuple[RunStatus, ...] = ("failed", "cancelled", "lost")

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


@dataclass(frozen=True, slots=True)
class Annotator:
    """Who judges. A simulated one judges by `rule`, and is never mixed silently with people."""

    id: int
    name: str
    kind: AnnotatorKind
    rule: str | None


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
    config: dict
    seed: int
    versions: dict
    snapshot: dict | None
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
    result: dict | None


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
