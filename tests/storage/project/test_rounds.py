"""Rounds and decisions: which policy is current, what leaves the queue, and which votes decide. Real SQLite throughout."""

import sqlite3
from dataclasses import replace

import pytest
from round_play import BASE, Rounds

from storage.content import batches, policies
from storage.core.database import StoreError
from storage.core.records import ProjectSettings, Sampling
from storage.judging import exclusions, judgments, queue
from storage.people import annotators, audit
from storage.project import rounds, runs, settings


@pytest.fixture
def play(store):
    return Rounds(store)


def promote(play, found, **more):
    return rounds.decide(play.store, found.version, "promoted", **{"decided_by": "person", "reason": "It is kinder."} | more)


def reject(play, found, **more):
    return rounds.decide(play.store, found.version, "rejected", **{"decided_by": "person", "reason": "It rambles."} | more)


# ---- rounds


def test_a_round_begins_beside_the_current_policy_and_is_open_once_its_version_passed_its_guards(play):
    base = policies.ensure_base(play.store, BASE)
    runs.create(play.store, "r1", config={}, seed=1, versions={}, by=play.ann.id)
    begun = rounds.create(play.store, "r1", trigger="judgments", judges="people", baseline=base)
    assert (begun.run_id, begun.trigger, begun.judges, begun.baseline_version_id) == ("r1", "judgments", "people", base.id)
    assert (begun.by_id, begun.status, begun.version, begun.decision, begun.is_open) == (play.ann.id, "queued", None, None, False)
    tuned = policies.register_tuned(play.store, name="t", base_model=BASE, adapter_path="runs/r1/policy", run_id="r1")
    runs.finish(play.store, "r1", "done")
    assert not rounds.get(play.store, begun.id).is_open and rounds.open_rounds(play.store) == []
    rounds.set_guards(play.store, begun.id, "passed")
    ended = rounds.get(play.store, begun.id)
    assert (ended.version, ended.guards, ended.is_open) == (tuned, "passed", True)
    assert rounds.open_rounds(play.store) == rounds.all_rounds(play.store) == [ended] == [rounds.of_run(play.store, "r1")]
    with pytest.raises(StoreError, match="no round 7.*rankloop rounds"):
        rounds.get(play.store, 7)


def test_a_run_has_one_round(play):
    play.round("r1")
    with pytest.raises(StoreError, match="UNIQUE constraint failed: rounds.run_id"):
        rounds.create(play.store, "r1", trigger="hand", judges="people", baseline=play.base)


def test_one_version_is_asked_about_at_a_time_the_oldest_first(play):
    first, second = play.round("r1"), play.round("r2")
    other_base, simulated = play.round("r3", base="hub/other"), play.round("r4", judges="simulated")
    play.round("r5", guards="failed"), play.round("r6", guards=None)
    assert [found.run_id for found in rounds.open_rounds(play.store)] == ["r1", "r2", "r3", "r4"]
    assert rounds.asked(play.store, BASE, "people") == first
    assert rounds.asked(play.store, "hub/other", "people") == other_base
    assert rounds.asked(play.store, BASE, "simulated") == simulated
    reject(play, first)
    assert rounds.asked(play.store, BASE, "people").id == second.id
    promote(play, second)
    assert rounds.asked(play.store, BASE, "people") is None


# ---- decisions


def test_the_base_is_current_until_a_version_is_promoted(play):
    assert play.current() == "tiny" and rounds.states(play.store) == {}
    first, second = play.round("r1"), play.round("r2")
    made = promote(play, first, by=play.bob.id, evidence={"win_rate": 0.7})
    assert (made.round_id, made.version_id, made.act, made.decided_by) == (first.id, first.version.id, "promoted", "person")
    assert (made.by_id, made.reason, made.evidence) == (play.bob.id, "It is kinder.", {"win_rate": 0.7})
    assert made.current_before_id == play.base.id
    assert play.current() == "v-r1" and rounds.get(play.store, first.id).decision == made
    promote(play, second)
    assert play.current() == "v-r2" and rounds.left_out(play.store) == frozenset()
    assert rounds.states(play.store) == {play.base.id: "replaced", first.version.id: "replaced", second.version.id: "current"}
    assert rounds.current(play.store, "hub/other").name == "other", "each base model has a current policy of its own"
    assert [decision.version_id for decision in rounds.decisions(play.store)] == [first.version.id, second.version.id]


