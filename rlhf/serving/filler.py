"""Generates comparisons ahead of the annotators, so that nobody waits for a model.

Batches that a lead ordered are generated first; after them, the queue is filled up to `QUEUE_TARGET`. This module chooses the
prompt and the policy versions of each comparison. A `CompletionSource` samples the answers: the policy server's own engine, or
any OpenAI-compatible endpoint.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rlhf.serving.client import PolicyClient, PolicyServerDown
from storage.content import batches, comparisons, completions, policies, prompts
from storage.core.database import Database
from storage.core.records import Batch, PolicyVersion, Prompt, Sampling
from storage.judging import queue

log = logging.getLogger("rankloop.filler")

COLLECTING = Sampling(temperature=0.7, max_new_tokens=96)
"""Sampling of the answers that people judge: long enough for an answer with content, short enough to be read twice."""

QUEUE_TARGET = 24
"""Comparisons that wait to be judged, at least."""

LARGEST_BATCH = 8
"""Comparisons generated at once; small, so that the first are ready soon and the server stays responsive."""

ANSWERS_AT_ONCE = 2 * LARGEST_BATCH
"""Answers sampled at once: of comparisons with many answers, fewer are generated at once."""

MAX_RESAMPLES = 2
"""Times that a batch's empty or repeated answers are sampled again before its comparison is stored without them."""

PAUSE_S = 30.0
"""Pause of a batch that cannot go on, in seconds; the other batches go on meanwhile."""

NO_PROMPTS = "There are no prompts yet: import some."

NOT_WRITTEN = "The last answers could not be written ({kind}): the policy server's log, logs/policy-server.log, says why."
"""The error's own message may name policy versions, endpoints and ids, which annotators who judge blind must not see."""

Assignments = tuple[Prompt, *tuple[PolicyVersion, ...]]
"""A prompt and the policy version of each of its answers."""


@dataclass(frozen=True, slots=True)
class GeneratedCompletion:
    """One answer as a completion source returns it."""

    text: str
    finish_reason: str
    latency_s: float
    seed: int | None = None
    """The seed of this answer, where it has its own; otherwise the batch's."""


class CompletionSource(Protocol):
    """Samples one answer for each (policy version, prompt)."""

    def __call__(
        self,
        requests: Sequence[tuple[PolicyVersion, Prompt]],
        sampling: Sampling,
        seed: int,
        on_progress: Callable[[], None] = ...,
        /,
    ) -> list[GeneratedCompletion]: ...


class EndpointSource:
    """Answers from an OpenAI-compatible endpoint, one request each."""

    def __init__(self, client: PolicyClient, model: str):
        self.client, self.model = client, model

    def __call__(
        self,
        requests: Sequence[tuple[PolicyVersion, Prompt]],
        sampling: Sampling,
        seed: int,
        on_progress: Callable[[], None] = lambda: None,
    ) -> list[GeneratedCompletion]:
        answers = []
        for i, (_, prompt) in enumerate(requests):
            started = time.monotonic()
            reply = self.client.complete(
                self.model,
                prompt.messages,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                max_tokens=sampling.max_new_tokens,
                seed=seed + i,
            )
            answers.append(GeneratedCompletion(reply.text, reply.finish_reason, time.monotonic() - started, seed + i))
            on_progress()
        return answers


def route_by_collector(collector: PolicyVersion, elsewhere: CompletionSource, here: CompletionSource) -> CompletionSource:
    """A source that takes the collector's answers from `elsewhere` and those of all other versions from `here`."""

    def generate(
        requests: Sequence[tuple[PolicyVersion, Prompt]], sampling: Sampling, seed: int, on_progress: Callable[[], None] = lambda: None
    ) -> list[GeneratedCompletion]:
        answers: dict[int, GeneratedCompletion] = {}
        for source, of_collector in ((elsewhere, True), (here, False)):
            indices = [i for i, (policy, _) in enumerate(requests) if (policy.id == collector.id) is of_collector]
            if indices:
                answers |= zip(indices, source([requests[i] for i in indices], sampling, seed, on_progress), strict=True)
        return [answers[i] for i in range(len(requests))]

    return generate


def policies_for_pair(base: PolicyVersion, tuned: PolicyVersion | None, index: int) -> tuple[PolicyVersion, PolicyVersion]:
    """The two versions of the index-th comparison: the base twice, or once there is a tuned policy, it and in turn base or itself."""
    if tuned is None:
        return base, base
    return (tuned, base) if index % 2 == 0 else (tuned, tuned)


def round_robin(batch: Batch, versions: Sequence[PolicyVersion], index: int) -> list[PolicyVersion]:
    """The versions of the index-th comparison of a batch: the batch's versions in turn, continued from the comparison before."""
    return [versions[(index * batch.completions + i) % len(versions)] for i in range(batch.completions)]


