"""What writes the answers of comparisons: the policy server's own engine, outside models, or both by policy version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from storage.core.records import PolicyVersion, Prompt, Sampling


class PromptRefused(Exception):
    """A model cannot or will not answer one prompt; the message is the reason, in one sentence. Others can be asked."""


@dataclass(frozen=True, slots=True)
class GeneratedCompletion:
    """One answer as a completion source returns it."""

    text: str
    finish_reason: str
    latency_s: float
    seed: int | None = None
    """The seed of this answer, where it has its own; otherwise the batch's."""
    sampling: Mapping[str, float] | None = None
    """The sampling parameters that were used, where they are not those that were asked for: of an outside model."""
    reported: Mapping[str, Any] | None = None
    """What an outside server says that it used; None where the answer was generated here."""


class CompletionSource(Protocol):
    """Samples one answer for each (policy version, prompt), or gives the reason why a prompt has none."""

    def __call__(
        self,
        requests: Sequence[tuple[PolicyVersion, Prompt]],
        sampling: Sampling,
        seed: int,
        on_progress: Callable[[], None] = ...,
        /,
    ) -> Sequence[GeneratedCompletion | PromptRefused]: ...


def route_by_version(elsewhere: Mapping[int, CompletionSource], here: CompletionSource) -> CompletionSource:
    """A source that takes the answers of these policy versions, by id, from their own sources, and all others from `here`."""

    def generate(
        requests: Sequence[tuple[PolicyVersion, Prompt]], sampling: Sampling, seed: int, on_progress: Callable[[], None] = lambda: None
    ) -> list[GeneratedCompletion | PromptRefused]:
        indices_of: dict[int, list[int]] = {}
        for i, (policy, _) in enumerate(requests):
            indices_of.setdefault(policy.id if policy.id in elsewhere else 0, []).append(i)
        answers: dict[int, GeneratedCompletion | PromptRefused] = {}
        for policy_id, indices in indices_of.items():
            source = elsewhere.get(policy_id, here)
            # With one seed for all sources, two servers of one model, or of nearly the same, would write the same answers.
            own_seed = (seed + len(answers)) % 2**31
            answers |= zip(indices, source([requests[i] for i in indices], sampling, own_seed, on_progress), strict=True)
        return [answers[i] for i in range(len(requests))]

    return generate
