"""Keeps comparisons waiting to be judged, so that annotators never wait for a model.

Batches that a lead asked for come first; when they are written, the queue is filled by itself. Which prompt and which
policies a comparison takes is decided here; how an answer is drawn is the generator's matter: the policy server's own
backbone, or any OpenAI-compatible endpoint.
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
"""How answers that people judge are drawn: long enough to say something, short enough to be read twice."""

QUEUE_TARGET = 24
"""Comparisons kept waiting."""

LARGEST_BATCH = 8
"""Comparisons written at once; small, so that the first are there soon and the server stays responsive."""

ANSWERS_AT_ONCE = 2 * LARGEST_BATCH
"""Answers drawn at once: comparisons of many answers are written a few at a time."""

REDRAWS = 2
"""Times that a batch's empty or repeated answers are drawn anew before its comparison does without them."""

REST_S = 30.0
"""How long a batch that cannot go on now lets the others pass, in seconds."""

NO_PROMPTS = "There are no prompts yet: import some."

NOT_WRITTEN = "The last answers could not be written ({kind}): the policy server's log, logs/policy-server.log, says why."
"""The message of the error itself may name policy versions, endpoints and ids, and is not for who judges blind."""

Assignments = tuple[Prompt, *tuple[PolicyVersion, ...]]
"""A prompt and who answers it, once for each answer."""


@dataclass(frozen=True, slots=True)
class GeneratedCompletion:
    """One answer as a generator returns it."""

    text: str
    finish_reason: str
    latency_s: float
    seed: int | None = None
    """The seed of this answer alone, where it has one of its own."""


class CompletionSource(Protocol):
    """Draws one answer for each (policy, prompt)."""

    def __call__(
        self, asked: Sequence[tuple[PolicyVersion, Prompt]], sampling: Sampling, seed: int, on_progress: Callable[[], None] = ...
    ) -> list[GeneratedCompletion]: ...


class EndpointSource:
    """Answers from an OpenAI-compatible endpoint, one request each."""

    def __init__(self, client: PolicyClient, model: str):
        self.client, self.model = client, model

    def __call__(
        self, asked: Sequence[tuple[PolicyVersion, Prompt]], sampling: Sampling, seed: int, on_progress: Callable[[], None] = lambda: None
    ) -> list[GeneratedCompletion]:
        drawn = []
        for i, (_, prompt) in enumerate(asked):
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
            drawn.append(GeneratedCompletion(reply.text, reply.finish_reason, time.monotonic() - started, seed + i))
            on_progress()
        return drawn


def route_by_collector(collector: PolicyVersion, elsewhere: CompletionSource, here: CompletionSource) -> CompletionSource:
    """Draws the collector's answers elsewhere and everybody else's here."""

    def generate(
        asked: Sequence[tuple[PolicyVersion, Prompt]], sampling: Sampling, seed: int, on_progress: Callable[[], None] = lambda: None
    ) -> list[GeneratedCompletion]:
        drawn: dict[int, GeneratedCompletion] = {}
        for draw, its_own in ((elsewhere, True), (here, False)):
            mine = [i for i, (policy, _) in enumerate(asked) if (policy.id == collector.id) is its_own]
            if mine:
                drawn |= zip(mine, draw([asked[i] for i in mine], sampling, seed, on_progress), strict=True)
        return [drawn[i] for i in range(len(asked))]

    return generate


def policies_for_pair(base: PolicyVersion, tuned: PolicyVersion | None, index: int) -> tuple[PolicyVersion, PolicyVersion]:
    """Who answers the index-th comparison: once there is a tuned policy, it meets the base every second time."""
    if tuned is None:
        return base, base
    return (tuned, base) if index % 2 == 0 else (tuned, tuned)


def round_robin(batch: Batch, versions: Sequence[PolicyVersion], index: int) -> list[PolicyVersion]:
    """Who answers the index-th comparison of a batch: its versions in turn, going on where the last comparison stopped."""
    return [versions[(index * batch.answers + i) % len(versions)] for i in range(batch.answers)]