def write_comparisons(
    store: Database,
    generate: CompletionSource,
    assignments: Sequence[Assignments],
    *,
    sampling: Sampling,
    seed: int,
    on_progress: Callable[[], None] = lambda: None,
    batch: Batch | None = None,
) -> list[Prompt]:
    """Samples the answers of each comparison and stores the comparisons with two or more. Returns the prompts of the others.

    An answer that is empty or repeats an earlier one cannot be judged: for a batch it is sampled again, up to `MAX_RESAMPLES`
    times; after that the comparison is stored without it. Answers for a batch that was cancelled meanwhile are discarded.
    """
    requests = [(policy, prompt) for prompt, *versions in assignments for policy in versions]
    answers = generate(requests, sampling, seed, on_progress)
    indices_of = _answer_indices(assignments)
    # Greedy answers are the same however often they are sampled.
    for attempt in range(1, MAX_RESAMPLES + 1 if batch and sampling.temperature > 0 else 1):
        unusable = [i for indices in indices_of for i in indices if i not in _distinct(answers, indices)]
        if not unusable:
            break
        resampled = generate([requests[i] for i in unusable], sampling, (seed + attempt) % 2**31, on_progress)
        answers = [*answers]
        for i, answer in zip(unusable, resampled, strict=True):
            answers[i] = answer
    dropped: list[Prompt] = []
    order = random.Random(seed)
    with store.atomic():
        if batch and batch.id not in {unfinished.id for unfinished in batches.unfinished(store)}:
            return dropped
        for (prompt, *versions), indices in zip(assignments, indices_of, strict=True):
            usable = _distinct(answers, indices)
            if len(usable) < comparisons.FEWEST:
                dropped.append(prompt)
                continue
            # If one version always came first, the first place and the lower id would tell which version it is.
            ids = [
                _store(store, requests[usable[n]], answers[usable[n]], sampling, seed)
                for n in comparisons.order_of_writing(len(usable), order)
            ]
            if batch:
                comparisons.add(store, prompt.id, ids, purpose="batch", priority=batch.priority, batch_id=batch.id)
            else:
                comparisons.add(store, prompt.id, ids, purpose="versus" if len({s.id for s in versions}) > 1 else "collect")
        if batch:
            batches.add_generated(store, batch.id, len(assignments) - len(dropped))
    return dropped


def _answer_indices(assignments: Sequence[Assignments]) -> list[range]:
    """The indices of each comparison's answers among all sampled answers."""
    indices, start = [], 0
    for _, *versions in assignments:
        indices.append(range(start, start + len(versions)))
        start += len(versions)
    return indices


def _distinct(answers: Sequence[GeneratedCompletion], indices: Iterable[int]) -> list[int]:
    """The indices of the answers that are not empty, of equal answers the first."""
    first: dict[str, int] = {}
    for i in indices:
        if text := answers[i].text.strip():
            first.setdefault(text, i)
    return list(first.values())


def _store(store: Database, request: tuple[PolicyVersion, Prompt], answer: GeneratedCompletion, sampling: Sampling, seed: int) -> int:
    policy, prompt = request
    return completions.add(
        store,
        prompt_id=prompt.id,
        policy_version_id=policy.id,
        text=answer.text,
        sampling=sampling,
        seed=seed if answer.seed is None else answer.seed,
        finish_reason=answer.finish_reason,
        latency_s=answer.latency_s,
    )


def least_used(store: Database, count: int, queue_positions: Mapping[int, int]) -> list[Prompt]:
    """The prompts with the fewest comparisons so far, in the order they were added.

    Args:
        queue_positions: by prompt id, the number of comparisons that it counts as having, at least; see `requeue_prompts`.
    """
    usage = comparisons.prompt_usage(store)
    every = prompts.of_split(store)
    ranked = sorted(every, key=lambda p: (max(usage.get(p.id, 0), queue_positions.get(p.id, 0)), p.id))
    return [ranked[i % len(ranked)] for i in range(count)] if ranked else []


def requeue_prompts(store: Database, queue_positions: dict[int, int], dropped: Sequence[Prompt]) -> None:
    """Moves prompts to the end of the queue: a prompt that always gets identical answers would stay first for good."""
    last = max([*comparisons.prompt_usage(store).values(), *queue_positions.values()], default=0)
    queue_positions.update({prompt.id: last + 1 for prompt in dropped})


def servable(_: PolicyVersion) -> str:
    """The refusal reason of a source that can answer as every version: none."""
    return ""


