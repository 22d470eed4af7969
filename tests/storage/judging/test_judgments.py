import sqlite3
import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.content import comparisons
from storage.core.database import Database, StoreError
from storage.core.records import Details, Flag, IdealAnswer, ProjectSettings, Timing
from storage.judging import exclusions, judgments, presentations, queue
from storage.judging.judgments import BadJudgment
from storage.people import annotators
from storage.project import settings as project


@pytest.fixture
def shown(world):
    """Three completions, 1 to 3, as Ann saw them."""
    world.comparison(3)
    return queue.next_presentation(world.store, world.ann.id)[1]


def history(store):
    return [tuple(row) for row in store.rows("SELECT * FROM judgments ORDER BY id")]


def test_metadata_of_active_and_superseded_judgments(world, shown):
    first = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=((1,), (2,), (3,)))
    later = judgments.correct(world.store, first.id, world.ann.id, verdict="rank", tiers=((3,), (2,), (1,)))
    origin = judgments.JudgmentMetadata(first.id, shown.comparison_id, 1, world.ann.id, "explain")
    found = judgments.metadata(world.store, [later.id, first.id, first.id, 999])
    assert found == {first.id: origin, later.id: replace(origin, judgment_id=later.id)}


def test_what_an_annotator_has_given_since_a_moment(world):
    world.comparisons(5)
    world.rank(world.ann)
    moment = "2026-11-27T00:00:00.000+00:00"
    world.store.connection.conn.execute("DROP TRIGGER judgments_are_not_changed")
    world.store.connection.conn.execute("UPDATE judgments SET created_at = '2026-11-26T23:59:59.999+00:00'")
    world.skip(world.ann)
    undone = world.rank(world.ann)
    world.store.connection.conn.execute("UPDATE judgments SET created_at = ? WHERE id = ?", [moment, undone.id])
    world.rank(world.bob)
    assert judgments.given_since(world.store, world.ann.id, moment) == judgments.Given(ranks=1, skips=1)
    judgments.undo(world.store, world.ann.id)
    assert judgments.given_since(world.store, world.ann.id, moment) == judgments.Given(ranks=0, skips=1)
    assert judgments.given_since(world.store, world.bob.id, moment) == judgments.Given(ranks=1, skips=0)


def test_ordered_pairs_by_hand():
    assert list(judgments.ordered_pairs(((2,), (1, 4), (3,)))) == [(2, 1), (2, 4), (2, 3), (1, 3), (4, 3)]
    assert list(judgments.ordered_pairs(((1, 2),))) == []
    assert list(judgments.ordered_pairs(())) == []


def test_a_ranking_is_kept_as_it_was_given(world, shown):
    saved = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=((2,), (1, 3)), all_bad=True)
    assert (saved.verdict, saved.tiers, saved.all_bad, saved.skip_reason) == ("rank", ((2,), (1, 3)), True, None)
    assert (saved.comparison_id, saved.presentation_id) == (shown.comparison_id, shown.id)
    assert saved.annotator_id == world.ann.id
    assert [judged.judgment for judged in judgments.active(world.store)] == [saved]


def test_a_skip_keeps_its_reason_and_is_no_vote(world, shown):
    saved = judgments.save(world.store, shown.id, world.ann.id, verdict="skip", skip_reason=" unsafe ")
    assert (saved.verdict, saved.tiers, saved.skip_reason) == ("skip", (), "unsafe")
    assert judgments.active(world.store) == []
    assert annotators.get(world.store, world.ann.id).judged == 1


def test_saving_the_same_twice_returns_the_first_one(world, shown):
    given = {"verdict": "rank", "tiers": [[1], [2, 3]], "details": Details(rationale=" Why. ", flags=(Flag("unsafe", " x "),))}
    first = judgments.save(world.store, shown.id, world.ann.id, **given)
    later = {**given, "tiers": [[1], [3, 2]], "details": replace(given["details"], timing=Timing(1, 2, 3))}
    assert judgments.save(world.store, shown.id, world.ann.id, **later) == first
    assert len(history(world.store)) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"verdict": "rank", "tiers": [[3], [2], [1]]}, {"verdict": "skip", "skip_reason": "not sure"},
        {"verdict": "rank", "tiers": [[1], [2]]}, {"verdict": "rank", "tiers": [[1], [2], [3]], "all_bad": True},
        {"verdict": "rank", "tiers": [[1], [2], [3]], "details": Details(rationale="A reason.")},
        {"verdict": "rank", "tiers": [[1], [2], [3]], "details": Details(aspects={1: {"helpful": 3}})},
        {"verdict": "rank", "tiers": [[1], [2], [3]], "details": Details(flags=(Flag("unsafe"),))},
        {"verdict": "rank", "tiers": [[1], [2], [3]], "details": Details(ideal=IdealAnswer("Better."))},
    ],
)  # fmt: skip
def test_another_judgment_of_what_is_judged_is_refused_and_names_the_stored_one(world, shown, other):
    first = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[1], [2], [3]])
    with pytest.raises(judgments.AlreadyJudged) as refused:
        judgments.save(world.store, shown.id, world.ann.id, **other)
    assert refused.value.judgment == first
    assert len(history(world.store)) == 1


