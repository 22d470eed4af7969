"""Comparisons that a lead asks for and the policy server writes."""

import pytest

from storage.content import batches, comparisons, policies
from storage.core.database import StoreError
from storage.core.records import PromptFilter, Sampling

COLD = Sampling(temperature=0.2, top_p=0.9, top_k=40, max_new_tokens=128)


def ask(world, policy_ids=None, **values):
    arguments = {"completions": 2, "sampling": COLD, "count": 5, "by": world.bob.id} | values
    return batches.request(world.store, [world.policy.id] if policy_ids is None else policy_ids, **arguments)


def test_a_batch_is_stored_as_requested(world):
    other = policies.ensure_external(world.store, "gpt")
    batch = ask(world, [other.id, world.policy.id, other.id], completions=3, count=7, priority=2)
    assert (batch.policy_ids, batch.completions, batch.requested, batch.generated) == ((other.id, world.policy.id), 3, 7, 0)
    assert (batch.sampling, batch.priority, batch.by_id, batch.cancelled_at) == (COLD, 2, world.bob.id, None)
    assert batches.get(world.store, batch.id) == batch
    assert batches.all_batches(world.store) == [batch]


def test_a_batch_keeps_its_prompts_its_judgments_and_its_annotators(world):
    chosen = PromptFilter("bell", "bikes", "train", 4)
    batch = ask(world, prompts=chosen, wanted=3, annotator_ids=[world.bob.id, world.ann.id, world.bob.id])
    assert (batch.prompts, batch.wanted, batch.annotator_ids) == (chosen, 3, (world.ann.id, world.bob.id))
    assert batches.unfinished(world.store) == [batch] == batches.all_batches(world.store)
    plain = ask(world)
    assert (plain.prompts, plain.wanted, plain.annotator_ids) == (PromptFilter(), None, ())


@pytest.mark.parametrize("broken", ['{"kind": 3}', '{"colour": "red"}', "[]", "{"])
def test_a_batch_whose_prompts_cannot_be_read_is_left_out(world, broken):
    batch, good = ask(world), ask(world)
    world.store.connection.conn.executescript("DROP TRIGGER batches_are_not_changed")
    world.store.connection.conn.execute("UPDATE batches SET prompts = ? WHERE id = ?", [broken, batch.id])
    assert batches.unfinished(world.store) == [good]


def test_comparisons_on_held_out_prompts_are_counted(world):
    batch = ask(world)
    for split, text in (("heldout", "H"), ("train", "T"), ("heldout", "H")):
        prompt_id = world.prompt(f"{text}?", split=split)
        ids = [world.completion(prompt_id, f"{text} {n}") for n in range(2)]
        comparisons.add(world.store, prompt_id, ids, purpose="batch", batch_id=batch.id)
    assert batches.count_heldout(world.store, batch.id) == 2


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"policy_ids": []}, "Choose at least one policy version to answer"),
        ({"policy_ids": [1, 99]}, "One of the policy versions is not in the store: reload the page"),
        ({"policy_ids": [1, 2, 3]}, "3 policy versions cannot share 2 answers: ask for more answers, or fewer versions"),
        ({"completions": 1}, "A comparison holds 2 to 9 answers, not 1"),
        ({"completions": 10}, "A comparison holds 2 to 9 answers, not 10"),
        ({"count": 0}, "Ask for 1 to 100,000 comparisons, not 0"),
        ({"count": 100_001}, "Ask for 1 to 100,000 comparisons, not 100001"),
        ({"by": 99}, "batches: FOREIGN KEY constraint failed"),
        ({"wanted": 0}, "A comparison needs 1 to 20 judgments, not 0"),
        ({"wanted": 21}, "A comparison needs 1 to 20 judgments, not 21"),
        ({"annotator_ids": [1, 99]}, "One of the annotators is not in the store, or is no person"),
        # The rule.
        ({"annotator_ids": [3]}, "One of the annotators is not in the store, or is no person"),
    ],
)
def test_an_invalid_batch_is_refused_with_its_cause(world, values, why):
    with pytest.raises(StoreError, match=why):
        ask(world, **values)
    assert batches.all_batches(world.store) == []


@pytest.mark.parametrize("values", [{"completions": 2, "count": 1}, {"completions": 9, "count": 100_000}])
def test_the_ends_of_each_range_are_in_it(world, values):
    assert ask(world, **values).requested == values["count"]


def test_the_most_urgent_is_first_and_then_the_oldest(world):
    old, urgent, late = ask(world), ask(world, priority=1), ask(world)
    patient = ask(world, priority=-1)
    assert [batch.id for batch in batches.unfinished(world.store)] == [urgent.id, old.id, late.id, patient.id]
    assert [batch.id for batch in batches.all_batches(world.store)] == [patient.id, late.id, urgent.id, old.id]


def test_a_batch_is_finished_when_all_is_generated(world):
    batch = ask(world, count=3)
    batches.add_generated(world.store, batch.id, 2)
    assert [(item.generated, item.requested) for item in batches.unfinished(world.store)] == [(2, 3)]
    batches.add_generated(world.store, batch.id, 1)
    assert batches.unfinished(world.store) == []
    assert batches.get(world.store, batch.id).generated == 3


def test_the_generated_count_is_in_the_transaction_of_the_comparisons(world):
    batch = ask(world)
    with pytest.raises(ZeroDivisionError), world.store.atomic():
        batches.add_generated(world.store, batch.id, 1)
        _ = 1 / 0
    assert batches.get(world.store, batch.id).generated == 0


def test_cancelling_is_recorded_once_with_the_person(world):
    batch, done = ask(world), ask(world, count=1)
    batches.add_generated(world.store, batch.id, 2)
    batches.add_generated(world.store, done.id, 1)
    batches.cancel(world.store, batch.id, by=world.ann.id)
    first = batches.get(world.store, batch.id)
    assert (first.generated, first.cancelled_at is not None) == (2, True)
    assert batches.unfinished(world.store) == []
    batches.cancel(world.store, batch.id, by=world.bob.id)
    assert batches.get(world.store, batch.id) == first
    assert world.store.value("SELECT cancelled_by_id FROM batches WHERE id = ?", [batch.id]) == world.ann.id
    batches.cancel(world.store, done.id)
    assert batches.get(world.store, done.id).cancelled_at is None


def test_a_missing_batch_is_an_error(world):
    with pytest.raises(StoreError, match="There is no batch 9: reload the page"):
        batches.get(world.store, 9)
