"""Annotators of the real program, many at once: each with an account, a session cookie and a connection, as browsers have.

They request a comparison and judge it as fast as the app responds, through the route that the page's own script calls, and
record the acknowledged judgments. `LoadTest.reconcile` compares these with the database. `annotators_http` and `kill9` use it.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpx2

from benchmarks.filling import answer
from benchmarks.wire import Wire
from feedback_ui.server.access import SIGN_IN
from feedback_ui.server.auth import Auth
from storage.content import comparisons, completions, prompts
from storage.core.database import Database, now
from storage.core.records import Sampling
from storage.judging.row_tokens import RowTokens
from storage.people import accounts
from storage.project import settings
from tests.browser.program import ROOT, Endpoint, Program, as_if_started_by_hand, eventually
from tests.support import tiny

CHOICES = ("a", "b", "a", "b", "tie", "both_bad")
TIERS = {"a": [[0], [1]], "b": [[1], [0]], "tie": [[0, 1]], "both_bad": [[0, 1]]}
"""The tiers of slots of each choice; the order within a tier has no meaning."""

SKIP_SHARE = 0.005

AGAIN_S = 0.2
"""Seconds before an act that was not saved is sent again, and before the next request to an empty queue."""

PASSWORD = "correct horse battery"

TRAINING = """
import math, os, sys, time
from rlhf.runs.progress import RunProgress
from storage.project import runs
from storage.core.database import Database
store = Database(sys.argv[1])
runs.create(store, sys.argv[2], config={"preset": "benchmark"}, seed=0, versions={})
runs.mark_started(store, sys.argv[2], os.getpid())
progress = RunProgress(store, sys.argv[2])
progress.plan({"ppo": 1.0})
work = progress.stage("ppo")
work.total(100_000)
names = ["objective/kl", "objective/scores", "objective/rewards", "objective/entropy", "ppo/loss", "ppo/clipfrac", "ppo/ratio",
         "value/loss", "value/clipfrac", "policy/loss", "policy/approxkl", "lr", "time/rollout", "time/update", "tokens"]
for step in range(100_000):
    for _ in range(20):
        time.sleep(0.05)
        work()
    progress.log(step, {name: math.sin(step + n) for n, name in enumerate(names)})
"""
"""The writes of a training round: a heartbeat each second and the metrics of each step, more often than a real round has steps."""


@dataclass
class Tally:
    """The responses to all annotators together."""

    acknowledged: list[tuple[int, str, str]] = field(default_factory=list)
    """Annotator, presentation, choice."""
    took_ms: list[float] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    """Requests whose connection broke; each was sent again until it was answered."""
    seconds: float = 0.0

    def add(self, other: Tally) -> None:
        self.acknowledged += other.acknowledged
        self.took_ms += other.took_ms
        self.problems += other.problems
        self.unanswered += other.unanswered
        self.seconds += other.seconds

    @property
    def per_s(self) -> float:
        return len(self.acknowledged) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Reconciliation:
    """The acknowledged judgments compared with those in the database."""

    wrong: list[str]
    """Acknowledged judgments that are missing, stored twice or stored with another choice, a line each."""
    unacknowledged: int
    """Number of stored judgments that were not acknowledged."""


class Room(Protocol):
    """Where annotators judge."""

    component_id: int
    path: str
    """The path of the project's pages, empty where there is one project."""

    @property
    def port(self) -> int: ...