def test_after_an_undo_the_same_presentation_takes_a_new_judgment(world, shown):
    judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[1], [2], [3]])
    judgments.undo(world.store, world.ann.id)
    saved = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[3], [2], [1]])
    assert [judged.judgment for judged in judgments.active(world.store)] == [saved]
    assert [row["verdict"] for row in world.store.rows("SELECT verdict FROM judgments ORDER BY id")] == [
        "rank",
        "retract",
        "rank",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"verdict": "rank", "tiers": [[1]]}, "1 of 3 completions are ranked: place at least two, or skip"),
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
        ({"verdict": "skip", "skip_reason": "x", "tiers": [[1], [2]]}, "not both"),
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
    assert annotators.get(world.store, world.ann.id).judged == 0


def test_undo_leaves_other_people_alone(world):
    world.comparisons(2)
    world.rank(world.bob)
    assert judgments.undo(world.store, world.ann.id) is None
    assert annotators.get(world.store, world.bob.id).judged == 1


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
    [judged] = judgments.active(world.store, kinds=("simulated",))
    assert (judged.judgment.id, judged.judgment.tiers, judged.annotator) == (new_id, ((3,), (1, 2)), world.rule)
    assert sorted(presentations.get(world.store, judged.judgment.presentation_id).order) == [1, 2, 3]


def test_a_person_cannot_be_simulated(world):
    one = world.comparison(2)
    with pytest.raises(BadJudgment, match="Ann is a person"):
        judgments.add_simulated(world.store, one, world.ann.id, tiers=((1,), (2,)))
    with pytest.raises(BadJudgment, match="ranks every completion once"):
        judgments.add_simulated(world.store, one, world.rule.id, tiers=((1,),))
    with pytest.raises(StoreError, match="no comparison 9 "):
        judgments.add_simulated(world.store, 9, world.rule.id, tiers=((1,), (2,)))
    assert world.store.value("SELECT count(*) FROM presentations") == 0


def test_active_selects_kinds_and_loads_prompts_and_completions(world):
    one, two = world.comparisons(2)
    by_rule = world.rule_ranks(two)
    by_ann = world.rank(world.ann)
    [judged] = judgments.active(world.store)
    assert (judged.judgment, judged.annotator) == (by_ann, world.ann)
    assert (judged.prompt, tuple(judged.completions.values())) == (
        comparisons.get(world.store, one).prompt,
        comparisons.get(world.store, one).completions,
    )
    both = judgments.active(world.store, kinds=("human", "simulated"))
    assert [item.judgment.id for item in both] == [by_rule, by_ann.id]


def test_active_reads_pages_of_rows(world, monkeypatch):
    monkeypatch.setattr(judgments, "STREAM_ROWS", 4)
    ids = world.comparisons(10)
    for _ in ids:
        world.rank(world.ann)
    statements = []
    world.store.connection.conn.set_trace_callback(statements.append)
    found = judgments.active(world.store)
    world.store.connection.conn.set_trace_callback(None)
    assert [item.judgment.comparison_id for item in found] == ids
    # The annotators once; pages of 4, 4, 2 and 0 rows, three queries for each that has rows.
    assert len([sql for sql in statements if sql.startswith("SELECT")]) == 11


def test_a_partial_ranking_is_kept_and_marked(world, shown):
    saved = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[3], [1]])
    assert (saved.tiers, saved.partial, saved.counts) == (((3,), (1,)), True, True)
    assert list(judgments.ordered_pairs(saved.tiers)) == [(3, 1)]


