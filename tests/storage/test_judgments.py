import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import comparisons, judgments, presentations, queue
from storage.database import Database, StoreError
from storage.judgments import BadJudgment


@pytest.fixture
def shown(world):
    """Three completions, 1 to 3, as Ann saw them."""
    world.comparison(3)
    return queue.next_presentation(world.store, world.ann.id)[1]


def history(store):
    return [tuple(row) for row in store.rows("SELECT * FROM judgments ORDER BY id")]


def test_ordered_pairs_by_hand():
    assert list(judgments.ordered_pairs(((2,), (1, 4), (3,)))) == [(2, 1), (2, 4), (2, 3), (1, 3), (4, 3)]
    assert list(judgments.ordered_pairs(((1, 2),))) == []
    assert list(judgments.ordered_pairs(())) == []


def test_a_ranking_is_kept_as_it_was_given(world, shown):
    saved = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=((2,), (1, 3)), all_bad=True)
    assert (saved.verdict, saved.tiers, saved.all_bad, saved.skip_reason) == ("rank", ((2,), (1, 3)), True, None)
    assert (saved.comparison_id, saved.presentation_id) == (shown.comparison_id, shown.id)
    assert saved.annotator_id == world.ann.id
    assert [judged.judgment for judged in judgments.standing(world.store)] == [saved]


def test_a_skip_keeps_its_reason_and_trains_nobody(world, shown):
    saved = judgments.save(world.store, shown.id, world.ann.id, verdict="skip", skip_reason=" unsafe ")
    assert (saved.verdict, saved.tiers, saved.skip_reason) == ("skip", (), "unsafe")
    assert judgments.standing(world.store) == []
    assert judgments.count(world.store, world.ann.id) == 1


def test_saving_twice_returns_the_first_one(world, shown):
    first = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[1], [2], [3]])
    again = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[3], [2], [1]])
    skip = judgments.save(world.store, shown.id, world.ann.id, verdict="skip", skip_reason="not sure")
    assert first == again == skip
    assert first.tiers == ((1,), (2,), (3,))
    assert len(history(world.store)) == 1


def test_after_an_undo_the_same_presentation_takes_a_new_judgment(world, shown):
    judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[1], [2], [3]])
    judgments.undo(world.store, world.ann.id)
    saved = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[3], [2], [1]])
    assert [judged.judgment for judged in judgments.standing(world.store)] == [saved]
    assert [row["verdict"] for row in world.store.rows("SELECT verdict FROM judgments ORDER BY id")] == [
        "rank",
        "retract",
        "rank",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"verdict": "rank", "tiers": [[1], [2]]}, "2 of 3 completions are ranked: place the others too, or skip"),
        ({"verdict": "rank"}, "0 of 3"),
        ({"verdict": "rank", "tiers": [[1], [2], [1, 3]]}, "ranked twice"),
        ({"verdict": "rank", "tiers": [[1], [2], [4]]}, r"\[4\] were not shown"),
        ({"verdict": "rank", "tiers": [["1"], [2], [3]]}, "were not shown"),
        ({"verdict": "rank", "tiers": [[True], [2], [3]]}, "were not shown"),
        ({"verdict": "rank", "tiers": [[1], [], [2, 3]]}, "A tier is empty"),
        ({"verdict": "rank", "tiers": [1, 2, 3]}, "must be lists"),
        ({"verdict": "rank", "tiers": None}, "must be lists"),
        ({"verdict": "rank", "tiers": [[1], [2], [3]], "skip_reason": "x"}, "not both"),
        ({"verdict": "skip"}, "needs a reason"),
        ({"verdict": "skip", "skip_reason": "  "}, "needs a reason"),
        ({"verdict": "retract"}, "Unknown verdict 'retract'"),
    ],
)
def test_refuses_what_does_not_fit(world, shown, values, message):
    with pytest.raises(BadJudgment, match=message):
        judgments.save(world.store, shown.id, world.ann.id, **values)
    assert history(world.store) == []
    assert queue.next_presentation(world.store, world.ann.id)[1] == shown


def test_refuses_other_people_s_and_unknown_presentations(world, shown):
    with pytest.raises(BadJudgment, match="shown to somebody else: reload"):
        judgments.save(world.store, shown.id, world.bob.id, verdict="rank", tiers=[[1], [2], [3]])
    with pytest.raises(BadJudgment, match="no presentation 99 .*reload"):
        judgments.save(world.store, 99, world.ann.id, verdict="skip", skip_reason="x")


def test_undo_takes_back_the_last_and_then_the_one_before(world):
    world.comparisons(2)
    first, second = world.rank(world.ann), world.skip(world.ann)
    assert judgments.undo(world.store, world.ann.id) == second
    assert judgments.undo(world.store, world.ann.id) == first
    assert judgments.undo(world.store, world.ann.id) is None
    assert judgments.count(world.store, world.ann.id) == 0


def test_undo_leaves_other_people_alone(world):
    world.comparisons(2)
    world.rank(world.bob)
    assert judgments.undo(world.store, world.ann.id) is None
    assert judgments.count(world.store, world.bob.id) == 1