class Annotator:
    """One annotator's client. It sends the requests of one browser tab."""

    def __init__(self, room: Room, annotator_id: int, cookie: str, seed: int):
        self.room, self.id = room, annotator_id
        self._rng = random.Random(seed)
        self._session = f"benchmark{seed}"
        self._wire = Wire("127.0.0.1", room.port, {"Cookie": cookie, "Accept-Language": "en"})
        self.unsent: dict | None = None
        """The act that has not been acknowledged; sent again, as the page's Retry does."""

    async def work(self, tally: Tally, *, until: float = math.inf, gone: threading.Event | None = None) -> None:
        """Judges until the time `until` of the monotonic clock, or until no comparison is left.

        With `gone`, judges until that event is set: waits while the server is down or the queue is empty.
        """
        shown = None
        while time.monotonic() < until and not (gone and gone.is_set()):
            try:
                shown = await self._judge(shown, tally) if shown or self.unsent else await self._next(tally)
            except OSError:
                if gone is None:
                    raise
                tally.unanswered += 1
                shown = None
                self._wire.port = self.room.port
            if shown is None and self.unsent is None and gone is None:
                return
            if shown is None:
                await asyncio.sleep(AGAIN_S)

    async def _next(self, tally: Tally) -> dict | None:
        status, view = await self._call("next_comparison", {})
        if status != 200 or "state" not in view:
            tally.problems[f"next_comparison: {status} {str(view)[:200]}"] += 1
            return None
        return view if view["state"] == "comparison" else None

    async def _judge(self, shown: dict | None, tally: Tally) -> dict | None:
        if self.unsent is None:
            choice = "skip" if self._rng.random() < SKIP_SHARE else self._rng.choice(CHOICES)
            reason = "Broken prompt" if choice == "skip" else None
            timing = {"active_ms": 4000, "idle_ms": 0, "client_ms": 4000}
            self.unsent = {"presentation_id": shown["presentation_id"], "choice": choice, "reason": reason, "timing": timing}
        began = time.perf_counter()
        status, reply = await self._call("judge", self.unsent)
        tally.took_ms.append(1000 * (time.perf_counter() - began))
        if status != 200 or not isinstance(reply, dict):
            tally.problems[f"judge: {status} {str(reply)[:200]}"] += 1
            return None
        if problem := reply.get("problem") or reply.get("refused"):
            tally.problems[problem] += 1
        if "next" not in reply:
            # Not saved yet: it is sent again.
            return None
        act, self.unsent = self.unsent, None
        if not problem:
            tally.acknowledged.append((self.id, act["presentation_id"], act["choice"]))
        return reply["next"] if reply["next"]["state"] == "comparison" else None

    async def _call(self, name: str, data: dict) -> tuple[int, dict]:
        body = {"data": data, "component_id": self.room.component_id, "fn_name": name, "session_hash": self._session}
        return await self._wire.ask("POST", f"{self.room.path}/gradio_api/component_server/", body)

    async def close(self) -> None:
        await self._wire.close()


class ProgramWithAccounts(Program):
    """The program with accounts: without a session it serves only the sign-in page."""

    def _serves(self) -> bool:
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log()}"
        try:
            return httpx2.get(f"{self.url}{SIGN_IN}", timeout=5.0).is_success
        except httpx2.HTTPError:
            return False


class LoadTest:
    """The served program, its annotators, and a process that writes a training run's rows meanwhile."""

    def __init__(self, folder: Path, *, people: int, comparisons: int, overlap: int, lease_minutes: int = 15):
        self.endpoint = Endpoint()
        self.program = ProgramWithAccounts(folder / "data", tiny.write(folder / "tiny-model"), *self.endpoint.options)
        self.component_id, self.path = 0, ""
        self._training: list[subprocess.Popen] = []
        store = self.program.store
        settings.change(store, replace(settings.current(store), overlap=overlap, lease_minutes=lease_minutes), None)
        prepare(store, comparisons)
        self._people = [self._sign_in(store, n) for n in range(people)]
        self.annotators: list[Annotator] = []

    @property
    def database(self) -> Path:
        return self.program.folder.database

    @property
    def port(self) -> int:
        return urlsplit(self.program.url).port

    def start(self) -> None:
        """Starts the program and waits until the policy server is idle too: its start must not be measured."""
        self.program.start().until_answering()
        if not self.annotators:
            self.annotators = [Annotator(self, id_, cookie, n) for n, (id_, cookie) in enumerate(self._people)]
        self.component_id = asyncio.run(find_component(self, self._people[0][1]))

    def start_training(self) -> None:
        """A process that writes a run's rows into the store, as a worker does."""
        command = [sys.executable, "-c", TRAINING, str(self.database), f"benchmark-{time.time_ns()}"]
        self._training.append(subprocess.Popen(command, cwd=ROOT, preexec_fn=as_if_started_by_hand))
        metrics = "SELECT count(*) FROM metrics"
        before = self.program.store.value(metrics)
        eventually(lambda: self.program.store.value(metrics) > before, "the training run writes", within_s=300)

    def judge(self, seconds: float) -> Tally:
        """Lets all annotators judge at the same time, for `seconds` seconds."""
        return asyncio.run(judge_together(self.annotators, seconds))

    def reconcile(self, acknowledged: Sequence[tuple[int, str, str]]) -> Reconciliation:
        """Compares acknowledged judgments, by the page's tokens of their presentations, with those in the database."""
        connection = sqlite3.connect(self.database)
        connection.row_factory = sqlite3.Row
        stored: dict[int, list[sqlite3.Row]] = {}
        for row in connection.execute(
            "SELECT s.*, p.slots FROM active_judgments s JOIN presentations p ON p.id = s.presentation_id WHERE s.annotator_kind = 'human'"
        ):
            stored.setdefault(row["presentation_id"], []).append(row)
        connection.close()
        wrong = []
        tokens = RowTokens(self.program.store)
        for annotator_id, token, choice in acknowledged:
            presentation_id = tokens.open("presentation", token, annotator_id)
            rows = stored.pop(presentation_id, [])
            if len(rows) != 1:
                wrong.append(f"presentation {presentation_id}: acknowledged, and stored {len(rows)} times")
            elif not _is_choice(rows[0], annotator_id, choice):
                wrong.append(f"presentation {presentation_id}: stored with another choice or annotator than {choice} by {annotator_id}")
        return Reconciliation(wrong, len(stored))

    def end(self) -> None:
        for process in self._training:
            process.kill()
            process.wait()
        self.program.end()
        self.endpoint.close()

    def _sign_in(self, store: Database, n: int) -> tuple[int, str]:
        roles = ("annotator", "lead") if n == 0 else ("annotator",)
        account = accounts.create(store, f"annotator {n:02}", PASSWORD, roles)
        token = accounts.sign_in(store, account.name, PASSWORD)
        return account.annotator.id, f"{Auth(store).cookie}={token}"


