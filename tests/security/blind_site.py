"""The whole app over HTTP, as annotators meet it, above a store whose every id is conspicuous."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import argon2
import httpx2
import pytest

from feedback_ui.app import build_app
from feedback_ui.server.auth import Auth
from feedback_ui.server.serving import Serving
from feedback_ui.server.web import Web
from rlhf.config import RoundConfig
from rlhf.serving.client import PolicyServerDown, ServerStatus
from storage.content import comparisons, completions, policies, prompts
from storage.core.database import Database, now
from storage.core.records import PolicyVersion, ProjectSettings, Sampling
from storage.judging import gold, queue
from storage.people import accounts
from storage.project import rounds, runs, settings

PASSWORD = "correct horse"

FIRST_IDS = {
    table: 73_510_000 + 1000 * n
    for n, table in enumerate((
        "prompts", "policy_versions", "completions", "comparisons", "annotators", "presentations", "leases", "judgments", "guidelines",
        "exclusions", "imports",
    ), 1)
}  # fmt: skip
"""Where the ids of each table begin: numbers that nothing else in a reply has."""

SECRET_ID = re.compile(r"7351\d{4}|7352[01]\d{3}")

BASE, TUNED = "Zarquon-base", "Vogsphere-tuned"
"""Names of policy versions that no annotator may be told."""


class IdleServer:
    """A policy server that writes nothing now."""

    def models(self) -> list[str]:
        raise PolicyServerDown("no models here")

    def status(self) -> ServerStatus:
        return ServerStatus(ready=True, filling=False, seconds_per_comparison=None, note="")


class NoJobs:
    def start(self, config, by=None):
        raise PolicyServerDown("no rounds here")

    cancel = resume = start

    def log_tail(self, run_id, lines=40):
        return ""


class Draw(random.Random):
    """Draws whatever has a share at all: the first of gold, repeat and line that is offered."""

    def random(self) -> float:
        return 0.0


class BlindSite:
    """One served app; an annotator is a name."""

    def __init__(self, store: Database, web: Web, serving: Serving):
        self.store, self.serving = store, serving
        self._functions = {
            name: block._id
            for block in web.pages.blocks.values()
            for name in ("next_comparison", "judge", "undo", "renew", "past_judgments", "past_judgment", "correct")
            if getattr(getattr(block, name, None), "_is_server_fn", False) is True
        }
        self.events = {event.fn.__qualname__: event for event in web.pages.fns.values() if event.fn is not None}
        self._gate = web.auth
        self._clients: dict[str, httpx2.Client] = {}
        self.ids: dict[str, int] = {}

    def join(self, name: str, *roles: str) -> int:
        account = accounts.create(self.store, name, PASSWORD, roles or ["annotator"])
        cookie = f"{self._gate.cookie}={accounts.sign_in(self.store, name, PASSWORD)}"
        self._clients[name] = httpx2.Client(base_url=self.serving.url, headers={"cookie": cookie}, timeout=30)
        self.ids[name] = account.annotator.id
        return account.annotator.id

    def client(self, name: str) -> httpx2.Client:
        return self._clients[name]

    def send(self, name: str, function: str, data: Any, language: str = "en") -> httpx2.Response:
        """Calls a server function as the page does."""
        asked = {"data": data, "component_id": self._functions[function], "fn_name": function, "session_hash": "s"}
        headers = {"accept-language": language, "content-type": "application/json"}
        # In ASCII: half a character goes over the wire, too.
        return self._clients[name].post("/gradio_api/component_server", content=json.dumps(asked), headers=headers)

    def call(self, name: str, function: str, data: Any = None) -> Any:
        reply = self.send(name, function, {} if data is None else data)
        assert reply.status_code == 200, (function, data, reply.status_code, reply.text)
        return reply.json()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self.serving.stop()
        self.store.close()

    # ---- what is in its store

    def policies(self) -> tuple[PolicyVersion, PolicyVersion]:
        """The base and a tuned version."""
        known = {version.name for version in policies.all_versions(self.store)}
        for name in (BASE, TUNED):
            if name not in known:
                row = {"name": name, "kind": "external", "base_model": name, "created_at": now()}
                self.store.insert("policy_versions", row)
        return policies.by_name(self.store, BASE), policies.by_name(self.store, TUNED)

    def put(self, question: str, answers: Sequence[str] = ("This one.", "That one.")) -> int:
        """A comparison that waits; its id."""
        prompts.add(self.store, [prompts.NewPrompt(({"role": "user", "content": question},), split="train")], source="test")
        prompt = next(p for p in prompts.of_split(self.store) if p.text == question)
        ids = [
            completions.add(
                self.store, prompt_id=prompt.id, policy_version_id=policy.id, text=text, sampling=Sampling(), seed=0,
                finish_reason="stop", latency_s=0.1,
            )
            for policy, text in zip(self.policies() * 5, answers, strict=False)
        ]  # fmt: skip
        return comparisons.add(self.store, prompt.id, ids, purpose="versus")

    def put_deciding(self, question: str) -> int:
        """A comparison that waits, and helps to decide a round; its id."""
        base, tuned = self.policies()
        if (found := rounds.of_run(self.store, "round-9")) is None:
            runs.create(self.store, "round-9", config={}, seed=1, versions={})
            found = rounds.create(self.store, "round-9", trigger="hand", judges="people", baseline=base)
            policies.register_tuned(self.store, name=f"{TUNED}-9", base_model=BASE, adapter_path="runs/round-9/policy", run_id="round-9")
            runs.finish(self.store, "round-9", "done")
            rounds.set_guards(self.store, found.id, "passed")
        prompts.add(self.store, [prompts.NewPrompt(({"role": "user", "content": question},), split="heldout")], source="test")
        prompt = next(p for p in prompts.of_split(self.store) if p.text == question)
        ids = [
            completions.add(
                self.store, prompt_id=prompt.id, policy_version_id=policy.id, text=text, sampling=Sampling(), seed=0,
                finish_reason="stop", latency_s=0.1,
            )
            for policy, text in ((base, "This one."), (tuned, "That one."))
        ]  # fmt: skip
        return comparisons.add(self.store, prompt.id, ids, purpose="decide", round_id=found.id)

    def decide(self) -> None:
        """A person decides the round."""
        found = rounds.of_run(self.store, "round-9")
        rounds.decide(self.store, found.version, "rejected", decided_by="person", reason="It rambles.")

    def put_first(self, comparison_id: int) -> None:
        """The comparison that waits in front, and this one, change places in the queue."""
        with self.store.atomic() as connection:
            rows = self.store.rows("SELECT position, comparison_id FROM queue ORDER BY position").fetchall()
            places = {row["comparison_id"]: row["position"] for row in rows}
            first = rows[0]["comparison_id"]
            connection.conn.execute("DELETE FROM queue WHERE comparison_id IN (?, ?)", [first, comparison_id])
            for place, which in ((places[first], comparison_id), (places[comparison_id], first)):
                connection.conn.execute("INSERT OR REPLACE INTO queue (position, comparison_id, priority) VALUES (?, ?, 0)", [place, which])

    def make_gold(self, comparison_id: int) -> None:
        shown = [completion.id for completion in comparisons.get(self.store, comparison_id).completions]
        gold.set_answer(self.store, comparison_id, tuple((i,) for i in shown), None)

    def lease(self, name: str, purpose: str) -> int:
        """Gives an annotator a comparison of that purpose, as the queue does when its share comes up; its presentation's id."""
        if purpose == "decide":
            self.put_first(self.store.value("SELECT max(id) FROM comparisons WHERE round_id IS NOT NULL"))
        share = {"vote": {}, "decide": {}, "gold": {"gold_share": 0.5}, "repeat": {"repeat_share": 0.5}}[purpose]
        settings.change(self.store, ProjectSettings(**share), None)
        _, shown = queue.next_presentation(self.store, self.ids[name], Draw())
        settings.change(self.store, ProjectSettings(), None)
        assert shown.purpose == ("vote" if purpose == "decide" else purpose)
        decides = self.store.value("SELECT round_id IS NOT NULL FROM comparisons WHERE id = ?", [shown.comparison_id])
        assert bool(decides) == (purpose == "decide")
        return shown.id

    def lapse(self) -> None:
        """Every lease that runs is over."""
        with self.store.atomic() as connection:
            connection.conn.execute("UPDATE leases SET expires_at = '2000-01-01T00:00:00.000+00:00' WHERE ended_at IS NULL")

    def tuned_first(self, name: str) -> bool:
        """Whether the first answer that this annotator has before them is the tuned version's."""
        slots = self.store.value(
            "SELECT p.slots FROM leases l JOIN presentations p ON p.id = l.presentation_id "
            "WHERE l.annotator_id = ? AND l.ended_at IS NULL ORDER BY l.id DESC LIMIT 1",
            [self.ids[name]],
        )
        first = int(slots.strip("[]").split(",")[0])
        return self.store.value("SELECT policy_version_id FROM completions WHERE id = ?", [first]) == self.policies()[1].id

    def decides(self, name: str) -> bool:
        """Whether the comparison that this annotator has before them helps to decide a round."""
        return bool(
            self.store.value(
                "SELECT c.round_id IS NOT NULL FROM leases l JOIN comparisons c ON c.id = l.comparison_id "
                "WHERE l.annotator_id = ? AND l.ended_at IS NULL ORDER BY l.id DESC LIMIT 1",
                [self.ids[name]],
            )
        )


