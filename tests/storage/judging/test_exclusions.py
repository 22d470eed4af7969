"""Why some judgments do not count: rows with a rule and a reason, and the effect of the triggers."""

import pytest

from storage.content import comparisons
from storage.core.database import StoreError
from storage.judging import exclusions, gold, judgments, presentations, queue


@pytest.fixture
def vote(world):
    """Ann's vote on the only comparison."""
    world.comparison()
    return world.rank(world.ann)


def counting(store):
    return [vote.judgment.id for vote in judgments.active(store)]


def exclude(world, *judgment_ids, rule="too fast", reason="0.2 s, the median is 14 s"):
    return exclusions.exclude(world.store, judgment_ids, rule=rule, reason=reason, by=world.bob.id)


def test_an_excluded_vote_stops_counting_and_stays(world, vote):
    excluded = exclude(world, vote.id, rule=" too fast ")
    assert (excluded.rule, excluded.reason, excluded.by_id) == ("too fast", "0.2 s, the median is 14 s", world.bob.id)
    assert (excluded.judgments, excluded.lifted_at) == (1, None)
    assert counting(world.store) == []
    assert judgments.get(world.store, vote.id).tiers == vote.tiers
    assert exclusions.of_judgment(world.store, vote.id) == [excluded]
    assert world.store.value("SELECT human_ranks FROM comparisons") == 0


def test_its_comparison_opens_again_for_others_and_closes_when_the_exclusion_is_lifted(world, vote):
    excluded = exclude(world, vote.id)
    assert queue.depth(world.store) == 1
    assert world.next(world.ann) is None
    lifted = exclusions.lift(world.store, excluded.id, reason=" The clock was wrong. ", by=world.ann.id)
    assert lifted.lifted_at is not None
    assert counting(world.store) == [vote.id]
    assert queue.depth(world.store) == 0
    assert exclusions.of_judgment(world.store, vote.id) == []
    row = world.store.row("SELECT reason, by_id FROM exclusion_lifts")
    assert tuple(row) == ("The clock was wrong.", world.ann.id)


def test_lifting_one_of_two_changes_nothing_until_the_other_is_lifted(world, vote):
    first, second = exclude(world, vote.id), exclude(world, vote.id, rule="gold accuracy")
    assert exclusions.of_judgment(world.store, vote.id) == [first, second]
    exclusions.lift(world.store, first.id, reason="no", by=None)
    assert (counting(world.store), exclusions.of_judgment(world.store, vote.id)) == ([], [second])
    exclusions.lift(world.store, second.id, reason="no", by=None)
    assert counting(world.store) == [vote.id]
    assert world.store.value("SELECT human_ranks FROM comparisons") == 1


def test_a_vote_may_be_excluded_again_after_a_lift(world, vote):
    first = exclude(world, vote.id)
    exclusions.lift(world.store, first.id, reason="no", by=None)
    second = exclude(world, vote.id)
    assert (counting(world.store), exclusions.of_judgment(world.store, vote.id)) == ([], [second])


def test_a_correction_of_an_excluded_vote_stays_excluded_until_it_is_lifted(world, vote):
    first, second = exclude(world, vote.id), exclude(world, vote.id, rule="gold accuracy")
    corrected = judgments.correct(world.store, vote.id, world.ann.id, verdict="rank", tiers=vote.tiers[::-1])
    assert not corrected.counts
    assert [item.id for item in exclusions.of_judgment(world.store, corrected.id)] == [first.id, second.id]
    assert (counting(world.store), queue.depth(world.store)) == ([], 1)
    for excluded in (first, second):
        assert counting(world.store) == []
        exclusions.lift(world.store, excluded.id, reason="no", by=None)
    # The one that it superseded does not come back with it.
    assert counting(world.store) == [corrected.id]
    assert world.store.value("SELECT human_ranks FROM comparisons") == 1


def test_a_lifted_exclusion_does_not_follow_a_correction(world, vote):
    exclusions.lift(world.store, exclude(world, vote.id).id, reason="no", by=None)
    corrected = judgments.correct(world.store, vote.id, world.ann.id, verdict="rank", tiers=vote.tiers[::-1])
    assert counting(world.store) == [corrected.id]
    assert exclusions.of_judgment(world.store, corrected.id) == []


def test_a_retracted_vote_does_not_count_again_when_its_exclusion_is_lifted(world, vote):
    excluded = exclude(world, vote.id)
    judgments.undo(world.store, world.ann.id)
    exclusions.lift(world.store, excluded.id, reason="no", by=None)
    assert counting(world.store) == []
    assert world.store.value("SELECT human_ranks FROM comparisons") == 0


def test_excluding_what_is_no_vote_leaves_the_counts_alone(world):
    world.comparisons(2)
    skipped = world.skip(world.ann)
    marked = world.comparison()
    gold.set_answer(world.store, marked, ((5,), (6,)), by=None)
    excluded = exclude(world, skipped.id)
    assert tuple(world.store.row("SELECT human_ranks, human_skips FROM comparisons")) == (0, 1)
    exclusions.lift(world.store, excluded.id, reason="no", by=None)
    assert not judgments.get(world.store, skipped.id).counts
    assert tuple(world.store.row("SELECT human_ranks, human_skips FROM comparisons")) == (0, 1)


