import random

import pytest

from storage import annotators, comparisons, judgments, presentations, queue
from storage.database import StoreError


def test_oldest_first_until_nothing_is_left(world):
    one, two = world.comparisons(2)
    assert world.rank(world.ann).comparison_id == one
    assert world.rank(world.ann).comparison_id == two
    assert world.next(world.ann) is None


def test_an_empty_store_has_nothing_and_a_stranger_gets_told(world):
    assert queue.next_presentation(world.store, world.ann.id) is None
    with pytest.raises(StoreError, match="no annotator 99"):
        queue.next_presentation(world.store, 99)


def test_one_ranking_by_anybody_is_enough(world):
    one, two = world.comparisons(2)
    world.rank(world.ann)
    assert world.next(world.bob) == two
    judgments.undo(world.store, world.ann.id)
    # Bob goes on with what is on his page; a newcomer gets the one that is open again.
    assert world.next(world.bob) == two
    assert world.next(annotators.ensure(world.store, "Cy")) == one


def test_a_rule_s_ranking_does_not_take_it_from_people(world):
    one = world.comparison()
    world.rule_ranks(one)
    assert world.next(world.ann) == one
    assert queue.depth(world.store) == 1


def test_skipped_ones_go_to_others_last_and_never_back_to_the_skipper(world):
    one, two, three = world.comparisons(3)
    assert world.skip(world.ann).comparison_id == one
    assert [world.rank(world.bob).comparison_id for _ in range(3)] == [two, three, one]
    assert world.next(world.ann) is None


def test_how_often_it_was_skipped_does_not_matter(world):
    one, two = world.comparisons(2)
    world.skip(world.ann)
    world.skip(world.ann)
    world.skip(world.bob)
    skips = world.store.rows("SELECT id, human_skips FROM comparisons ORDER BY id")
    assert [tuple(row) for row in skips] == [(one, 2), (two, 1)]
    assert world.next(annotators.ensure(world.store, "Cy")) == one


def test_a_reload_shows_the_same_presentation(world):
    world.comparison(9)
    first = queue.next_presentation(world.store, world.ann.id)
    assert queue.next_presentation(world.store, world.ann.id) == first
    assert world.store.value("SELECT count(*) FROM presentations") == 1
    assert presentations.get(world.store, first[1].id) == first[1]


def test_a_reload_moves_on_when_somebody_else_ranked_it_meanwhile(world):
    one, two = world.comparisons(2)
    assert world.next(world.ann) == one
    assert world.rank(world.bob).comparison_id == one
    assert world.next(world.ann) == two


def test_what_was_shown_can_still_be_judged_after_somebody_else_did(world):
    one = world.comparison()
    _, shown = queue.next_presentation(world.store, world.ann.id)
    world.rank(world.bob)
    judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=tuple((item,) for item in shown.order))
    assert world.store.value("SELECT human_ranks FROM comparisons WHERE id = ?", [one]) == 2


def test_slots_are_shuffled_for_each_annotator(world):
    one = world.comparison(9)
    made_in = [completion.id for completion in comparisons.get(world.store, one).completions]
    expected = list(made_in)
    random.Random(3).shuffle(expected)
    _, shown = queue.next_presentation(world.store, world.ann.id, random.Random(3))
    assert list(shown.order) == expected
    _, other = queue.next_presentation(world.store, world.bob.id, random.Random(4))
    assert sorted(other.order) == made_in
    assert other.order != shown.order


def test_slot_a_holds_each_completion_about_equally_often(world):
    comparison = comparisons.get(world.store, world.comparison(2))
    rng = random.Random(0)
    with world.store.atomic():
        firsts = [presentations.record(world.store, comparison, world.ann.id, rng).order[0] for _ in range(400)]
    # 200 expected, standard deviation 10.
    assert 160 < firsts.count(comparison.completions[0].id) < 240


def test_an_undone_comparison_comes_back_first_in_the_same_order(world):
    world.comparisons(3)
    _, shown = queue.next_presentation(world.store, world.ann.id)
    world.rank(world.ann)
    queue.next_presentation(world.store, world.ann.id)
    judgments.undo(world.store, world.ann.id)
    assert queue.next_presentation(world.store, world.ann.id)[1] == shown


def test_two_undos_come_back_last_undone_first_and_then_the_open_page(world):
    one, two, three = world.comparisons(3)
    world.rank(world.ann)
    world.skip(world.ann)
    assert world.next(world.ann) == three
    assert judgments.undo(world.store, world.ann.id).comparison_id == two
    assert judgments.undo(world.store, world.ann.id).comparison_id == one
    assert [world.rank(world.ann).comparison_id for _ in range(3)] == [one, two, three]


def test_an_undone_comparison_comes_back_even_if_somebody_else_ranked_it_too(world):
    one, _ = world.comparisons(2)
    world.next(world.bob)
    world.rank(world.ann)
    shown = world.store.value("SELECT id FROM presentations WHERE annotator_id = ?", [world.bob.id])
    order = presentations.get(world.store, shown).order
    judgments.save(world.store, shown, world.bob.id, verdict="rank", tiers=(order,))
    judgments.undo(world.store, world.ann.id)
    assert world.next(world.ann) == one


def test_depth_counts_what_no_person_touched(world):
    assert queue.depth(world.store) == 0
    world.comparisons(3)
    assert queue.depth(world.store) == 3
    world.rank(world.ann)
    assert queue.depth(world.store) == 2
    world.skip(world.ann)
    assert queue.depth(world.store) == 1
    judgments.undo(world.store, world.ann.id)
    assert queue.depth(world.store) == 2


@pytest.mark.parametrize("name", ["UNANSWERED", "OLDEST_OPEN", "DEPTH"])
def test_asks_indexes_only_and_sorts_nothing(store, name):
    plan = [row["detail"] for row in store.rows(f"EXPLAIN QUERY PLAN {getattr(queue, name)}", {"annotator": 1})]
    assert any("_unanswered" in step or "_unranked" in step for step in plan)
    assert [step for step in plan if "TEMP B-TREE" in step or ("SCAN" in step and "USING INDEX" not in step)] == []