async def judge_together(annotators: Sequence[Annotator], seconds: float) -> Tally:
    """Lets annotators judge at the same time, for `seconds` seconds."""
    tally, began = Tally(), time.monotonic()
    await asyncio.gather(*(annotator.work(tally, until=began + seconds) for annotator in annotators))
    tally.seconds = time.monotonic() - began
    # The next loop cannot use this one's connections.
    await asyncio.gather(*(annotator.close() for annotator in annotators))
    return tally


async def find_component(room: Room, cookie: str) -> int:
    """The number of the Compare page's component, by which its functions are called."""
    wire = Wire("127.0.0.1", room.port, {"Cookie": cookie})
    status, config = await wire.ask("GET", f"{room.path}/config")
    await wire.close()
    if status != 200:
        raise RuntimeError(f"{room.path}/config: {status} {config}")
    return next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "compare")


def _is_choice(row: sqlite3.Row, annotator_id: int, choice: str) -> bool:
    if row["annotator_id"] != annotator_id or (choice == "skip") != (row["verdict"] == "skip"):
        return False
    if choice == "skip":
        return True
    slots = json.loads(row["slots"])
    expected = [{slots[slot] for slot in tier} for tier in TIERS[choice]]
    return expected == [set(tier) for tier in json.loads(row["tiers"])] and bool(row["all_bad"]) == (choice == "both_bad")


def prepare(store: Database, count: int) -> None:
    """Adds comparisons of two completions each, ten for each prompt, as a policy server does."""
    rng = random.Random(0)
    policy_ids = [
        store.insert("policy_versions", {"name": name, "kind": "external", "base_model": name, "created_at": now()})
        for name in ("one", "another")
    ]
    new_prompts = [prompts.NewPrompt(({"role": "user", "content": f"Question {n}?"},), split="train") for n in range(-(-count // 10))]
    with store.atomic():
        prompts.add(store, new_prompts, source="benchmark")
        stored = [prompt for prompt in prompts.of_split(store) if prompt.text.startswith("Question ")]
        for n in range(count):
            prompt = stored[n // 10]
            ids = [
                completions.add(
                    store, prompt_id=prompt.id, policy_version_id=policy_id, text=f"{n} {answer(rng)}", sampling=Sampling(),
                    seed=n, finish_reason="stop", latency_s=0.5,
                )
                for policy_id in policy_ids
            ]  # fmt: skip
            comparisons.add(store, prompt.id, ids, purpose="versus")
