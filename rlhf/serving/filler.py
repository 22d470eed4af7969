"""Generates comparisons ahead of the annotators, so that nobody waits for a model.

Batches that a lead ordered are generated first; after them, the queue is filled up to `QUEUE_TARGET`. `comparison_plan` chooses the
prompt and the policy versions of each comparison; a prompt that a model refuses is set aside. A `CompletionSource` samples the
answers: the policy server's own engine, or OpenAI-compatible endpoints.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, replace
from itertools import combinations
from typing import NamedTuple

from rlhf.serving.batch_plan import assign_prompts_of
from rlhf.serving.client import PolicyServerDown
from rlhf.serving.comparison_plan import Assignments, Policies, Versions, assign, deciding, plan, policies_now
from rlhf.serving.completion_source import CompletionSource, GeneratedCompletion, PromptRefused
from storage.content import batches, comparisons, completions, policies, prompts, refusals
from storage.core.database import Database
from storage.core.records import Batch, PolicyVersion, Prompt, Round, Sampling
from storage.judging import queue
from storage.project import rounds, settings

log = logging.getLogger("rankloop.filler")

COLLECTING = Sampling(temperature=0.7, max_new_tokens=768)
"""Sampling of the answers that people judge. The limit is for answers that do not end: 7 of 96 of the default model's reach it."""

QUEUE_TARGET = 24
"""Comparisons that wait to be judged, at least."""

MAX_BATCH_SIZE = 8
"""Comparisons generated at once; small, so that the first are ready soon and the server stays responsive."""

FIRST_BATCH_SIZE = 2
"""Comparisons generated first: of a single one, an answer that does not end would keep the first annotator waiting."""

ANSWERS_AT_ONCE = 2 * MAX_BATCH_SIZE
"""Answers sampled at once: of comparisons with many answers, fewer are generated at once."""

MAX_RESAMPLES = 2
"""Times that a batch's empty or repeated answers are sampled again before its comparison is stored without them."""

PAUSE_S = 30.0
"""Pause of a batch that cannot go on, in seconds; the other batches go on meanwhile."""

FIRST_WAIT_S, MAX_WAIT_S = 5.0, 300.0
"""Pause after an attempt that gave no comparison, doubled with each further one, and its limit, in seconds."""

IDLE_S = 2.0
"""Pause while there is no prompt or no model to ask, in seconds."""

NO_PROMPTS = "There are no prompts yet: import some."

NO_CHOSEN_PROMPTS = "No prompt that the batch takes is in use, or the model refused them all: cancel the batch, or bring prompts back."

ALL_REFUSED = "Every prompt is set aside, because the model cannot answer it: the Prompts section of the Lead page says why."

NO_ENDPOINT = "The models that write the answers do not answer now: asked again in a while."

FOLLOW_S = 1.0
"""Interval at which a batch that is being generated is compared with the decisions about its versions, in seconds."""

NO_ADAPTER = "The current policy cannot answer now, so the base model answers: the policy server's log, logs/policy-server.log, says why."

NOT_WRITTEN = "The last answers could not be written ({kind}): the policy server's log, logs/policy-server.log, says why."
"""The error's own message may name policy versions, endpoints and ids, which annotators who judge blind must not see."""


def pair_of_collectors(collectors: Sequence[PolicyVersion], index: int) -> tuple[PolicyVersion, PolicyVersion]:
    """The two outside models of the index-th comparison: every pair of them in turn, or the same one twice where it is alone."""
    pairs = list(combinations(collectors, 2)) or [(collectors[0], collectors[0])]
    return pairs[index % len(pairs)]


def round_robin(batch: Batch, versions: Sequence[PolicyVersion], index: int) -> list[PolicyVersion]:
    """The versions of the index-th comparison of a batch: the batch's versions in turn, continued from the comparison before."""
    return [versions[(index * batch.completions + i) % len(versions)] for i in range(batch.completions)]


class Outdated(Exception):
    """A decision made the comparisons that are being generated pointless: others are planned at once."""


