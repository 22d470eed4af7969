"""A batch that is given to some annotators comes to nobody else, and what nobody has judged comes to whom it is given next."""

import pytest

from storage.content import batches, comparisons
from storage.core.database import StoreError
from storage.core.records import Sampling
from storage.judging import assignments, gold, judgments, presentations, queue


@pytest.fixture
def given(world):
    """Puts comparisons of a batch into the queue, for these annotators."""

    def put(*annotators, count=1, priority=0):
        batch = batches.request(
            world.store, [world.policy.id], completions=2, sampling=Sampling(), count=count, priority=priority, wanted=2,
            annotator_ids=[annotator.id for annotator in annotators], by=None,
        )  # fmt: skip
        prompt_id = world.prompt()
        ids = [
            comparisons.add(
                world.store, prompt_id, [world.completion(prompt_id, f"{batch.id} {i} {n}") for n in range(2)], purpose="batch",
                priority=priority, wanted=2, batch_id=batch.id,
            )
            for i in range(count)
        ]  # fmt: skip
        return batch, ids

    return put


def test_others_do_not_get_it(world, given):
    _, (for_ann,) = given(world.ann)
    _, (for_all,) = given()
    assert world.next(world.bob) == for_all
    assert world.next(world.ann) == for_ann


def test_others_are_out_of_work_when_nothing_else_is_left(world, given):
    given(world.ann, count=3, priority=1)
    assert world.next(world.bob) is None
    assert queue.least_waiting(world.store, at_most=9) == 0, "Bob is active: new comparisons are written for him"
    assert world.next(world.ann) is not None


def test_what_is_given_away_later_comes_to_its_new_annotators(world, given):
    batch, ids = given(world.ann, count=2)
    assert world.next(world.bob) is None
    assert world.rank(world.ann).comparison_id == ids[0]
    given_on = assignments.assign(world.store, batch.id, [world.bob.id], by=world.ann.id)
    assert given_on.annotator_ids == (world.bob.id,)
    assert [world.rank(world.bob).comparison_id for _ in ids] == [ids[0], ids[1]]
    assert world.next(world.ann) is None
    # To everybody.
    assert assignments.assign(world.store, batch.id, [], by=None).annotator_ids == ()
    assert world.next(world.ann) == ids[1]


def test_who_has_it_open_keeps_it(world, given):
    batch, (only,) = given(world.ann)
    comparison, shown = queue.next_presentation(world.store, world.ann.id)
    assignments.assign(world.store, batch.id, [world.bob.id], by=None)
    assert queue.next_presentation(world.store, world.ann.id)[0].id == only
    tiers = tuple((completion.id,) for completion in comparison.completions)
    assert judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=tiers).counts


def test_a_gold_comparison_of_a_batch_comes_to_its_annotators_alone(world, given):
    _, (one,) = given(world.ann)
    gold.set_answer(world.store, one, tuple((c.id,) for c in comparisons.get(world.store, one).completions), by=None)
    seen = {a.name: queue._ids(world.store, queue.UNSEEN_GOLD, annotator=a.id, among=9) for a in (world.ann, world.bob)}
    assert seen == {"Ann": [one], "Bob": []}


def test_what_an_annotator_is_shown_does_not_tell_that_it_was_assigned(world, given):
    given(world.ann)
    given()
    shown = [queue.next_presentation(world.store, annotator.id) for annotator in (world.ann, world.bob)]
    assert {(comparison.purpose, presentation.purpose) for comparison, presentation in shown} == {("batch", "vote")}
    assert {presentations.existing(world.store, presentation.id).purpose for _, presentation in shown} == {"vote"}


def test_an_assignment_is_an_act_and_the_same_again_is_none(world, given):
    batch, _ = given(world.ann)
    assignments.assign(world.store, batch.id, [world.ann.id], by=None)
    assert world.store.value("SELECT count(*) FROM batch_assignments") == 1
    with pytest.raises(StoreError, match="no person of this store|no person: reload"):
        assignments.assign(world.store, batch.id, [world.rule.id], by=None)
    with pytest.raises(StoreError, match="There is no batch 99"):
        assignments.assign(world.store, 99, [], by=None)
    assert batches.get(world.store, batch.id).annotator_ids == (world.ann.id,)