def test_a_correction_supersedes_and_the_original_stays(world, shown):
    first = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[1], [2], [3]])
    second = judgments.correct(world.store, first.id, world.ann.id, verdict="rank", tiers=[[3], [2], [1]])
    assert (second.supersedes, second.tiers, second.counts) == (first.id, ((3,), (2,), (1,)), True)
    assert [judged.judgment for judged in judgments.active(world.store)] == [second]
    assert judgments.get(world.store, first.id).tiers == first.tiers
    assert not judgments.get(world.store, first.id).counts
    assert annotators.get(world.store, world.ann.id).judged == 1
    # The comparison is judged still: nobody else is asked.
    assert world.next(world.bob) is None
    skipped = judgments.correct(world.store, second.id, world.ann.id, verdict="skip", skip_reason="unsure after all")
    assert (skipped.counts, world.next(world.bob)) == (False, shown.comparison_id)


def test_only_one_s_own_standing_judgment_can_be_corrected(world, shown):
    first = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[1], [2], [3]])
    with pytest.raises(BadJudgment, match="shown to somebody else"):
        judgments.correct(world.store, first.id, world.bob.id, verdict="rank", tiers=[[3], [2], [1]])
    judgments.correct(world.store, first.id, world.ann.id, verdict="rank", tiers=[[3], [2], [1]])
    with pytest.raises(BadJudgment, match="was corrected or undone meanwhile"):
        judgments.correct(world.store, first.id, world.ann.id, verdict="rank", tiers=[[2], [3], [1]])


def test_a_skip_is_corrected_to_a_ranking_only_while_votes_are_wanted(world, shown):
    skipped = judgments.save(world.store, shown.id, world.ann.id, verdict="skip", skip_reason="unsure")
    world.rank(world.bob)
    with pytest.raises(judgments.LeaseOver, match="others have judged it since"):
        judgments.correct(world.store, skipped.id, world.ann.id, verdict="rank", tiers=[[3], [2], [1]])
    judgments.undo(world.store, world.bob.id)
    judgments.undo(world.store, world.bob.id)
    lapse(world.store)
    queue.expire_leases(world.store, project.current(world.store))
    assert judgments.correct(world.store, skipped.id, world.ann.id, verdict="rank", tiers=[[3], [2], [1]]).counts


def test_a_correction_keeps_the_exclusion(world, shown):
    first = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[1], [2], [3]])
    made = exclusions.exclude(world.store, [first.id], rule="gold accuracy", reason="3 of 10", by=None)
    second = judgments.correct(world.store, first.id, world.ann.id, verdict="rank", tiers=[[3], [2], [1]])
    assert not second.counts
    assert judgments.active(world.store) == []
    exclusions.lift(world.store, made.id, reason="a mistake", by=None)
    assert [judged.judgment.id for judged in judgments.active(world.store)] == [second.id]


def test_a_judgment_after_an_undo_keeps_the_exclusion(world, shown):
    first = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[1], [2], [3]])
    exclusions.exclude(world.store, [first.id], rule="gold accuracy", reason="3 of 10", by=None)
    judgments.undo(world.store, world.ann.id)
    assert not judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[3], [2], [1]]).counts


def test_an_undone_skip_does_not_come_back_when_no_votes_are_wanted(world, shown):
    judgments.save(world.store, shown.id, world.ann.id, verdict="skip", skip_reason="unsure")
    world.rank(world.bob)
    assert judgments.undo(world.store, world.ann.id).verdict == "skip"
    assert world.next(world.ann) is None


def test_undoing_a_simulated_judgment_leases_nothing(world):
    one = world.comparison()
    world.rule_ranks(one)
    judgments.undo(world.store, world.rule.id)
    assert world.next(world.ann) == one


def test_a_superseded_judgment_cannot_be_excluded(world, shown):
    first = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[1], [2], [3]])
    judgments.correct(world.store, first.id, world.ann.id, verdict="rank", tiers=[[3], [2], [1]])
    with pytest.raises(StoreError, match="corrected or undone meanwhile"):
        exclusions.exclude(world.store, [first.id], rule="r", reason="x", by=None)


def test_a_rationale_that_is_required_is_asked_by_the_store_too(world, shown):
    project.change(world.store, ProjectSettings(rationale="required", rationale_min_chars=5), by=None)
    ranking = {"verdict": "rank", "tiers": [[1], [2], [3]]}
    with pytest.raises(BadJudgment, match="at least 5 characters .* has 4"):
        judgments.save(world.store, shown.id, world.ann.id, **ranking, details=Details(rationale=" abcd "))
    assert judgments.save(world.store, shown.id, world.ann.id, **ranking, details=Details(rationale="abcde")).rationale == "abcde"