def conspicuous(store: Database) -> None:
    """One row with a high id in each table: whatever is added later gets a higher one."""
    at, first = now(), FIRST_IDS
    rows = {
        "prompts": {"messages": "[]", "kind": "x", "split": "train", "source": "x", "digest": "x", "retired": 1, "created_at": at},
        "policy_versions": {"name": "unused", "kind": "external", "base_model": "x", "created_at": at},
        "completions": {
            "prompt_id": first["prompts"], "policy_version_id": first["policy_versions"], "text": "x", "sampling": "{}",
            "finish_reason": "x", "latency_s": 0, "created_at": at,
        },
        "comparisons": {"prompt_id": first["prompts"], "purpose": "x", "retired": 1, "wanted": 0, "created_at": at},
        "annotators": {"name": "unused", "kind": "human", "created_at": at},
        "presentations": {
            "comparison_id": first["comparisons"], "annotator_id": first["annotators"], "slots": "[]", "created_at": at,
        },
        "leases": {
            "presentation_id": first["presentations"], "comparison_id": first["comparisons"], "annotator_id": first["annotators"],
            "selection": "queue", "propensity": 1, "created_at": at, "expires_at": at, "ended_at": at, "outcome": "expired",
        },
        "judgments": {
            "comparison_id": first["comparisons"], "annotator_id": first["annotators"], "verdict": "skip", "skip_reason": "x",
            "created_at": at,
        },
        "guidelines": {"text": "x", "created_at": at},
        "exclusions": {"rule": "x", "reason": "x", "created_at": at},
        "imports": {"format": "x", "source": "x", "report": "{}", "created_at": at},
    }  # fmt: skip
    for table, row in rows.items():
        store.insert(table, row | {"id": first[table]})


@contextmanager
def blind_site(path: Path) -> Iterator[BlindSite]:
    store = Database(path)
    conspicuous(store)

    # In a loop that runs: Gradio opens one and never closes it where there is none.
    async def made() -> Web:
        auth = Auth(store)
        return Web(build_app(store, NoJobs(), IdleServer(), auth, default_config=RoundConfig()), auth)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        web = asyncio.run(made())
        site = BlindSite(store, web, Serving(web, "127.0.0.1", 0))
        try:
            # The first account must be a lead's.
            site.join("Lea", "lead")
            yield site
        finally:
            site.close()