def write_comparisons(
    store: Database,
    generate: CompletionSource,
    chosen: Sequence[Assignments],
    *,
    sampling: Sampling,
    seed: int,
    on_progress: Callable[[], None] = lambda: None,
    batch: Batch | None = None,
) -> list[Prompt]:
    """Draws the answers for each and stores the comparisons that have two or more. Returns the prompts of the others.

    An answer that is empty or repeats an earlier one cannot be judged: a batch draws it anew, up to `REDRAWS` times, and
    in the end a comparison does without it. What belongs to a batch that was cancelled meanwhile is thrown away.
    """
    asked = [(policy, prompt) for prompt, *speakers in chosen for policy in speakers]
    drawn = generate(asked, sampling, seed, on_progress)
    places = _places(chosen)
    # Greedy answers come out the same however often they are drawn.
    for attempt in range(1, REDRAWS + 1 if batch and sampling.temperature > 0 else 1):
        useless = [i for place in places for i in place if i not in _distinct(drawn, place)]
        if not useless:
            break
        again = generate([asked[i] for i in useless], sampling, (seed + attempt) % 2**31, on_progress)
        drawn = [*drawn]
        for i, answer in zip(useless, again, strict=True):
            drawn[i] = answer
    dropped: list[Prompt] = []
    order = random.Random(seed)
    with store.atomic():
        if batch and batch.id not in {unfinished.id for unfinished in batches.unfinished(store)}:
            return dropped
        for (prompt, *speakers), place in zip(chosen, places, strict=True):
            kept = _distinct(drawn, place)
            if len(kept) < comparisons.FEWEST:
                dropped.append(prompt)
                continue
            # A version that always came first would make the first place, and the lower id, mean something.
            ids = [_store(store, asked[kept[n]], drawn[kept[n]], sampling, seed) for n in comparisons.order_of_writing(len(kept), order)]
            if batch:
                comparisons.add(store, prompt.id, ids, purpose="batch", priority=batch.priority, batch_id=batch.id)
            else:
                comparisons.add(store, prompt.id, ids, purpose="versus" if len({s.id for s in speakers}) > 1 else "collect")
        if batch:
            batches.made(store, batch.id, len(chosen) - len(dropped))
    return dropped


def _places(chosen: Sequence[Assignments]) -> list[range]:
    """Where each comparison's answers stand among all that are drawn."""
    places, start = [], 0
    for _, *speakers in chosen:
        places.append(range(start, start + len(speakers)))
        start += len(speakers)
    return places


def _distinct(drawn: Sequence[GeneratedCompletion], place: Iterable[int]) -> list[int]:
    """The places of answers that say something, the first where several say the same."""
    first: dict[str, int] = {}
    for i in place:
        if said := drawn[i].text.strip():
            first.setdefault(said, i)
    return list(first.values())


def _store(store: Database, asked: tuple[PolicyVersion, Prompt], drawn: GeneratedCompletion, sampling: Sampling, seed: int) -> int:
    policy, prompt = asked
    return completions.add(
        store,
        prompt_id=prompt.id,
        policy_version_id=policy.id,
        text=drawn.text,
        sampling=sampling,
        seed=seed if drawn.seed is None else drawn.seed,
        finish_reason=drawn.finish_reason,
        latency_s=drawn.latency_s,
    )


def least_used(store: Database, count: int, places: Mapping[int, int]) -> list[Prompt]:
    """The prompts with the fewest comparisons so far, in the order they were added.

    Args:
        places: by prompt id, the number of comparisons it is taken to have at least; see `requeue_prompts`.
    """
    usage = comparisons.prompt_usage(store)
    every = prompts.of_split(store)
    ranked = sorted(every, key=lambda p: (max(usage.get(p.id, 0), places.get(p.id, 0)), p.id))
    return [ranked[i % len(ranked)] for i in range(count)] if ranked else []


def requeue_prompts(store: Database, places: dict[int, int], dropped: Sequence[Prompt]) -> None:
    """Sends prompts to the end of the line: one that is always answered alike would stay first in it for good."""
    last = max([*comparisons.prompt_usage(store).values(), *places.values()], default=0)
    places.update({prompt.id: last + 1 for prompt in dropped})


def servable(_: PolicyVersion) -> str:
    """For a generator that speaks as anyone."""
    return ""