class ComparisonGenerator:
    """Generates batches and fills the queue in a thread of the policy server, until `stop`.

    Args:
        refusal_reason: why a policy version cannot answer here, as a sentence; empty where it can.
    """

    def __init__(
        self,
        store: Database,
        generate: CompletionSource,
        base_model: str,
        collector: PolicyVersion | None = None,
        *,
        refusal_reason: Callable[[PolicyVersion], str] = servable,
    ):
        self.store, self.generate, self.base_model, self.collector = store, generate, base_model, collector
        self.refusal_reason = refusal_reason
        self.seconds_per_comparison: float | None = None
        self.filling = False
        self.note = ""
        """Why nothing is generated, for everybody: annotators who judge blind read it, so it names no policy version."""
        self.batch_notes: dict[int, str] = {}
        """Why a batch does not go on, by its id. Names policy versions: for leads, not for annotators who judge blind."""
        self._queue_positions: dict[int, int] = {}
        self._paused_until: dict[int, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="filler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=10)

    def _loop(self) -> None:
        size = 1
        while not self._stopping.is_set():
            try:
                batch = self._next_batch()
                missing = QUEUE_TARGET - queue.least_waiting(self.store, at_most=QUEUE_TARGET)
                self.filling = batch is not None or missing > 0
                if batch is not None:
                    self._write(batch, size)
                elif missing > 0:
                    self.note = self._fill(min(size, missing))
                else:
                    self._stopping.wait(1.0)
                    continue
                size = min(2 * size, LARGEST_BATCH)
            except InterruptedError:
                return
            except Exception as error:
                # One bad batch must not end the thread.
                log.warning("could not fill the queue: %s", error, exc_info=not isinstance(error, PolicyServerDown))
                self.note = NOT_WRITTEN.format(kind=type(error).__name__)
                self._stopping.wait(5.0)

    # ---- batches of a lead

    def _next_batch(self) -> Batch | None:
        """The first batch that can go on now."""
        unfinished = {batch.id: batch for batch in batches.unfinished(self.store)}
        # Replaced, never changed in place: another thread reads it for the status.
        self.batch_notes = {i: note for i, note in self.batch_notes.items() if i in unfinished}
        return next((b for b in unfinished.values() if self._paused_until.get(b.id, 0.0) <= time.monotonic()), None)

    def _write(self, batch: Batch, size: int) -> None:
        """Generates a few comparisons of a batch. A batch that cannot go on gets a note and a pause, and the others go on."""
        try:
            note = self._write_some(batch, size)
        except InterruptedError:
            raise
        except Exception as error:
            log.warning("batch %d is paused", batch.id, exc_info=not isinstance(error, PolicyServerDown))
            note = str(error) or type(error).__name__
        others = {i: text for i, text in self.batch_notes.items() if i != batch.id}
        self.batch_notes = others | {batch.id: note} if note else others
        if note:
            self._paused_until[batch.id] = time.monotonic() + PAUSE_S

    def _write_some(self, batch: Batch, size: int) -> str:
        version_of = {version.id: version for version in policies.all_versions(self.store)}
        versions = [version_of[policy_id] for policy_id in batch.policy_ids]
        if reason := next(filter(None, map(self.refusal_reason, versions)), ""):
            return reason
        count = max(1, min(size, batch.requested - batch.generated, ANSWERS_AT_ONCE // batch.completions))
        if not (next_prompts := least_used(self.store, count, self._queue_positions)):
            return NO_PROMPTS
        assignments: list[Assignments] = [
            (prompt, *round_robin(batch, versions, batch.generated + i)) for i, prompt in enumerate(next_prompts)
        ]
        dropped = self._timed(assignments, batch.sampling, batch)
        if len(dropped) == len(assignments):
            return "The answers to the last prompts were all alike, or empty: cancel the batch and ask for a higher temperature."
        return ""

    # ---- the queue

    def _fill(self, count: int) -> str:
        """Generates up to `count` comparisons; returns a note for people, empty where all went well."""
        next_prompts = least_used(self.store, count, self._queue_positions)
        if not next_prompts:
            self._stopping.wait(2.0)
            return NO_PROMPTS
        base = self.collector or policies.ensure_base(self.store, self.base_model)
        tuned = None if self.collector else policies.latest_tuned(self.store, self.base_model)
        # An adapter that is missing or unsafe must not keep people from judging the base.
        refusal_reason = self.refusal_reason(tuned) if tuned else ""
        tuned = None if refusal_reason else tuned
        total = sum(comparisons.prompt_usage(self.store).values())
        assignments: list[Assignments] = [(prompt, *policies_for_pair(base, tuned, total + i)) for i, prompt in enumerate(next_prompts)]
        dropped = self._timed(assignments, COLLECTING)
        if len(dropped) == len(assignments):
            return "The model answered every prompt of the last batch twice alike, or not at all."
        return refusal_reason

    def _timed(self, assignments: Sequence[Assignments], sampling: Sampling, batch: Batch | None = None) -> list[Prompt]:
        """Generates comparisons, records the time that each took, and moves prompts that gave none to the end of the queue."""
        started = time.monotonic()
        dropped = write_comparisons(
            self.store, self.generate, assignments, sampling=sampling, seed=secrets.randbelow(2**31), on_progress=self._check, batch=batch
        )
        requeue_prompts(self.store, self._queue_positions, dropped)
        if len(dropped) < len(assignments):
            self.seconds_per_comparison = (time.monotonic() - started) / (len(assignments) - len(dropped))
        return dropped

    def _check(self) -> None:
        if self._stopping.is_set():
            raise InterruptedError("the server is stopping")