def test_server_time_runs_from_the_lease_to_the_judgment(world, shown):
    judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=[[1], [2], [3]])
    start, end, server_ms = world.store.row(
        "SELECT l.created_at, j.created_at, j.server_ms FROM judgments j JOIN leases l USING (presentation_id)"
    )
    span = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    # Both moments are rounded to milliseconds, and the time between them goes by another clock.
    assert abs(server_ms - span.total_seconds() * 1000) <= 2


def lapse(store):
    store.connection.conn.execute("UPDATE leases SET expires_at = '2000' WHERE ended_at IS NULL")


def act_out(world, act, who, excluded):
    """Does it; `excluded` holds the exclusions that were not lifted."""
    if act == "undo":
        judgments.undo(world.store, who.id)
    elif act == "lapse":
        lapse(world.store)
    elif act == "correct":
        last = world.store.value("SELECT max(id) FROM active_judgments WHERE annotator_id = ? AND verdict = 'rank'", [who.id])
        if last is not None:
            tiers = judgments.get(world.store, last).tiers
            judgments.correct(world.store, last, who.id, verdict="rank", tiers=tiers[::-1])
    elif act == "exclude":
        last = world.store.value("SELECT max(id) FROM judgments WHERE annotator_id = ? AND counts = 1", [who.id])
        if last is not None:
            excluded.append(exclusions.exclude(world.store, [last], rule="r", reason="x", by=None).id)
    elif act == "lift":
        if excluded:
            exclusions.lift(world.store, excluded.pop(), reason="y", by=None)
    else:
        world.rank(who) if act == "rank" else world.skip(who)


def worked_out(store):
    """What the triggers keep, worked out again from the rows of acts alone."""
    rows = [dict(row) for row in store.rows("SELECT * FROM judgments")]
    superseded = {row["supersedes"] for row in rows}
    excluded = {
        row[0]
        for row in store.rows(
            "SELECT judgment_id FROM excluded_judgments WHERE exclusion_id NOT IN (SELECT exclusion_id FROM exclusion_lifts)"
        )
    }
    stands = [row for row in rows if row["verdict"] != "retract" and row["id"] not in superseded]
    votes = [row for row in stands if row["verdict"] == "rank" and row["id"] not in excluded]
    held = [row["comparison_id"] for row in store.rows("SELECT * FROM leases WHERE ended_at IS NULL")]
    counts = {}
    for row in store.rows("SELECT * FROM comparisons ORDER BY id"):
        of_this = [vote for vote in votes if vote["comparison_id"] == row["id"]]
        skips = [one for one in stands if one["comparison_id"] == row["id"] and one["verdict"] == "skip"]
        counts[row["id"]] = (len(of_this), len(skips), held.count(row["id"]))
    return {
        "counts": counts,
        "votes": {vote["id"] for vote in votes},
        "judged": {row[0]: sum(one["annotator_id"] == row[0] for one in stands) for row in store.rows("SELECT id FROM annotators")},
    }


def kept(store):
    return {
        "counts": {
            row["id"]: (row["human_ranks"], row["human_skips"], row["leased"])
            for row in store.rows("SELECT * FROM comparisons ORDER BY id")
        },
        "votes": {row[0] for row in store.rows("SELECT id FROM votes")},
        "judged": {row[0]: row[1] for row in store.rows("SELECT id, judged FROM annotators")},
    }


ACTS = st.lists(
    st.tuples(st.sampled_from(["rank", "rank", "skip", "undo", "lapse", "correct", "exclude", "lift"]), st.booleans()),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS, overlap=st.integers(1, 2))
def test_any_sequence_of_acts_keeps_count_and_history(new_world, acts, overlap):
    with tempfile.TemporaryDirectory() as folder:
        world = new_world(Database(Path(folder) / "rankloop.db"))
        project.change(world.store, ProjectSettings(overlap=overlap), by=None)
        world.comparisons(4)
        excluded = []
        for act, is_ann in acts:
            before = [row[:-1] for row in history(world.store)]
            act_out(world, act, world.ann if is_ann else world.bob, excluded)
            # All but the last column, which says whether it counts now.
            assert [row[:-1] for row in history(world.store)][: len(before)] == before
            expected = worked_out(world.store)
            assert kept(world.store) == expected
            ranks_and_leases = {key: ranks + leased for key, (ranks, _, leased) in expected["counts"].items()}
            in_line = {row[0] for row in world.store.rows("SELECT comparison_id FROM queue")}
            assert in_line == {key for key, taken in ranks_and_leases.items() if taken < overlap}
            assert "lift" in dict(acts) or all(taken <= overlap for taken in ranks_and_leases.values())
        world.store.close()