class ComparisonGenerator:
    """Writes batches and tops the queue up in a thread of the policy server, until `stop`.

    Args:
        why_not: what keeps a policy version from answering here, as a sentence; empty when nothing does.
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
        """Why nothing is written, for everybody: who judges blind reads it, so it names no policy version."""
        self.batch_notes: dict[int, str] = {}
        """Why a batch does not go on, by its id. Names policy versions: for a lead, not for who judges blind."""
        self._places: dict[int, int] = {}
        self._resting: dict[int, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="filler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(timeout=10)

    def _loop(self) -> None:
        size = 1
        while not self._over.is_set():
            try:
                batch = self._next_batch()
                missing = QUEUE_TARGET - queue.least_waiting(self.store, at_most=QUEUE_TARGET)
                self.filling = batch is not None or missing > 0
                if batch is not None:
                    self._write(batch, size)
                elif missing > 0:
                    self.note = self._fill(min(size, missing))
                else:
                    self._over.wait(1.0)
                    continue
                size = min(2 * size, LARGEST_BATCH)
            except InterruptedError:
                return
            except Exception as error:
                # One bad batch must not end the collecting for good.
                log.warning("could not fill the queue: %s", error, exc_info=not isinstance(error, PolicyServerDown))
                self.note = NOT_WRITTEN.format(kind=type(error).__name__)
                self._over.wait(5.0)

    # ---- what a lead asked for

    def _next_batch(self) -> Batch | None:
        """The first batch that can go on now."""
        unfinished = {batch.id: batch for batch in batches.unfinished(self.store)}
        # Made anew and never changed in place: the status is read by another thread.
        self.batch_notes = {i: note for i, note in self.batch_notes.items() if i in unfinished}
        return next((b for b in unfinished.values() if self._resting.get(b.id, 0.0) <= time.monotonic()), None)

    def _write(self, batch: Batch, size: int) -> None:
        """Writes a few comparisons of a batch. One that cannot go on says why and rests, so that the others do."""
        try:
            note = self._write_some(batch, size)
        except InterruptedError:
            raise
        except Exception as error:
            log.warning("batch %d rests", batch.id, exc_info=not isinstance(error, PolicyServerDown))
            note = str(error) or type(error).__name__
        others = {i: said for i, said in self.batch_notes.items() if i != batch.id}
        self.batch_notes = others | {batch.id: note} if note else others
        if note:
            self._resting[batch.id] = time.monotonic() + REST_S

    def _write_some(self, batch: Batch, size: int) -> str:
        known = {version.id: version for version in policies.all_versions(self.store)}
        versions = [known[policy_id] for policy_id in batch.policy_ids]
        if reason := next(filter(None, map(self.refusal_reason, versions)), ""):
            return reason
        count = max(1, min(size, batch.asked - batch.made, ANSWERS_AT_ONCE // batch.answers))
        if not (found := least_used(self.store, count, self._places)):
            return NO_PROMPTS
        chosen: list[Assignments] = [(prompt, *round_robin(batch, versions, batch.made + i)) for i, prompt in enumerate(found)]
        dropped = self._timed(chosen, batch.sampling, batch)
        if len(dropped) == len(chosen):
            return "The answers to the last prompts were all alike, or empty: cancel the batch and ask for a higher temperature."
        return ""

    # ---- what nobody asked for

    def _fill(self, count: int) -> str:
        """Writes up to `count` comparisons; returns what a person should know of it, if anything."""
        found = least_used(self.store, count, self._places)
        if not found:
            self._over.wait(2.0)
            return NO_PROMPTS
        base = self.collector or policies.ensure_base(self.store, self.base_model)
        tuned = None if self.collector else policies.latest_tuned(self.store, self.base_model)
        # An adapter that is missing, or leads elsewhere, must not keep people from judging the base.
        refusal_reason = self.refusal_reason(tuned) if tuned else ""
        tuned = None if refusal_reason else tuned
        total = sum(comparisons.prompt_usage(self.store).values())
        chosen: list[Assignments] = [(prompt, *policies_for_pair(base, tuned, total + i)) for i, prompt in enumerate(found)]
        dropped = self._timed(chosen, COLLECTING)
        if len(dropped) == len(chosen):
            return "The model answered every prompt of the last batch twice alike, or not at all."
        return refusal_reason

    def _timed(self, chosen: Sequence[Assignments], sampling: Sampling, batch: Batch | None = None) -> list[Prompt]:
        """Writes comparisons, keeps the time that one took, and sends the prompts that gave none to the end of the line."""
        started = time.monotonic()
        dropped = write_comparisons(
            self.store, self.generate, chosen, sampling=sampling, seed=secrets.randbelow(2**31), on_progress=self._check, batch=batch
        )
        requeue_prompts(self.store, self._places, dropped)
        if len(dropped) < len(chosen):
            self.seconds_per_comparison = (time.monotonic() - started) / (len(chosen) - len(dropped))
        return dropped

    def _check(self) -> None:
        if self._over.is_set():
            raise InterruptedError("the server is stopping")
