"""Keeps comparisons waiting to be judged, so that annotators never wait for a model.

Which prompt and which policies a comparison takes is decided here; how an answer is drawn is the generator's matter:
the policy server's own backbone, or any OpenAI-compatible endpoint.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rlhf.client import PolicyClient, PolicyServerDown
from storage import comparisons, completions, policies, prompts, queue
from storage.database import Database
from storage.records import PolicyVersion, Prompt, Sampling

log = logging.getLogger("rankloop.filler")

COLLECTING = Sampling(temperature=0.7, max_new_tokens=96)
"""How answers that people judge are drawn: long enough to say something, short enough to be read twice."""

QUEUE_TARGET = 24
"""Comparisons kept waiting."""

LARGEST_BATCH = 8
"""Comparisons written at once; small, so that the first are there soon and the server stays responsive."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One answer as a generator returns it."""

    text: str
    finish_reason: str
    latency_s: float


class Generator(Protocol):
    """Draws one answer for each (policy, prompt)."""

    def __call__(
        self, asked: Sequence[tuple[PolicyVersion, Prompt]], sampling: Sampling, seed: int, tick: Callable[[], None] = ...
    ) -> list[Drawn]: ...


class EndpointGenerator:
    """Answers from an OpenAI-compatible endpoint, one request each."""

    def __init__(self, client: PolicyClient, model: str):
        self.client, self.model = client, model

    def __call__(self, asked, sampling, seed, tick=lambda: None) -> list[Drawn]:
        drawn = []
        for i, (_, prompt) in enumerate(asked):
            started = time.monotonic()
            reply = self.client.complete(
                self.model, prompt.messages, temperature=sampling.temperature, top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens, seed=seed + i,
            )
            drawn.append(Drawn(reply.text, reply.finish_reason, time.monotonic() - started))
            tick()
        return drawn


def pairing(base: PolicyVersion, tuned: PolicyVersion | None, index: int) -> tuple[PolicyVersion, PolicyVersion]:
    """Who answers the index-th comparison: once there is a tuned policy, it meets the base every second time."""
    if tuned is None:
        return base, base
    return (tuned, base) if index % 2 == 0 else (tuned, tuned)


def write_comparisons(
    store: Database, generate: Generator, chosen: Sequence[tuple[Prompt, PolicyVersion, PolicyVersion]], *,
    sampling: Sampling, seed: int, tick: Callable[[], None] = lambda: None,
) -> list[Prompt]:
    """Draws two answers for each and stores the comparisons whose answers differ. Returns the prompts of the others."""
    asked = [(policy, prompt) for prompt, first, second in chosen for policy in (first, second)]
    drawn = generate(asked, sampling, seed, tick)
    dropped = []
    with store.atomic():
        for (prompt, first, second), a, b in zip(chosen, drawn[0::2], drawn[1::2], strict=True):
            # Two identical answers cannot be told apart, and an empty one cannot be read.
            if a.text.strip() == b.text.strip() or not a.text.strip() or not b.text.strip():
                dropped.append(prompt)
                continue
            ids = [
                completions.add(
                    store, prompt_id=prompt.id, policy_version_id=policy.id, text=d.text, sampling=sampling, seed=seed,
                    finish_reason=d.finish_reason, latency_s=d.latency_s,
                )
                for policy, d in ((first, a), (second, b))
            ]
            comparisons.add(store, prompt.id, ids, purpose="versus" if first.id != second.id else "collect")
    return dropped


def least_used(store: Database, count: int, places: Mapping[int, int]) -> list[Prompt]:
    """The prompts with the fewest comparisons so far, in the order they were added.

    Args:
        places: by prompt id, the number of comparisons it is taken to have at least; see `send_back`.
    """
    usage = comparisons.prompt_usage(store)
    every = prompts.of_split(store)
    ranked = sorted(every, key=lambda p: (max(usage.get(p.id, 0), places.get(p.id, 0)), p.id))
    return [ranked[i % len(ranked)] for i in range(count)] if ranked else []


def send_back(store: Database, places: dict[int, int], dropped: Sequence[Prompt]) -> None:
    """Sends prompts to the end of the line: one that is always answered alike would stay first in it for good."""
    last = max([*comparisons.prompt_usage(store).values(), *places.values()], default=0)
    places.update({prompt.id: last + 1 for prompt in dropped})


class Filler:
    """Tops the queue up in a thread of the policy server, until `stop`."""

    def __init__(self, store: Database, generate: Generator, base_model: str, collector: PolicyVersion | None = None):
        self.store, self.generate, self.base_model, self.collector = store, generate, base_model, collector
        self.seconds_per_comparison: float | None = None
        self.filling = False
        self.note = ""
        self._places: dict[int, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="filler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(timeout=10)

    def _loop(self) -> None:
        batch = 1
        while not self._over.is_set():
            try:
                missing = QUEUE_TARGET - queue.depth(self.store)
                self.filling = missing > 0
                if missing <= 0:
                    self._over.wait(1.0)
                    continue
                self.note = self._fill(min(batch, missing))
                batch = min(2 * batch, LARGEST_BATCH)
            except InterruptedError:
                return
            except PolicyServerDown as error:
                self.note = str(error)
                self._over.wait(5.0)
            except Exception as error:
                # One bad batch must not end the collecting for good.
                log.exception("could not fill the queue")
                self.note = f"{type(error).__name__}: {error}"
                self._over.wait(5.0)

    def _fill(self, count: int) -> str:
        """Writes up to `count` comparisons; returns what a person should know of it, if anything."""
        found = least_used(self.store, count, self._places)
        if not found:
            self._over.wait(2.0)
            return "There are no prompts yet: import some."
        base = self.collector or policies.ensure_base(self.store, self.base_model)
        tuned = None if self.collector else policies.latest_tuned(self.store, self.base_model)
        total = sum(comparisons.prompt_usage(self.store).values())
        chosen = [(prompt, *pairing(base, tuned, total + i)) for i, prompt in enumerate(found)]
        started = time.monotonic()
        dropped = write_comparisons(
            self.store, self.generate, chosen, sampling=COLLECTING, seed=secrets.randbelow(2**31), tick=self._check
        )
        send_back(self.store, self._places, dropped)
        if len(dropped) == len(chosen):
            return "The model answered every prompt of the last batch twice alike, or not at all."
        self.seconds_per_comparison = (time.monotonic() - started) / (len(chosen) - len(dropped))
        return ""

    def _check(self) -> None:
        if self._over.is_set():
            raise InterruptedError("the server is stopping")