def test_a_rejected_version_is_left_out_and_a_person_may_overrule(play):
    found = play.round("r1")
    reject(play, found, decided_by="guards")
    assert (play.current(), rounds.left_out(play.store)) == ("tiny", {found.version.id})
    promote(play, found)
    assert (play.current(), rounds.left_out(play.store)) == ("v-r1", frozenset())
    assert [made.act for made in rounds.decisions_of(play.store, found.id)] == ["rejected", "promoted"]


def test_guards_and_comparisons_decide_a_round_once(play):
    found = play.round("r1")
    promote(play, found, decided_by="comparisons")
    for decided_by in ("comparisons", "guards"):
        with pytest.raises(rounds.AlreadyDecided, match="v-r1 is decided about already"):
            reject(play, found, decided_by=decided_by)
    rejected = play.round("r2")
    reject(play, rejected)
    with pytest.raises(rounds.AlreadyDecided):
        promote(play, rejected, decided_by="comparisons")
    # The database itself refuses it too: two processes may decide at once.
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE constraint failed"):
        play.store.connection.conn.execute(
            "INSERT INTO decisions (round_id, version_id, act, decided_by, reason, current_before_id, created_at) "
            "SELECT round_id, version_id, act, decided_by, reason, current_before_id, created_at FROM decisions WHERE id = 1"
        )


@pytest.mark.parametrize("reason", ["", "  \n", "x" * 2_001])
def test_a_decision_needs_a_reason_of_a_sentence_or_two(play, reason):
    found = play.round("r1")
    for act in (promote, reject):
        with pytest.raises(StoreError, match="reason"):
            act(play, found, reason=reason)
    promote(play, found)
    with pytest.raises(StoreError, match="reason"):
        rounds.roll_back(play.store, BASE, reason=reason)
    assert len(rounds.decisions(play.store)) == 1


def test_what_cannot_be_decided_is_refused_with_the_remedy(play):
    found = play.round("r1")
    with pytest.raises(StoreError, match="tiny is a base version"):
        rounds.decide(play.store, play.base, "rejected", decided_by="person", reason="No.")
    promote(play, found)
    with pytest.raises(StoreError, match="v-r1 is the current policy: roll back instead"):
        reject(play, found)
    with pytest.raises(StoreError, match="v-r1 is the current policy"):
        promote(play, found)


def test_rollbacks_go_back_one_promotion_after_another(play):
    with pytest.raises(StoreError, match="tiny is current and nothing was before it"):
        rounds.roll_back(play.store, BASE, reason="Back.")
    first, second = play.round("r1"), play.round("r2")
    promote(play, first), promote(play, second)
    made = rounds.roll_back(play.store, BASE, reason="It swears.", by=play.ann.id)
    assert (made.act, made.version_id, made.current_before_id) == ("rolled back", first.version.id, second.version.id)
    assert made.round_id == second.id, "the story of the round whose version was taken back"
    assert (play.current(), rounds.left_out(play.store)) == ("v-r1", {second.version.id})
    assert rounds.states(play.store)[second.version.id] == "rolled back"
    rounds.roll_back(play.store, BASE, reason="This one too.")
    assert (play.current(), rounds.left_out(play.store)) == ("tiny", {first.version.id, second.version.id})
    rounds.roll_back(play.store, BASE, reason="It was the prompt.", to=second.version)
    assert (play.current(), rounds.left_out(play.store)) == ("v-r2", {first.version.id})


def test_a_rollback_goes_only_to_what_was_current(play):
    first, never, other = play.round("r1"), play.round("r2"), play.round("r3", base="hub/other")
    promote(play, first), promote(play, other)
    for target, why in (
        (never, "v-r2 was never the current policy"),
        (other, "v-r3 was never"),
        (first, "v-r1 is the current policy already"),
    ):
        with pytest.raises(StoreError, match=why):
            rounds.roll_back(play.store, BASE, reason="Back.", to=target.version)
    rounds.roll_back(play.store, BASE, reason="Back.", to=play.base)
    assert play.current() == "tiny" and rounds.current(play.store, "hub/other").name == "v-r3"


