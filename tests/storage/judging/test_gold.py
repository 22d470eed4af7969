"""Known answers: what they must be, that they leave the queue, and who judged them rightly."""

import random
from dataclasses import replace

import pytest

from storage.core.database import StoreError
from storage.judging import exclusions, gold, judgments, queue
from storage.project import settings


def waiting(store):
    return [row["comparison_id"] for row in store.rows("SELECT comparison_id FROM queue ORDER BY position")]


def show_gold(world, annotator):
    """Gold for sure: half of what is shown, by a draw that falls into that half."""
    settings.change(world.store, replace(settings.current(world.store), gold_share=0.5), by=None)
    world.comparison()  # Without anything else left, gold is not shown.
    draws = random.Random(0)
    draws.random = lambda: 0.0
    return queue.next_presentation(world.store, annotator.id, draws)[1]


def judge(world, annotator, shown, *tiers):
    return judgments.save(world.store, shown.id, annotator.id, verdict="rank", tiers=tiers)


def test_a_comparison_with_a_gold_answer_leaves_the_queue(world):
    one, two = world.comparisons(2)
    assert gold.answer(world.store, one) is None
    gold.set_answer(world.store, one, ((2,), (1,)), by=world.bob.id, note=" A is wrong. ")
    assert gold.answer(world.store, one) == ((2,), (1,))
    assert waiting(world.store) == [two]
    row = world.store.row("SELECT by_id, note FROM gold_answers")
    assert tuple(row) == (world.bob.id, "A is wrong.")


def test_a_second_answer_corrects_the_first_which_stays(world):
    one, two = world.comparison(3), world.comparison()
    gold.set_answer(world.store, one, ((1,), (2, 3)), by=None)
    gold.set_answer(world.store, two, ((4,), (5,)), by=None)
    gold.set_answer(world.store, one, ((2,), (3,), (1,)), by=None)
    assert gold.answer(world.store, one) == ((2,), (3,), (1,))
    assert gold.answers(world.store) == {one: ((2,), (3,), (1,)), two: ((4,), (5,))}
    assert world.store.value("SELECT count(*) FROM gold_answers") == 3


@pytest.mark.parametrize(
    ("tiers", "why"),
    [
        (((1,), (2,)), "The gold answer of comparison 1 must rank each of its 3 completions once"),
        (((1,), (2,), (3,), (4,)), "must rank each of its 3 completions once"),
        (((1,), (2,), (3, 1)), "must rank each of its 3 completions once"),
        ((), "must rank each of its 3 completions once"),
        (((1, 2, 3),), "ties all completions measures nothing: put one completion first"),
        (((1, 2, 3), ()), "A tier of the gold answer is empty: leave it out"),
        (((1,), (), (2, 3)), "A tier of the gold answer is empty: leave it out"),
    ],
)
def test_an_invalid_gold_answer_is_refused(world, tiers, why):
    one = world.comparison(3)
    with pytest.raises(StoreError, match=why):
        gold.set_answer(world.store, one, tiers, by=None)
    assert (gold.answers(world.store), waiting(world.store)) == ({}, [one])


def test_a_comparison_that_is_not_there_is_told(world):
    with pytest.raises(StoreError, match="There is no comparison 9 .*: reload the page"):
        gold.set_answer(world.store, 9, ((1,), (2,)), by=None)


def test_votes_from_before_it_was_gold_go_on_counting_and_their_end_does_not_open_it(world):
    one = world.comparison()
    vote = world.rank(world.ann)
    gold.set_answer(world.store, one, ((1,), (2,)), by=None)
    assert [item.judgment.id for item in judgments.active(world.store)] == [vote.id]
    exclusions.exclude(world.store, [vote.id], rule="too fast", reason="0.2 s", by=None)
    assert waiting(world.store) == []


def test_a_lease_from_before_it_was_gold_may_be_judged_and_may_expire(world):
    one, two = world.comparisons(2)
    assert (world.next(world.ann), world.next(world.bob)) == (one, two)
    gold.set_answer(world.store, one, ((1,), (2,)), by=None)
    gold.set_answer(world.store, two, ((3,), (4,)), by=None)
    assert world.rank(world.ann).counts
    world.store.connection.conn.execute("UPDATE leases SET expires_at = '2000-01-01' WHERE ended_at IS NULL")
    queue.expire_leases(world.store, settings.current(world.store))
    assert waiting(world.store) == []
    assert [tuple(row) for row in world.store.rows("SELECT human_ranks, leased FROM comparisons")] == [(1, 0), (0, 0)]


def test_results_count_correct_judgments_and_first_failure_has_its_time(world):
    one = world.comparison(3)
    world.comparison()
    gold.set_answer(world.store, one, ((1,), (2, 3)), by=None)
    assert gold.results(world.store) == {}
    right = judge(world, world.ann, show_gold(world, world.ann), (1,), (3,), (2,))
    wrong = judge(world, world.bob, show_gold(world, world.bob), (1, 2), (3,))
    assert (right.purpose, wrong.purpose) == ("gold", "gold")
    assert gold.results(world.store) == {one: (2, 1)}
    assert gold.first_failure(world.store, world.ann.id) is None
    assert gold.first_failure(world.store, world.bob.id) == wrong.created_at
    judgments.correct(world.store, wrong.id, world.bob.id, verdict="rank", tiers=((1,), (2,), (3,)))
    assert gold.results(world.store) == {one: (2, 2)}
    assert gold.first_failure(world.store, world.bob.id) is None


def test_a_corrected_answer_judges_anew_who_judged_before(world):
    one = world.comparison()
    gold.set_answer(world.store, one, ((1,), (2,)), by=None)
    judged = judge(world, world.ann, show_gold(world, world.ann), (1,), (2,))
    gold.set_answer(world.store, one, ((2,), (1,)), by=None)
    assert gold.results(world.store) == {one: (1, 0)}
    assert gold.first_failure(world.store, world.ann.id) == judged.created_at


@pytest.mark.parametrize(
    ("ranking", "known", "right"),
    [
        (((1,), (2,)), ((1,), (2,)), True),
        (((2,), (1,)), ((1,), (2,)), False),
        (((1, 2),), ((1,), (2,)), False),
        (((1,), (3,), (2,)), ((1,), (2, 3)), True),
        (((1,), (2,), (3,)), ((1, 2), (3,)), True),
        (((1, 3), (2,)), ((1,), (2, 3)), False),
        (((2,), (1,), (3,)), ((1,), (2,), (3,)), False),
        (((1,), (2,)), ((1,), (2,), (3,)), False),
        ((), ((1,), (2,)), False),
    ],
)
def test_a_ranking_is_correct_if_it_keeps_every_pair_of_the_gold_answer(ranking, known, right):
    assert gold.is_right(ranking, known) is right
