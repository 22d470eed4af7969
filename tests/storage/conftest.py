"""A small store with annotators, and methods for what they do."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from storage.content import comparisons, completions, policies, prompts
from storage.content.prompts import NewPrompt
from storage.core import database
from storage.core.database import Database
from storage.core.records import Annotator, Judgment, PolicyVersion, Sampling
from storage.judging import judgments, queue
from storage.people import annotators


@dataclass
class World:
    store: Database
    policy: PolicyVersion
    ann: Annotator
    bob: Annotator
    rule: Annotator

    def prompt(self, text: str = "Why is the sky blue?", kind: str = "explain", split: str = "train") -> int:
        messages = [{"role": "user", "content": text}]
        prompts.add(self.store, [NewPrompt(messages, kind, split)], source="test")
        return self.store.value("SELECT id FROM prompts WHERE digest = ?", [prompts.digest(messages)])

    def completion(self, prompt_id: int, text: str = "Because.") -> int:
        return completions.add(
            self.store,
            prompt_id=prompt_id,
            policy_version_id=self.policy.id,
            text=text,
            sampling=Sampling(temperature=0.7, max_new_tokens=48),
            seed=11,
            finish_reason="stop",
            latency_s=1.5,
        )

    def comparison(self, size: int = 2, prompt_id: int | None = None) -> int:
        prompt_id = prompt_id or self.prompt()
        ids = [self.completion(prompt_id, f"Answer {n}") for n in range(size)]
        return comparisons.add(self.store, prompt_id, ids, purpose="collect")

    def comparisons(self, number: int) -> list[int]:
        return [self.comparison() for _ in range(number)]

    def next(self, annotator: Annotator) -> int | None:
        shown = queue.next_presentation(self.store, annotator.id)
        return None if shown is None else shown[0].id

    def rank(self, annotator: Annotator) -> Judgment | None:
        """Ranks the next comparison in the order of its slots, the first one best."""
        shown = queue.next_presentation(self.store, annotator.id)
        if shown is None:
            return None
        tiers = tuple((completion_id,) for completion_id in shown[1].order)
        return judgments.save(self.store, shown[1].id, annotator.id, verdict="rank", tiers=tiers)

    def skip(self, annotator: Annotator) -> Judgment | None:
        shown = queue.next_presentation(self.store, annotator.id)
        if shown is None:
            return None
        return judgments.save(self.store, shown[1].id, annotator.id, verdict="skip", skip_reason="not sure")

    def rule_ranks(self, comparison_id: int) -> int:
        ids = [completion.id for completion in comparisons.get(self.store, comparison_id).completions]
        return judgments.add_simulated(self.store, comparison_id, self.rule.id, tiers=tuple((item,) for item in ids))


def make_world(store: Database) -> World:
    return World(
        store,
        policies.ensure_base(store, "hub/tiny"),
        annotators.ensure(store, "Ann"),
        annotators.ensure(store, "Bob"),
        annotators.ensure(store, "longest", "simulated", "length"),
    )


@pytest.fixture
def world(store):
    return make_world(store)


@pytest.fixture
def new_world():
    """Makes worlds, for tests that need more than one store."""
    return make_world


@pytest.fixture
def distinct_times(monkeypatch):
    """Each moment that the store records is at least a millisecond after the one before. Acts of one millisecond have no order."""

    class Times(datetime):
        last = datetime.now().astimezone()

        @classmethod
        def now(cls, tz=None):
            cls.last = max(datetime.now(tz), cls.last + timedelta(milliseconds=1))
            return cls.last

    monkeypatch.setattr(database, "datetime", Times)