class Written(NamedTuple):
    """What came of a few comparisons that were to be written."""

    stored: int
    """Comparisons in the store."""
    dropped: list[Prompt]
    """Prompts whose answers were empty or all alike."""
    refused: list[Prompt]
    """Prompts that were set aside, because a model refused them."""


def write_comparisons(
    store: Database,
    generate: CompletionSource,
    assignments: Sequence[Assignments],
    *,
    sampling: Sampling,
    seed: int,
    on_progress: Callable[[], None] = lambda: None,
    batch: Batch | None = None,
    decides: Mapping[int, Round] | None = None,
    after: int | None = None,
) -> Written:
    """Samples the answers of each comparison and stores the comparisons with two or more.

    An answer that is empty or repeats an earlier one cannot be judged: for a batch it is sampled again, up to `MAX_RESAMPLES`
    times; after that the comparison is stored without it. A prompt that a model refuses is set aside for that model, with the
    reason. Answers for a batch that was cancelled meanwhile are discarded.

    Args:
        decides: the round that a comparison helps to decide, by its place among the assignments.
        after: the newest decision when the versions were chosen; if there is a later one by now, the answers are discarded.
    """
    requests = [(policy, prompt) for prompt, *versions in assignments for policy in versions]
    answers = list(generate(requests, sampling, seed, on_progress))
    indices_of = _answer_indices(assignments)
    # Greedy answers are the same however often they are sampled.
    for attempt in range(1, MAX_RESAMPLES + 1 if batch and sampling.temperature > 0 else 1):
        unusable = [
            i
            for indices in indices_of
            if not any(isinstance(answers[i], PromptRefused) for i in indices)
            for i in indices
            if i not in _distinct(answers, indices)
        ]
        if not unusable:
            break
        resampled = generate([requests[i] for i in unusable], sampling, (seed + attempt) % 2**31, on_progress)
        for i, answer in zip(unusable, resampled, strict=True):
            answers[i] = answer
    written = Written(0, [], [])
    order = random.Random(seed)
    with store.atomic():
        for (policy, prompt), answer in zip(requests, answers, strict=True):
            if isinstance(answer, PromptRefused):
                refusals.add(store, prompt.id, policy, str(answer))
        if after is not None and rounds.newest_decision(store) != after:
            return written
        if batch and batch.id not in {unfinished.id for unfinished in batches.unfinished(store)}:
            return written
        for place, ((prompt, *versions), indices) in enumerate(zip(assignments, indices_of, strict=True)):
            if any(isinstance(answers[i], PromptRefused) for i in indices):
                written.refused.append(prompt)
                continue
            usable = _distinct(answers, indices)
            if len(usable) < comparisons.MIN_COMPLETIONS:
                written.dropped.append(prompt)
                continue
            # If one version always came first, the first place and the lower id would tell which version it is.
            ids = [
                _store(store, requests[i], answer, sampling, seed)
                for i in (usable[n] for n in comparisons.random_write_order(len(usable), order))
                if not isinstance(answer := answers[i], PromptRefused)
            ]
            if batch:
                comparisons.add(store, prompt.id, ids, purpose="batch", priority=batch.priority, wanted=batch.wanted, batch_id=batch.id)
            elif decides and (decided := decides.get(place)):
                # People's votes do not decide a round that simulated annotators judge: it waits in nobody's queue.
                wanted = None if decided.judges == "people" else 0
                comparisons.add(store, prompt.id, ids, purpose="decide", round_id=decided.id, wanted=wanted)
            else:
                comparisons.add(store, prompt.id, ids, purpose="versus" if len({s.id for s in versions}) > 1 else "collect")
        written = written._replace(stored=len(assignments) - len(written.dropped) - len(written.refused))
        if batch:
            batches.add_generated(store, batch.id, written.stored)
    return written


def _answer_indices(assignments: Sequence[Assignments]) -> list[range]:
    """The indices of each comparison's answers among all sampled answers."""
    indices, start = [], 0
    for _, *versions in assignments:
        indices.append(range(start, start + len(versions)))
        start += len(versions)
    return indices


