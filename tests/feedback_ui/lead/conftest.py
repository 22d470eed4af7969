"""The Lead page, built once, over a store for each test."""

import asyncio
from types import SimpleNamespace

import gradio as gr
import pytest
from argon2 import PasswordHasher

from feedback_ui.lead import LeadPage
from feedback_ui.server.auth import Auth
from storage.content import comparisons, completions, policies, prompts
from storage.core.database import Database
from storage.core.records import Details, Sampling
from storage.judging import judgments, queue
from storage.people import accounts, annotators


@pytest.fixture
def auth(store):
    return Auth(store)


@pytest.fixture(scope="session")
def blocks(tmp_path_factory):
    """The page, built once, because building it takes longer than most tests."""

    async def made():
        store = Database(tmp_path_factory.mktemp("nobody's") / "rankloop.db")
        with gr.Blocks() as blocks:
            with gr.Tabs():
                with gr.Tab("Lead") as tab:
                    blocks.lead = LeadPage(store, None, Auth(store))
            blocks.lead.wire(tab)
        store.close()
        return blocks

    return asyncio.run(made())


@pytest.fixture
def app(blocks, store, server, auth, monkeypatch):
    """The page over this test's store."""
    sections = [section for parts in blocks.lead.sections.values() for section in parts]
    for owner in (blocks.lead, *sections):
        for name, mine in (("store", store), ("auth", auth), ("client", server)):
            if hasattr(owner, name):
                monkeypatch.setattr(owner, name, mine)
    # Hashing as slowly as for real would make these tests slow, and test nothing more.
    monkeypatch.setattr(accounts, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    return blocks


@pytest.fixture
def lead(app):
    return app.lead


@pytest.fixture
def part(lead):
    """The sections by their classes' names."""
    every = {type(section).__name__.removesuffix("Section").lower(): section for parts in lead.sections.values() for section in parts}
    return SimpleNamespace(**every)


@pytest.fixture
def people(store, local):
    return SimpleNamespace(local=local, ann=annotators.ensure(store, "Ann"), tom=annotators.ensure(store, "<b>Tom</b>"))


@pytest.fixture
def judge(store):
    """Judges the next presentation, by default with the comparison's first completion best; `order` gives another order."""

    def judged(annotator, order=(0, 1), **details):
        comparison, shown = queue.next_presentation(store, annotator.id)
        tiers = tuple((comparison.completions[place].id,) for place in order)
        return judgments.save(store, shown.id, annotator.id, verdict="rank", tiers=tiers, details=Details(**details))

    return judged


@pytest.fixture
def of_three(store):
    prompts.add(store, [prompts.NewPrompt(({"role": "user", "content": "Three?"},), split="train")], source="test")
    prompt, version = prompts.of_split(store)[0], policies.ensure_base(store, "m")
    ids = [
        completions.add(
            store, prompt_id=prompt.id, policy_version_id=version.id, text=f"answer <i>{i}</i>", sampling=Sampling(), seed=0,
            finish_reason="stop", latency_s=0.1,
        )
        for i in range(3)
    ]  # fmt: skip
    return comparisons.get(store, comparisons.add(store, prompt.id, ids, purpose="collect"))