def test_rows_are_neither_changed_nor_deleted(world, shown):
    judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[1], [2], [3]])
    before = history(world.store)
    for sql in ("UPDATE judgments SET all_bad = 1", "DELETE FROM judgments"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            world.store.rows(sql)
    assert history(world.store) == before


def test_a_rule_judges_once_with_a_shuffled_presentation(world):
    one = world.comparison(3)
    new_id = judgments.add_simulated(world.store, one, world.rule.id, tiers=((3,), (1, 2)))
    assert judgments.add_simulated(world.store, one, world.rule.id, tiers=((1,), (2,), (3,))) == new_id
    [judged] = judgments.standing(world.store, kinds=("simulated",))
    assert (judged.judgment.id, judged.judgment.tiers, judged.annotator) == (new_id, ((3,), (1, 2)), world.rule)
    assert sorted(presentations.get(world.store, judged.judgment.presentation_id).order) == [1, 2, 3]


def test_a_person_cannot_be_simulated(world):
    one = world.comparison(2)
    with pytest.raises(BadJudgment, match="Ann is a person"):
        judgments.add_simulated(world.store, one, world.ann.id, tiers=((1,), (2,)))
    with pytest.raises(BadJudgment, match="1 of 2"):
        judgments.add_simulated(world.store, one, world.rule.id, tiers=((1,),))
    with pytest.raises(StoreError, match="no comparison 9 "):
        judgments.add_simulated(world.store, 9, world.rule.id, tiers=((1,), (2,)))
    assert world.store.value("SELECT count(*) FROM presentations") == 0


def test_standing_tells_people_from_rules_and_brings_everything_along(world):
    one, two = world.comparisons(2)
    by_rule = world.rule_ranks(two)
    by_ann = world.rank(world.ann)
    [judged] = judgments.standing(world.store)
    assert (judged.judgment, judged.annotator) == (by_ann, world.ann)
    assert (judged.prompt, tuple(judged.completions.values())) == (
        comparisons.get(world.store, one).prompt,
        comparisons.get(world.store, one).completions,
    )
    both = judgments.standing(world.store, kinds=("human", "simulated"))
    assert [item.judgment.id for item in both] == [by_rule, by_ann.id]


def test_standing_reads_pages_and_not_rows(world, monkeypatch):
    monkeypatch.setattr(judgments, "PAGE_ROWS", 4)
    ids = world.comparisons(10)
    for _ in ids:
        world.rank(world.ann)
    statements = []
    world.store.connection.conn.set_trace_callback(statements.append)
    found = judgments.standing(world.store)
    world.store.connection.conn.set_trace_callback(None)
    assert [item.judgment.comparison_id for item in found] == ids
    # Pages of 4, 4, 2 and 0 rows, three queries for each that has rows; the rest opens and closes the snapshot.
    assert len([sql for sql in statements if sql.startswith("SELECT")]) == 10


def act_out(world, act, who, standing):
    """Does it, and keeps the model `standing` (this annotator's judgments that count, oldest first) in step."""
    if act == "undo":
        taken_back = judgments.undo(world.store, who.id)
        assert taken_back == (standing.pop() if standing else None)
        if taken_back is not None:
            assert world.next(who) == taken_back.comparison_id
    elif act == "again":
        if standing:
            presentation_id = standing[-1].presentation_id
            saved = judgments.save(world.store, presentation_id, who.id, verdict="skip", skip_reason="again")
            assert saved == standing[-1]
    else:
        saved = world.rank(who) if act == "rank" else world.skip(who)
        standing += [saved] if saved else []


def counted_by_hand(store):
    """Per comparison what the triggers should have counted, from the judgments alone."""
    rows = [dict(row) for row in store.rows("SELECT * FROM judgments")]
    superseded = {row["supersedes"] for row in rows}
    stands = [row for row in rows if row["verdict"] != "retract" and row["id"] not in superseded]
    return [
        tuple(
            sum(row["comparison_id"] == comparison_id and row["verdict"] == verdict for row in stands)
            for verdict in ("rank", "skip")
        )
        for (comparison_id,) in store.rows("SELECT id FROM comparisons ORDER BY id")
    ]


ACTS = st.lists(st.tuples(st.sampled_from(["rank", "skip", "undo", "again"]), st.booleans()), max_size=25)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
def test_any_sequence_of_acts_keeps_count_and_history(new_world, acts):
    with tempfile.TemporaryDirectory() as folder:
        world = new_world(Database(Path(folder) / "rankloop.db"))
        world.comparisons(4)
        standing = {world.ann.id: [], world.bob.id: []}
        for act, is_ann in acts:
            who = world.ann if is_ann else world.bob
            before = history(world.store)
            act_out(world, act, who, standing[who.id])
            assert history(world.store)[: len(before)] == before
            assert {key: judgments.count(world.store, key) for key in standing} == {
                key: len(value) for key, value in standing.items()
            }
            counted = world.store.rows("SELECT human_ranks, human_skips FROM comparisons ORDER BY id")
            by_hand = counted_by_hand(world.store)
            assert [tuple(row) for row in counted] == by_hand
            assert queue.depth(world.store) == by_hand.count((0, 0))
        world.store.close()
