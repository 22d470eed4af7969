"""What a batch would do is said beforehand, and is what it does."""

import pytest
from learning import user

from rlhf.serving.batch_plan import Outlook, assign_prompts_of, heldout_before, outlook, splits_next
from storage.content import batches, comparisons, completions, policies, prompts, refusals
from storage.core.records import ProjectSettings, PromptFilter, Sampling
from storage.project import settings


@pytest.fixture
def base(store):
    return policies.ensure_base(store, "m")


def add(store, *texts, kind="bikes", split="train"):
    prompts.add(store, [prompts.NewPrompt(user(text), kind, split) for text in texts], source="test")


def write(store, batch, assignments):
    """Stores the comparisons as if a model had answered."""
    for prompt, *versions in assignments:
        ids = [
            completions.add(
                store,
                prompt_id=prompt.id,
                policy_version_id=version.id,
                text=f"{n}",
                sampling={},
                seed=0,
                finish_reason="stop",
                latency_s=0.1,
            )
            for n, version in enumerate(versions)
        ]
        comparisons.add(store, prompt.id, ids, purpose="batch", batch_id=batch.id)
    batches.add_generated(store, batch.id, len(assignments))


def test_the_share_of_held_out_prompts_is_never_more_than_declared():
    # 15%: the first at the seventh, three of twenty.
    assert [heldout_before(n, 0.15) for n in (6, 7, 13, 14, 20)] == [0, 1, 1, 2, 3]
    assert splits_next(0, 0, 8, 0.15) == ["train"] * 6 + ["heldout", "train"]
    # One that was dropped is not made up for twice: the seventh measures already.
    assert splits_next(6, 1, 2, 0.15) == ["train", "train"]
    assert splits_next(0, 0, 4, 0.0) == ["train"] * 4


def test_a_batch_takes_its_own_prompts_and_says_so_before(store, base):
    settings.change(store, ProjectSettings(heldout_share=0.2), None)
    add(store, "church", kind="churches")
    add(store, "bell", "tyre", "lock")
    add(store, "chain", "pump", split="heldout")
    bikes = PromptFilter(kind="bikes")
    assert outlook(store, [base], bikes, 8) == Outlook(prompts=5, set_aside=0, teaching=7, measuring=1)
    batch = batches.request(store, [base.id], completions=2, sampling=Sampling(), count=8, prompts=bikes, by=None)
    taken = []
    for size in (1, 3, 4):
        assignments = assign_prompts_of(store, batches.get(store, batch.id), [(base, base)] * size, {})
        taken += [prompt for prompt, *_ in assignments]
        write(store, batch, assignments)
    assert [prompt.text for prompt in taken] == ["bell", "tyre", "lock", "bell", "chain", "tyre", "lock", "bell"]
    assert [prompt.split for prompt in taken].count("heldout") == 1


def test_a_batch_of_one_split_takes_that_alone(store, base):
    add(store, "bell")
    add(store, "chain", split="heldout")
    assert outlook(store, [base], PromptFilter(split="heldout"), 5) == Outlook(1, 0, 0, 5)
    assert outlook(store, [base], PromptFilter(split="train"), 5) == Outlook(1, 0, 5, 0)
    batch = batches.request(store, [base.id], completions=2, sampling=Sampling(), count=5, prompts=PromptFilter(split="heldout"), by=None)
    assignments = assign_prompts_of(store, batch, [(base, base)] * 5, {})
    assert [prompt.text for prompt, *_ in assignments] == ["chain"] * 5


def test_prompts_that_a_model_refused_are_counted_and_left_out(store, base):
    add(store, "bell", "tyre")
    refusals.add(store, 1, base, "too long")
    assert outlook(store, [base], PromptFilter(), 4) == Outlook(1, 1, 4, 0)
    refusals.add(store, 2, base, "too long")
    assert outlook(store, [base], PromptFilter(), 4) == Outlook(0, 2, 0, 0)
    assert outlook(store, [base], PromptFilter(kind="none"), 4) == Outlook(0, 0, 0, 0)
    batch = batches.request(store, [base.id], completions=2, sampling=Sampling(), count=4, by=None)
    assert assign_prompts_of(store, batch, [(base, base)], {}) == []
