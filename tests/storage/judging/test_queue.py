"""Who judges what: the queue, leases, shares of gold and repeats. Times are set by hand, not waited for."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from storage.content import comparisons
from storage.core.database import StoreError
from storage.core.records import ProjectSettings
from storage.judging import exclusions, gold, judgments, presentations, queue
from storage.people import annotators
from storage.project import guidelines, settings


def lapse(store):
    """Lets every lease run out."""
    store.connection.conn.execute("UPDATE leases SET expires_at = '2000-01-01T00:00:00.000+00:00' WHERE ended_at IS NULL")


def ask_for(world, **changes):
    settings.change(world.store, replace(settings.current(world.store), **changes), by=None)


def cy(world):
    return annotators.ensure(world.store, "Cy")


def test_oldest_first_until_nothing_is_left(world):
    one, two = world.comparisons(2)
    assert world.rank(world.ann).comparison_id == one
    assert world.rank(world.ann).comparison_id == two
    assert world.next(world.ann) is None


def test_an_empty_store_has_nothing_and_an_unknown_annotator_is_an_error(world):
    assert queue.next_presentation(world.store, world.ann.id) is None
    with pytest.raises(StoreError, match="no annotator 99"):
        queue.next_presentation(world.store, 99)


def test_two_annotators_never_hold_the_same_comparison(world):
    one, two = world.comparisons(2)
    assert (world.next(world.ann), world.next(world.bob)) == (one, two)
    assert world.next(cy(world)) is None


def test_overlap_is_how_many_judge_one(world):
    ask_for(world, overlap=2)
    one, two = world.comparisons(2)
    assert (world.next(world.ann), world.next(world.bob), world.next(cy(world))) == (one, one, two)
    world.rank(world.ann)
    world.rank(world.bob)
    # One has its two judgments; two has one lease of two.
    assert (world.next(world.ann), world.next(world.bob)) == (two, None)


def test_a_comparison_stays_queued_until_it_has_all_its_judgments(world):
    ask_for(world, overlap=2)
    one, two, three = world.comparisons(3)
    assert [world.rank(world.ann).comparison_id for _ in range(2)] == [one, two]
    assert [world.rank(world.bob).comparison_id for _ in range(3)] == [one, two, three]


def test_more_overlap_opens_what_was_closed_but_not_for_who_judged_it(world):
    one = world.comparison()
    world.rank(world.ann)
    assert world.next(world.bob) is None
    ask_for(world, overlap=2)
    assert world.next(world.ann) is None
    assert world.next(world.bob) == one


def test_never_more_than_asked_even_from_many_threads(world):
    ask_for(world, overlap=3)
    world.comparisons(5)
    people = [annotators.ensure(world.store, f"person {n}") for n in range(8)]

    def work(person):
        done = []
        while (saved := world.rank(person)) is not None:
            done.append(saved.comparison_id)
        return done

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(work, people))
    assert all(len(set(mine)) == len(mine) for mine in done)
    assert sorted(item for mine in done for item in mine) == [n for n in range(1, 6) for _ in range(3)]


def test_an_expired_lease_gives_the_comparison_to_somebody_else(world):
    one, two = world.comparisons(2)
    assert world.next(world.ann) == one
    lapse(world.store)
    # An expired lease puts its comparison at the end of the queue.
    assert (world.next(world.bob), world.next(cy(world))) == (two, one)
    assert world.next(world.ann) is None
    outcomes = world.store.rows("SELECT annotator_id, outcome FROM leases ORDER BY id")
    assert [tuple(row) for row in outcomes] == [(world.ann.id, "expired"), (world.bob.id, None), (cy(world).id, None)]


def test_an_annotator_whose_lease_expired_may_see_the_comparison_again(world):
    ask_for(world, overlap=2)
    one = world.comparison()
    world.next(world.ann)
    world.rank(world.bob)
    lapse(world.store)
    assert world.next(world.ann) == one


def test_a_lease_can_be_renewed_until_it_expires(world):
    world.comparison()
    shown = queue.next_presentation(world.store, world.ann.id)[1]
    before = queue.lease_of(world.store, shown.id).expires_at
    ask_for(world, lease_minutes=60)
    assert queue.renew(world.store, shown.id, world.ann.id)
    assert queue.lease_of(world.store, shown.id).expires_at > before
    assert not queue.renew(world.store, shown.id, world.bob.id)
    lapse(world.store)
    assert not queue.renew(world.store, shown.id, world.ann.id)


def test_a_late_judgment_is_saved_while_votes_are_wanted(world):
    world.comparison()
    shown = queue.next_presentation(world.store, world.ann.id)[1]
    lapse(world.store)
    queue.expire_leases(world.store, settings.current(world.store))
    saved = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=(shown.order,))
    assert saved.counts
    assert queue.depth(world.store) == 0


def test_a_late_judgment_is_refused_when_no_votes_are_wanted(world):
    world.comparison()
    shown = queue.next_presentation(world.store, world.ann.id)[1]
    lapse(world.store)
    assert world.next(world.bob) == shown.comparison_id
    with pytest.raises(judgments.LeaseOver, match="went to another annotator"):
        judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=(shown.order,))
    assert judgments.active(world.store) == []


def test_a_judgment_of_a_withdrawn_comparison_is_refused(world):
    world.comparison()
    shown = queue.next_presentation(world.store, world.ann.id)[1]
    world.store.connection.conn.execute("UPDATE comparisons SET retired = 1")
    with pytest.raises(judgments.LeaseOver, match="withdrawn"):
        judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=(shown.order,))
    assert world.next(world.ann) is None


def test_two_presentations_of_one_comparison_make_one_vote(world):
    ask_for(world, overlap=2)
    world.comparison()
    old = queue.next_presentation(world.store, world.ann.id)[1]
    lapse(world.store)
    new = queue.next_presentation(world.store, world.ann.id)[1]
    assert (old.comparison_id, old.id) == (new.comparison_id, new.id - 1)
    judgments.save(world.store, new.id, world.ann.id, verdict="rank", tiers=(new.order,))
    with pytest.raises(judgments.AlreadyJudged):
        judgments.save(world.store, old.id, world.ann.id, verdict="rank", tiers=(old.order,))


def test_a_simulated_ranking_does_not_count_towards_the_overlap(world):
    one = world.comparison()
    world.rule_ranks(one)
    assert queue.depth(world.store) == 1
    assert world.next(world.ann) == one


def test_skipped_comparisons_go_to_others_last_and_not_to_the_same_annotator(world):
    one, two, three = world.comparisons(3)
    assert world.skip(world.ann).comparison_id == one
    assert [world.rank(world.bob).comparison_id for _ in range(3)] == [two, three, one]
    assert world.next(world.ann) is None


def test_higher_priority_first_and_a_change_of_it_moves_the_comparison(world):
    one, two = world.comparisons(2)
    prompt_id = world.prompt()
    urgent = comparisons.add(
        world.store, prompt_id, [world.completion(prompt_id, "x"), world.completion(prompt_id, "y")], purpose="batch", priority=1
    )
    world.store.connection.conn.execute("UPDATE comparisons SET priority = -1 WHERE id = ?", [one])
    assert [world.rank(world.ann).comparison_id for _ in range(3)] == [urgent, two, one]


def test_a_reload_shows_the_same_presentation(world):
    world.comparison(9)
    first = queue.next_presentation(world.store, world.ann.id)
    assert queue.next_presentation(world.store, world.ann.id) == first
    assert world.store.value("SELECT count(*) FROM presentations") == 1
    assert presentations.get(world.store, first[1].id) == first[1]


def test_slots_are_shuffled_for_each_annotator(world):
    ask_for(world, overlap=2)
    one = world.comparison(9)
    made_in = [completion.id for completion in comparisons.get(world.store, one).completions]
    _, shown = queue.next_presentation(world.store, world.ann.id, random.Random(3))
    _, other = queue.next_presentation(world.store, world.bob.id, random.Random(4))
    assert sorted(shown.order) == sorted(other.order) == made_in
    assert shown.order != other.order


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
    assert queue.lease_of(world.store, shown.id).selection == "undo"


def test_two_undos_come_back_last_undone_first_and_then_the_open_page(world):
    one, two, three = world.comparisons(3)
    world.rank(world.ann)
    world.skip(world.ann)
    assert world.next(world.ann) == three
    assert judgments.undo(world.store, world.ann.id).comparison_id == two
    assert judgments.undo(world.store, world.ann.id).comparison_id == one
    assert [world.rank(world.ann).comparison_id for _ in range(3)] == [one, two, three]


def test_a_vote_that_stops_counting_opens_its_comparison_for_others(world):
    one = world.comparison()
    saved = world.rank(world.ann)
    exclusions.exclude(world.store, [saved.id], rule="too fast", reason="0.2 s", by=None)
    assert world.next(world.ann) is None
    assert world.next(world.bob) == one


def test_the_guidelines_on_display_are_kept(world):
    world.comparisons(2)
    assert queue.next_presentation(world.store, world.ann.id)[1].guidelines_id is None
    world.rank(world.ann)
    version = guidelines.publish(world.store, "Be kind.", by=None)
    assert queue.next_presentation(world.store, world.ann.id)[1].guidelines_id == version.id


def test_depth_counts_what_waits_and_is_not_leased(world):
    assert queue.depth(world.store) == 0
    world.comparisons(3)
    assert queue.depth(world.store) == 3
    world.next(world.ann)
    assert queue.depth(world.store) == 2
    world.rank(world.ann)
    world.skip(world.ann)
    assert queue.depth(world.store) == 2


def test_least_waiting_is_what_the_busiest_annotator_has_left(world):
    ask_for(world, overlap=2)
    world.comparisons(4)
    assert queue.least_waiting(world.store, at_most=10) == 4
    world.rank(world.ann)
    world.skip(world.ann)
    world.next(world.bob)
    # Ann judged one and skipped one; Bob holds one.
    assert queue.least_waiting(world.store, at_most=10) == 2
    assert queue.least_waiting(world.store, at_most=1) == 1
    # Nobody has asked for an hour: the queue itself.
    world.store.connection.conn.execute("UPDATE queue_cursors SET requested_at = '2000-01-01'")
    assert queue.least_waiting(world.store, at_most=10) == 3


def test_what_waits_for_an_annotator_is_counted_beside_what_is_on_their_page(world):
    ask_for(world, overlap=2)
    world.comparisons(4)
    assert queue.waiting(world.store, world.ann.id, at_most=10) == 4
    world.next(world.ann)
    assert queue.waiting(world.store, world.ann.id, at_most=10) == 3
    world.rank(world.ann)
    world.next(world.ann)
    assert (queue.waiting(world.store, world.ann.id, at_most=10), queue.waiting(world.store, world.ann.id, at_most=1)) == (2, 1)
    assert queue.waiting(world.store, world.bob.id, at_most=10) == 4
    # The undone one is on the page again, and the one that was there waits.
    judgments.undo(world.store, world.ann.id)
    world.next(world.ann)
    assert queue.waiting(world.store, world.ann.id, at_most=10) == 3


def test_gold_comes_by_its_share_once_each_with_its_probability(world):
    marked = world.comparison()
    gold.set_answer(world.store, marked, ((1,), (2,)), by=None)
    plain = world.comparisons(3)
    assert world.next(world.bob) == plain[0]
    ask_for(world, gold_share=0.5)
    comparison, shown = queue.next_presentation(world.store, world.ann.id, FixedDraw(0.49))
    lease = queue.lease_of(world.store, shown.id)
    assert (comparison.id, shown.purpose, lease.selection, lease.propensity) == (marked, "gold", "gold", 0.5)
    saved = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=((1,), (2,)))
    assert (saved.purpose, saved.counts) == ("gold", False)
    assert judgments.active(world.store) == []
    # It was the only one: the share falls to the queue, which is then certain.
    _, shown = queue.next_presentation(world.store, world.ann.id, FixedDraw(0.49))
    assert (shown.purpose, queue.lease_of(world.store, shown.id).propensity) == ("vote", 1.0)


def test_the_probability_of_the_queue_is_one_minus_that_of_gold(world):
    for _ in range(2):
        gold.set_answer(world.store, (marked := world.comparison()), ((2 * marked - 1,), (2 * marked,)), by=None)
    world.comparisons(2)
    ask_for(world, gold_share=0.2)
    _, shown = queue.next_presentation(world.store, world.ann.id, FixedDraw(0.2))
    assert (shown.purpose, queue.lease_of(world.store, shown.id).propensity) == ("vote", 0.8)
    _, shown = queue.next_presentation(world.store, world.bob.id, FixedDraw(0.19))
    assert (shown.purpose, queue.lease_of(world.store, shown.id).propensity) == ("gold", 0.1)


def test_a_repeat_is_an_own_vote_from_a_while_ago_with_sides_swapped(world):
    world.comparisons(queue.REPEAT_AFTER + 3)
    for _ in range(queue.REPEAT_AFTER + 1):
        world.rank(world.ann)
    ask_for(world, repeat_share=0.25)
    comparison, shown = queue.next_presentation(world.store, world.ann.id, FixedDraw(0.24))
    lease = queue.lease_of(world.store, shown.id)
    first = presentations.get(world.store, 1)
    assert (comparison.id, shown.purpose, lease.selection, lease.propensity) == (first.comparison_id, "repeat", "repeat", 0.25)
    assert shown.order == first.order[::-1]
    saved = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=(shown.order,))
    assert (saved.purpose, saved.counts, len(judgments.active(world.store))) == ("repeat", False, 11)
    # Repeated once, and the next vote is too fresh.
    _, shown = queue.next_presentation(world.store, world.ann.id, FixedDraw(0.0))
    assert shown.purpose == "vote"


def test_gold_and_repeats_do_not_count_towards_the_overlap(world):
    marked = world.comparison()
    gold.set_answer(world.store, marked, ((1,), (2,)), by=None)
    ask_for(world, gold_share=0.5)
    assert queue.next_presentation(world.store, world.ann.id, FixedDraw(0.0)) is None, "alone, it would give itself away"
    world.comparison()
    for person in (world.ann, world.bob, cy(world)):
        assert queue.next_presentation(world.store, person.id, FixedDraw(0.0))[0].id == marked
    assert tuple(world.store.row("SELECT leased, human_ranks FROM comparisons WHERE id = ?", [marked])) == (0, 0)


@pytest.fixture
def late_gold(world):
    """Ann holds a gold comparison, and two others wait; her presentation."""
    gold.set_answer(world.store, world.comparison(), ((1,), (2,)), by=None)
    world.comparisons(2)
    ask_for(world, gold_share=0.5)
    shown = queue.next_presentation(world.store, world.ann.id, FixedDraw(0.0))[1]
    ask_for(world, gold_share=0)
    return shown


def test_late_gold_is_saved_while_a_vote_in_its_position_would_still_wait(world, late_gold):
    lapse(world.store)
    world.rank(world.bob)
    # A vote would stand behind the one that still waits.
    assert queue.can_accept(world.store, late_gold, queue.lease_of(world.store, late_gold.id))
    saved = judgments.save(world.store, late_gold.id, world.ann.id, verdict="rank", tiers=(late_gold.order,))
    assert saved.purpose == "gold"


def test_late_gold_is_refused_when_a_vote_in_its_position_would_be_leased_to_others(world, late_gold):
    lapse(world.store)
    for _ in range(2):
        world.rank(world.bob)
    with pytest.raises(judgments.LeaseOver, match="went to another annotator"):
        judgments.save(world.store, late_gold.id, world.ann.id, verdict="rank", tiers=(late_gold.order,))


def test_late_gold_is_saved_when_nobody_else_requested(world, late_gold):
    lapse(world.store)
    for _ in range(2):
        world.rank(world.ann)
    assert queue.can_accept(world.store, late_gold, queue.lease_of(world.store, late_gold.id))


def test_ranked_gold_is_accepted_again_and_skipped_gold_is_not(world, late_gold):
    first = judgments.save(world.store, late_gold.id, world.ann.id, verdict="rank", tiers=(late_gold.order,))
    for _ in range(2):
        world.rank(world.bob)
    world.comparison()
    skipped = judgments.correct(world.store, first.id, world.ann.id, verdict="skip", skip_reason="x")
    assert queue.can_accept(world.store, late_gold, queue.lease_of(world.store, late_gold.id))
    world.rank(world.bob)
    with pytest.raises(judgments.LeaseOver, match="others have judged it since"):
        judgments.correct(world.store, skipped.id, world.ann.id, verdict="rank", tiers=(late_gold.order,))


def test_withdrawn_gold_is_refused_like_a_vote(world, late_gold):
    world.store.connection.conn.execute("UPDATE comparisons SET retired = 1 WHERE id = ?", [late_gold.comparison_id])
    assert not queue.renew(world.store, late_gold.id, world.ann.id)
    with pytest.raises(judgments.LeaseOver, match="withdrawn"):
        judgments.save(world.store, late_gold.id, world.ann.id, verdict="rank", tiers=(late_gold.order,))


def test_by_default_there_is_no_gold_and_no_repeat(world):
    assert (ProjectSettings().gold_share, ProjectSettings().repeat_share) == (0, 0)


@pytest.mark.parametrize("name", ["LEASED", "NEXT_IN_QUEUE", "UNSEEN_GOLD", "REPEATABLE"])
def test_the_queries_use_indexes_and_do_not_sort(store, name):
    given = [1] if name == "LEASED" else {"annotator": 1, "priority": 0, "among": 9, "after": 1}
    plan = [row["detail"] for row in store.rows(f"EXPLAIN QUERY PLAN {getattr(queue, name)}", given)]
    walks = [step for step in plan if step.startswith("SCAN") and "INDEX" not in step and step not in ("SCAN mine", "SCAN CONSTANT ROW")]
    assert walks == [] and not any("TEMP B-TREE" in step for step in plan)


class FixedDraw(random.Random):
    """Draws the same number each time; chooses and shuffles as usual."""

    def __new__(cls, value):
        return super().__new__(cls)

    def __init__(self, value):
        super().__init__(0)
        self.value = value

    def random(self):
        return self.value