def _distinct(answers: Sequence[GeneratedCompletion | PromptRefused], indices: Iterable[int]) -> list[int]:
    """The indices of the answers that are not empty, of equal answers the first."""
    first: dict[str, int] = {}
    for i in indices:
        if not isinstance(answer := answers[i], PromptRefused) and (text := answer.text.strip()):
            first.setdefault(text, i)
    return list(first.values())


def _store(store: Database, request: tuple[PolicyVersion, Prompt], answer: GeneratedCompletion, sampling: Sampling, seed: int) -> int:
    policy, prompt = request
    return completions.add(
        store,
        prompt_id=prompt.id,
        policy_version_id=policy.id,
        text=answer.text,
        sampling=asdict(sampling) if answer.sampling is None else answer.sampling,
        # An outside model that takes no seed has none.
        seed=seed if answer.reported is None else answer.seed,
        finish_reason=answer.finish_reason,
        latency_s=answer.latency_s,
        reported=answer.reported,
    )


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
        collectors: outside models that fill the queue in place of the current policy, compared with each other.
        refusal_reason: why a policy version cannot answer here, as a sentence; empty where it can.
        rng: draws which kind each comparison is, and the prompts of those that decide a round.
    """

    def __init__(
        self,
        store: Database,
        generate: CompletionSource,
        base_model: str,
        collectors: Sequence[PolicyVersion] = (),
        *,
        refusal_reason: Callable[[PolicyVersion], str] = servable,
        rng: random.Random | None = None,
    ):
        self.store, self.generate, self.base_model, self.collectors = store, generate, base_model, collectors
        self.refusal_reason = refusal_reason
        self.rng = rng or random.SystemRandom()
        self.seconds_per_comparison: float | None = None
        self.seconds_per_answer: float | None = None
        self.filling = False
        self.note = ""
        """Why nothing is generated, for everybody: annotators who judge blind read it, so it names no policy version."""
        self.batch_notes: dict[int, str] = {}
        """Why a batch does not go on, by its id. Names policy versions: for leads, not for annotators who judge blind."""
        self._queue_positions: dict[int, int] = {}
        self._paused_until: dict[int, float] = {}
        self._failures = 0
        self._after: int | None = None
        """The newest decision when the versions of what is being generated for the queue were chosen; None while nothing is."""
        self._looked = 0.0
        self._stopping = threading.Event()
        self._writers = ThreadPoolExecutor(MAX_BATCH_SIZE, "filler")
        self._thread = threading.Thread(target=self._loop, name="filler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=10)
        self._writers.shutdown(wait=False)

    def _loop(self) -> None:
        size = FIRST_BATCH_SIZE
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
                size = min(2 * size, MAX_BATCH_SIZE)
            except InterruptedError:
                return
            except Outdated:
                continue
            except Exception as error:
                # One bad batch must not end the thread.
                log.warning("could not fill the queue: %s", error, exc_info=not isinstance(error, PolicyServerDown))
                self.note = NOT_WRITTEN.format(kind=type(error).__name__)
                self._back_off()

    def _back_off(self) -> None:
        """Waits after an attempt that gave no comparison: twice as long each time, so that a broken model costs little."""
        self._stopping.wait(min(FIRST_WAIT_S * 2**self._failures, MAX_WAIT_S))
        self._failures += 1

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
        if left := sorted(version.name for version in versions if version.id in rounds.left_out(self.store)):
            return (
                f"{', '.join(left)}: rejected or rolled back, and gets no new comparisons. Cancel the batch, or promote the version first."
            )
        if reason := next(filter(None, map(self.refusal_reason, versions)), ""):
            return reason
        count = max(1, min(size, batch.requested - batch.generated, ANSWERS_AT_ONCE // batch.completions))
        versions_of = [tuple(round_robin(batch, versions, batch.generated + i)) for i in range(count)]
        if not (assignments := assign_prompts_of(self.store, batch, versions_of, self._queue_positions)):
            return self._no_prompts() if batch.prompts == batches.EVERY_PROMPT else NO_CHOSEN_PROMPTS
        written = self._timed(assignments, batch.sampling, batch)
        if len(written.dropped) == len(assignments):
            return "The answers to the last prompts were all alike, or empty: cancel the batch and ask for a higher temperature."
        return ""

    # ---- the queue

    def _fill(self, count: int) -> str:
        """Generates up to `count` comparisons; returns a note for people, empty where all went well."""
        now, ordinary, note = self._versions_to_compare(count)
        planned = plan(now, ordinary, settings.current(self.store), self.rng)
        assignments, decides = assign(self.store, planned, self._queue_positions, self.rng)
        if not assignments:
            self._stopping.wait(IDLE_S)
            return self._no_prompts() if ordinary else note
        self._after = now.after
        try:
            written = self._timed(assignments, COLLECTING, decides=decides)
        finally:
            self._after = None
        if len(written.dropped) == len(assignments):
            self._back_off()
            return "The model answered every prompt of the last batch twice alike, or not at all."
        self._failures = 0
        return note

    def _versions_to_compare(self, count: int) -> tuple[Policies, list[Versions | None], str]:
        """The versions that may be compared now; the pair of each of the next comparisons, None for the current policy's; and a note."""
        now = policies_now(self.store, self.base_model)
        if (decides := deciding(now)) is not None and any(map(self.refusal_reason, decides.versions)):
            now = replace(now, asked=None)
        if self.collectors:
            total = sum(comparisons.prompt_usage(self.store).values())
            reasons = {version.id: self.refusal_reason(version) for version in self.collectors}
            ready = [version for version in self.collectors if not reasons[version.id]]
            if len(ready) < min(2, len(self.collectors)):
                return now, [], NO_ENDPOINT
            return now, [pair_of_collectors(ready, total + i) for i in range(count)], ""
        if now.current.id != now.base.id and (reason := self.refusal_reason(now.current)):
            log.warning("%s", reason)
            # An adapter that is missing or unsafe must not keep people from judging the base, and nothing is decided without it.
            return replace(now, current=now.base, asked=None), [None] * count, NO_ADAPTER
        return now, [None] * count, ""

    def _no_prompts(self) -> str:
        return ALL_REFUSED if prompts.of_split(self.store) else NO_PROMPTS

    def _timed(
        self,
        assignments: Sequence[Assignments],
        sampling: Sampling,
        batch: Batch | None = None,
        decides: Mapping[int, Round] | None = None,
    ) -> Written:
        """Generates comparisons, records the time that each took, and moves prompts that gave none to the end of the queue."""
        started = time.monotonic()

        def write(place: int) -> Written:
            return write_comparisons(
                self.store,
                self.generate,
                [assignments[place]],
                sampling=sampling,
                seed=secrets.randbelow(2**31),
                on_progress=self._check,
                batch=batch,
                decides={0: decides[place]} if decides and place in decides else None,
                after=self._after,
            )

        # Each by itself: one in ten answers does not end before its limit, and only its own comparison waits for it.
        writing = [self._writers.submit(write, place) for place in range(len(assignments))]
        wait(writing)
        each = [written.result() for written in writing]
        written = Written(
            sum(one.stored for one in each), [p for one in each for p in one.dropped], [p for one in each for p in one.refused]
        )
        requeue_prompts(self.store, self._queue_positions, written.dropped)
        if written.stored:
            took_s, answers = time.monotonic() - started, sum(len(versions) for _, *versions in assignments)
            self.seconds_per_comparison, self.seconds_per_answer = took_s / written.stored, took_s / answers
        return written

    def _check(self) -> None:
        if self._stopping.is_set():
            raise InterruptedError("the server is stopping")
        if self._after is not None and time.monotonic() - self._looked >= FOLLOW_S:
            self._looked = time.monotonic()
            if rounds.newest_decision(self.store) != self._after:
                raise Outdated