@pytest.mark.usefixtures("distinct_times")
def test_decisions_are_in_the_audit(play):
    found = play.round("r1")
    promote(play, found, by=play.bob.id)
    rounds.roll_back(play.store, BASE, reason="It swears.", by=play.ann.id)
    acts = [(entry.who, entry.act, entry.subject, entry.subject_id, entry.detail) for entry in audit.entries(play.store)]
    assert acts[:2] == [
        ("Ann", "rolled back", "policy", "tiny", "It swears."),
        ("Bob", "promoted", "policy", "v-r1", "It is kinder."),
    ]


# ---- what decisions do to the queue


def test_a_decision_retires_the_waiting_comparisons_that_it_makes_pointless(play):
    found, base = play.round("r1"), play.base
    skipped, judged = (play.comparison(found.version, base, round_id=found.id) for _ in range(2))
    play.rank(play.ann, judged, base)
    waits = play.comparison(found.version, base, round_id=found.id)
    own = play.comparison(found.version, found.version, purpose="collect")
    others = play.comparison(base, base, purpose="collect")
    batch = batches.request(play.store, [found.version.id], completions=2, sampling=Sampling(), count=1, by=None)
    ordered = play.comparison(found.version, base, purpose="batch", batch_id=batch.id)
    reject(play, found)
    retired = {comparison_id for comparison_id, gone in play.rows("id, retired") if gone}
    assert retired == {waits, own}
    assert play.store.value("SELECT counts FROM judgments WHERE comparison_id = ? AND verdict = 'rank'", [judged]) == 1
    # What somebody was shown stays: an undo of the skip must lead back to it, as it does with any other.
    assert {others, ordered, skipped} <= {*play.waiting()}


def test_a_promotion_keeps_what_waits_of_the_version_that_made_room(play):
    found, base = play.round("r1"), play.base
    deciding, collecting = play.comparison(found.version, base, round_id=found.id), play.comparison(base, base, purpose="collect")
    promote(play, found)
    assert dict(play.rows("id, retired")) == {deciding: 1, collecting: 0}


def test_nothing_tells_an_annotator_who_has_a_comparison_open_of_the_decision(play):
    found, base = play.round("r1"), play.base
    first, second = (play.comparison(found.version, base, round_id=found.id) for _ in range(2))
    ann, bob = play.ann, play.bob
    kept, let_go = play.open(ann, first), play.open(bob, second)
    reject(play, found)
    assert queue.next_presentation(play.store, ann.id)[1] == kept, "a reload shows it again"
    assert queue.renew(play.store, kept.id, ann.id)
    tiers = tuple((item,) for item in kept.order)
    assert judgments.save(play.store, kept, ann.id, verdict="rank", tiers=tiers).counts
    judgments.undo(play.store, ann.id)
    assert queue.next_presentation(play.store, ann.id)[1] == kept
    with play.store.atomic() as connection:
        connection.conn.execute("UPDATE leases SET expires_at = '2020-01-01' WHERE annotator_id = ? AND ended_at IS NULL", [bob.id])
    queue.expire_leases(play.store, settings.current(play.store))
    assert judgments.save(play.store, let_go, bob.id, verdict="rank", tiers=tuple((item,) for item in let_go.order)).counts, "as any other"


def test_what_simulated_annotators_alone_judge_never_comes_to_people(play):
    found = play.round("r1", judges="simulated")
    asked = play.comparison(found.version, play.base, round_id=found.id, wanted=0)
    settings.change(play.store, replace(settings.current(play.store), overlap=3), by=None)
    assert asked not in play.waiting()


# ---- the votes that decide


def units(play, found, opponent=None):
    found = rounds.get(play.store, found.id)
    return rounds.deciding_units(play.store, found, opponent or play.base)


def test_each_deciding_comparison_is_one_unit_in_the_order_in_which_it_was_shown(play):
    found, base = play.round("r1"), play.base
    asked = [play.comparison(found.version, base, round_id=found.id) for _ in range(4)]
    ann, bob = play.ann, play.bob
    play.rank(ann, asked[0], found.version)
    play.rank(bob, asked[1], None)
    play.rank(bob, asked[3], base)
    assert [(unit.comparison_id, unit.value) for unit in units(play, found)] == [(asked[0], 1.0), (asked[1], 0.5), (asked[3], 0.0)]
    assert [vote.annotator_id for unit in units(play, found) for vote in unit.votes] == [ann.id, bob.id, bob.id]
    assert rounds.asked_comparisons(play.store, found.id) == 4