def test_a_rule_s_vote_is_excluded_without_touching_what_people_did(world):
    one = world.comparison()
    by_rule = world.rule_ranks(one)
    exclude(world, by_rule)
    assert judgments.active(world.store, kinds=("simulated",)) == []
    assert world.store.value("SELECT human_ranks FROM comparisons") == 0


def test_many_at_once_each_once(world):
    world.comparisons(3)
    votes = [world.rank(world.ann).id for _ in range(3)]
    excluded = exclude(world, votes[2], votes[0], votes[2])
    assert (excluded.judgments, counting(world.store)) == (2, [votes[1]])
    assert exclusions.of_judgments(world.store, votes) == {votes[0]: [excluded], votes[2]: [excluded]}
    assert exclusions.of_judgments(world.store, []) == {}


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"judgment_ids": []}, "There is no judgment to exclude: choose at least one"),
        ({"rule": "  "}, "An exclusion needs a rule and a reason: the annotator is shown both"),
        ({"reason": ""}, "An exclusion needs a rule and a reason"),
        ({"judgment_ids": [1, 99]}, "One of the judgments to exclude is not in the store: reload the page"),
        ({"by": 99}, "exclusions: FOREIGN KEY constraint failed"),
    ],
)
def test_an_invalid_exclusion_is_refused_and_not_stored(world, vote, values, why):
    arguments = {"judgment_ids": [vote.id], "rule": "too fast", "reason": "0.2 s", "by": None} | values
    with pytest.raises(StoreError, match=why):
        exclusions.exclude(world.store, arguments.pop("judgment_ids"), **arguments)
    assert exclusions.all_exclusions(world.store) == []
    assert counting(world.store) == [vote.id]


def test_lifting_needs_a_reason_and_an_active_exclusion(world, vote):
    excluded = exclude(world, vote.id)
    with pytest.raises(StoreError, match="Lifting an exclusion needs a reason"):
        exclusions.lift(world.store, excluded.id, reason=" ", by=None)
    with pytest.raises(StoreError, match="There is no exclusion 9: reload the page"):
        exclusions.lift(world.store, 9, reason="no", by=None)
    exclusions.lift(world.store, excluded.id, reason="no", by=None)
    with pytest.raises(StoreError, match=f"Exclusion {excluded.id} was lifted before: there is nothing left to do"):
        exclusions.lift(world.store, excluded.id, reason="again", by=None)
    assert world.store.value("SELECT count(*) FROM exclusion_lifts") == 1


def test_everything_of_one_annotator_that_counts_now_or_since_a_time(world):
    world.comparisons(4)
    first, second, skipped = world.rank(world.ann), world.rank(world.ann), world.skip(world.ann)
    other = world.rank(world.bob)
    assert other.comparison_id == 4
    exclude(world, first.id)
    excluded = exclusions.exclude_annotator(world.store, world.ann.id, rule="left", reason="r", by=None, since="2000-01-01")
    assert excluded.judgments == 1
    assert exclusions.of_judgment(world.store, second.id) == [excluded]
    assert exclusions.of_judgment(world.store, skipped.id) == []
    assert counting(world.store) == [other.id]
    with pytest.raises(StoreError, match="no judgment to exclude"):
        exclusions.exclude_annotator(world.store, world.ann.id, rule="left", reason="r", by=None)
    with pytest.raises(StoreError, match="no judgment to exclude"):
        exclusions.exclude_annotator(world.store, world.bob.id, rule="left", reason="r", by=None, since="2999-01-01")
    assert counting(world.store) == [other.id]


def test_gold_and_repeats_are_excluded_with_the_votes_of_their_annotator(world):
    """Their author reads what is excluded: those that were left out would give themselves away."""
    gold.set_answer(world.store, (marked := world.comparison()), ((1,), (2,)), by=None)
    shown = presentations.record(world.store, comparisons.get(world.store, marked), world.ann.id, purpose="gold")
    of_gold = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=((1,), (2,)))
    with pytest.raises(StoreError, match="no judgment to exclude"):
        exclusions.exclude_annotator(world.store, world.ann.id, rule="left", reason="r", by=None)
    world.comparison()
    vote = world.rank(world.ann)
    excluded = exclusions.exclude_annotator(world.store, world.ann.id, rule="left", reason="r", by=None)
    assert excluded.judgments == 2
    assert exclusions.of_judgments(world.store, [vote.id, of_gold.id]) == {vote.id: [excluded], of_gold.id: [excluded]}
    exclusions.lift(world.store, excluded.id, reason="no", by=None)
    assert counting(world.store) == [vote.id]
    # What it measures stays as it was.
    assert gold.results(world.store) == {marked: (1, 1)}


def test_all_of_them_newest_first_lifted_ones_too(world, vote):
    first = exclude(world, vote.id)
    second = exclude(world, vote.id, rule="gold accuracy")
    lifted = exclusions.lift(world.store, first.id, reason="no", by=None)
    assert exclusions.all_exclusions(world.store) == [second, lifted]
    assert exclusions.get(world.store, first.id) == lifted
    with pytest.raises(StoreError, match="There is no exclusion 9: reload the page"):
        exclusions.get(world.store, 9)