def test_a_unit_enters_with_all_its_votes_and_has_their_mean(play):
    settings.change(play.store, ProjectSettings(overlap=2), by=None)
    found, base = play.round("r1"), play.base
    one, two = (play.comparison(found.version, base, round_id=found.id) for _ in range(2))
    ann, bob = play.ann, play.bob
    play.rank(ann, one, found.version)
    assert units(play, found) == [], "half of its votes would be seen before the other half"
    play.rank(ann, two, found.version)
    play.rank(bob, one, base)
    play.rank(bob, two, found.version)
    assert [unit.value for unit in units(play, found)] == [0.5, 1.0]


def test_corrections_keep_their_place_and_what_is_undone_or_excluded_leaves(play):
    found, base = play.round("r1"), play.base
    asked = [play.comparison(found.version, base, round_id=found.id) for _ in range(3)]
    ann = play.ann
    ids = [play.rank(ann, comparison_id, found.version) for comparison_id in asked]
    order = judgments.presentations.get(play.store, judgments.get(play.store, ids[0]).presentation_id).order
    judgments.correct(play.store, ids[0], ann.id, verdict="rank", tiers=(tuple(order),))
    assert [unit.value for unit in units(play, found)] == [0.5, 1.0, 1.0]
    exclusions.exclude(play.store, [ids[1]], rule="too fast", reason="0.2 s", by=None)
    assert [unit.comparison_id for unit in units(play, found)] == [asked[0], asked[2]]
    # The last act of Ann is the correction of the first.
    judgments.undo(play.store, ann.id)
    assert [unit.comparison_id for unit in units(play, found)] == [asked[2]]


def test_people_and_rules_never_decide_together(play):
    found, base = play.round("r1"), play.base
    simulated = play.round("r2", judges="simulated")
    asked, other = play.comparison(found.version, base, round_id=found.id), play.comparison(simulated.version, base, round_id=simulated.id)
    play.rule_ranks(asked, found.version), play.rule_ranks(other, base)
    play.rank(play.ann, asked, base)
    play.rank(play.bob, other, base)
    assert [vote.annotator_id for unit in units(play, found) for vote in unit.votes] == [play.ann.id]
    assert [vote.annotator_id for unit in units(play, simulated) for vote in unit.votes] == [play.rule.id]


def test_only_comparisons_with_the_present_opponent_count(play):
    first, second = play.round("r1"), play.round("r2")
    asked = play.comparison(second.version, play.base, round_id=second.id)
    elsewhere = play.comparison(second.version, play.base, purpose="collect")
    for comparison_id in (asked, elsewhere):
        play.rank(play.ann, comparison_id, second.version)
    assert [unit.comparison_id for unit in units(play, second)] == [asked]
    promote(play, first)
    assert units(play, second, rounds.current(play.store, BASE)) == []


def test_a_vote_that_cannot_be_read_is_left_out(play, caplog):
    found = play.round("r1")
    asked = [play.comparison(found.version, play.base, round_id=found.id) for _ in range(2)]
    for comparison_id in asked:
        play.rank(play.ann, comparison_id, found.version)
    connection = play.store.connection.conn
    connection.execute("DROP TRIGGER judgments_are_not_changed")
    connection.execute("UPDATE judgments SET tiers = '[[' WHERE comparison_id = ?", [asked[0]])
    assert [unit.comparison_id for unit in units(play, found)] == [asked[1]]
    assert "cannot be read" in caplog.text


def test_the_revision_changes_with_each_act_that_can_change_a_decision(play):
    found, seen = play.round("r1", guards=None), set()

    def changed() -> bool:
        before = len(seen)
        seen.add(rounds.revision(play.store))
        return len(seen) > before

    assert changed() and not changed()
    rounds.set_guards(play.store, found.id, "passed")
    assert changed()
    asked = play.comparison(found.version, play.base, round_id=found.id)
    vote = play.rank(play.ann, asked, found.version)
    assert changed()
    excluded = exclusions.exclude(play.store, [vote], rule="too fast", reason="0.2 s", by=None)
    assert changed()
    exclusions.lift(play.store, excluded.id, reason="It was not.", by=None)
    assert changed()
    settings.change(play.store, ProjectSettings(deciding_annotators=1), by=None)
    assert changed()
    promote(play, found)
    assert changed() and not changed()
    annotators.ensure(play.store, "Eve")
    assert not changed()
