"""When guards let a version in, comparisons decide about it: by whom, how often, and what a killed process leaves behind."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from round_play import Rounds
from waiting import until

from rlhf.runs import deciding
from rlhf.runs.deciding import DecisionWatcher, decide_open_rounds, standing
from storage.core.database import Database
from storage.core.records import ProjectSettings
from storage.judging import exclusions, judgments
from storage.people import annotators
from storage.project import rounds, settings

WON = "wwwwwwwl" * 6
"""48 comparisons of which the new version wins 42: evidence far above 20 for it."""

LOST = "lllllllw" * 6


@pytest.fixture
def play(store):
    return Rounds(store)


def judged(play, found, outcomes, *people):
    """The comparisons are judged by these people in turn."""
    people = people or (play.ann, play.bob)
    for n, outcome in enumerate(outcomes):
        play.deciding(found, outcome, by=people[n % len(people)])


def test_a_version_that_wins_is_promoted_once_and_with_its_evidence(play):
    found = play.round("r1")
    judged(play, found, WON)
    (made,) = decide_open_rounds(play.store)
    assert (made.round_id, made.act, made.decided_by, made.by_id) == (found.id, "promoted", "comparisons", None)
    assert (made.evidence["verdict"], made.evidence["units"], made.evidence["win_rate"]) == ("promote", 48, 42 / 48)
    assert made.evidence["annotators"] == 2 and made.evidence["opponent"] == "tiny" and made.evidence["evidence_better"] > 20
    assert made.reason.startswith("promote after 48 comparisons with tiny by 2 annotators: win rate 88% (")
    assert play.current() == "v-r1" and decide_open_rounds(play.store) == []
    assert len(rounds.decisions(play.store)) == 1


def test_a_version_that_loses_is_rejected(play):
    found = play.round("r1")
    judged(play, found, LOST)
    assert [made.act for made in decide_open_rounds(play.store)] == ["rejected"]
    assert play.current() == "tiny" and rounds.left_out(play.store) == {found.version.id}


def test_without_evidence_nothing_is_decided_until_the_last_comparison(play):
    settings.change(play.store, ProjectSettings(deciding_most=12), by=None)
    found = play.round("r1")
    judged(play, found, "wl" * 5 + "w")
    assert decide_open_rounds(play.store) == [] and standing(play.store, found).waits_for == "comparisons"
    judged(play, found, "w")
    (made,) = decide_open_rounds(play.store)
    assert (made.act, made.evidence["units"]) == ("rejected", 12), "it was not shown to be better"


def test_one_annotator_alone_decides_nothing_unless_the_project_says_so(play):
    found = play.round("r1")
    judged(play, found, WON, play.ann)
    stands = standing(play.store, found)
    assert (stands.assessment.verdict, stands.waits_for, stands.annotators, stands.annotators_needed) == ("promote", "annotators", 1, 2)
    assert decide_open_rounds(play.store) == []
    settings.change(play.store, ProjectSettings(deciding_annotators=1), by=None)
    assert [made.act for made in decide_open_rounds(play.store)] == ["promoted"]


def test_the_verdict_must_stand_without_any_one_annotator(play):
    found = play.round("r1")
    judged(play, found, WON, play.ann)
    judged(play, found, "lwl", play.bob)
    stands = standing(play.store, found)
    # Without Ann, Bob's one win of three.
    assert (stands.assessment.verdict, stands.waits_for, stands.without_one) == ("promote", "agreement", 1 / 3)
    assert decide_open_rounds(play.store) == []
    judged(play, found, "ww", play.bob)
    assert standing(play.store, found).without_one == 3 / 5
    assert [made.act for made in decide_open_rounds(play.store)] == ["promoted"]


def test_the_last_comparison_decides_without_agreement(play):
    settings.change(play.store, ProjectSettings(deciding_most=12), by=None)
    found = play.round("r1")
    judged(play, found, "l" * 4, play.ann)
    judged(play, found, "w" * 8, play.bob)
    # No evidence either way, and without Ann the win rate is 1.
    assert [made.act for made in decide_open_rounds(play.store)] == ["rejected"]


def test_several_votes_on_a_comparison_are_one_unit(play):
    settings.change(play.store, ProjectSettings(overlap=2), by=None)
    found = play.round("r1")
    asked = play.deciding(found, "-" * 3)
    for comparison_id in asked:
        play.rank(play.ann, comparison_id, found.version)
    for comparison_id in asked:
        play.rank(play.bob, comparison_id, play.base)
    stands = standing(play.store, found)
    assert (stands.assessment.units, stands.assessment.win_rate, stands.annotators) == (3, 0.5, 2)


def test_simulated_judges_decide_their_own_rounds_alone(play):
    people, rule = play.round("r1"), play.round("r2", judges="simulated")
    for comparison_id in play.deciding(people, "-" * 48) + play.deciding(rule, "-" * 48):
        play.rule_ranks(comparison_id, rule.version if comparison_id > 48 else people.version)
    (made,) = decide_open_rounds(play.store)
    assert (made.round_id, made.act, made.evidence["annotators"]) == (rule.id, "promoted", 1)


def test_rounds_that_are_not_open_are_left_alone(play):
    for name, guards in (("r1", "failed"), ("r2", None)):
        found = play.round(name, guards=guards)
        judged(play, found, WON)
    assert decide_open_rounds(play.store) == []


def test_a_vote_that_is_undone_before_the_decision_is_written_stops_it(play, monkeypatch):
    found = play.round("r1")
    judged(play, found, WON)
    seen = deciding.standing

    def first_look(store, which):
        stands = seen(store, which)
        monkeypatch.setattr(deciding, "standing", seen)
        ids = [row["id"] for row in store.rows("SELECT id FROM judgments WHERE counts = 1")]
        exclusions.exclude(store, ids, rule="too fast", reason="0.2 s", by=None)
        return stands

    monkeypatch.setattr(deciding, "standing", first_look)
    assert decide_open_rounds(play.store) == [] and rounds.decisions(play.store) == []


# ---- processes that are killed

STEPS = ("before the rows", "after the decision's row", "after the queue", "before the commit", "after the commit")


def die_at(path, step):
    """Decides in a process that ends at this step as if it was killed: nothing is rolled back or closed."""
    store = Database(path)
    insert = Database.insert

    class Dying:
        """A connection whose statements end the process."""

        def __init__(self, raw):
            self.raw = raw

        def execute(self, sql, parameters=()):
            cursor = self.raw.execute(sql, parameters)
            if step == "after the queue" and "UPDATE comparisons" in sql:
                os._exit(9)
            return cursor

        def commit(self):
            if step == "before the commit":
                os._exit(9)
            self.raw.commit()

        def __getattr__(self, name):
            return getattr(self.raw, name)

    def dying_insert(self, table, values):
        if step == "before the rows" and table == "decisions":
            os._exit(9)
        made = insert(self, table, values)
        if step == "after the decision's row" and table == "decisions":
            os._exit(9)
        return made

    Database.insert = dying_insert
    store.connection.conn = Dying(store.connection.conn)
    decide_open_rounds(store)
    os._exit(9)


@pytest.mark.parametrize("step", STEPS)
def test_a_process_that_is_killed_decides_nothing_by_halves_and_nothing_twice(play, step):
    found = play.round("r1")
    judged(play, found, LOST)
    play.deciding(found, "---")
    # A process of its own: SQLite's locks do not survive a fork.
    paths = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, __file__, str(play.store.path), step]
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 9, ended.stderr
    after = Database(play.store.path)
    try:
        made = rounds.decisions(after)
        retired = after.value("SELECT count(*) FROM comparisons WHERE retired = 1")
        # Both or neither.
        assert (len(made), retired) == ((1, 3) if step == "after the commit" else (0, 0))
        decide_open_rounds(after)
        decide_open_rounds(after)
        assert [(decision.act, decision.decided_by) for decision in rounds.decisions(after)] == [("rejected", "comparisons")]
        assert after.value("SELECT count(*) FROM comparisons WHERE retired = 1") == 3
        assert after.value("SELECT count(*) FROM judgments WHERE counts = 1") == len(LOST)
    finally:
        after.close()


# ---- the watcher


@pytest.fixture
def watcher(play):
    watching = DecisionWatcher(play.store)
    watching.start()
    yield watching
    watching.stop()


def test_a_decision_follows_the_last_vote_within_a_second(play, watcher):
    found = play.round("r1")
    judged(play, found, WON)
    started = time.monotonic()
    until(lambda: rounds.decisions(play.store))
    assert time.monotonic() - started < 5
    assert [made.act for made in rounds.decisions(play.store)] == ["promoted"]


def test_what_was_due_at_the_start_is_decided(play):
    found = play.round("r1")
    judged(play, found, LOST)
    watching = DecisionWatcher(play.store)
    watching.start()
    try:
        until(lambda: rounds.decisions(play.store))
    finally:
        watching.stop()


def test_while_nothing_changes_only_the_file_s_number_is_read(play, monkeypatch):
    play.round("r1")
    monkeypatch.setattr(deciding, "EVERY_S", 0.01)
    looks, weighed = [], []
    numbered, decide = Database.file_version, deciding.decide_open_rounds
    monkeypatch.setattr(Database, "file_version", lambda self: (looks.append(1), numbered(self))[1])
    monkeypatch.setattr(deciding, "decide_open_rounds", lambda store: (weighed.append(1), decide(store))[1])
    watching = DecisionWatcher(play.store)
    watching.start()
    try:
        until(lambda: len(looks) > 20)
        assert len(weighed) == 1, "at the start"
        annotators.ensure(play.store, "Eve")
        seen = len(looks)
        until(lambda: len(looks) > seen + 5)
        assert len(weighed) == 1, "this changes no decision"
        judged(play, rounds.all_rounds(play.store)[0], "w")
        until(lambda: len(weighed) > 1)
    finally:
        watching.stop()


def test_an_error_is_told_and_the_next_look_tries_again(play, monkeypatch, caplog):
    monkeypatch.setattr(deciding, "AFTER_ERROR_S", 0.01)
    found = play.round("r1")
    judged(play, found, WON)
    decide, errors = deciding.decide_open_rounds, ["the disk is full"]

    def failing(store):
        if errors:
            raise OSError(errors.pop())
        return decide(store)

    monkeypatch.setattr(deciding, "decide_open_rounds", failing)
    watching = DecisionWatcher(play.store)
    watching.start()
    try:
        until(lambda: rounds.decisions(play.store))
    finally:
        watching.stop()
    assert "rounds were not decided: the disk is full" in caplog.text


def test_saving_a_judgment_reads_no_more_rows_with_rounds_than_without(play):
    """The judging path knows nothing of rounds: its statements are the same."""
    found = play.round("r1")
    statements = []
    asked = play.deciding(found, "--")
    shown = play.open(play.ann, asked[0])
    play.store.connection.conn.set_trace_callback(statements.append)
    judgments.save(play.store, shown, play.ann.id, verdict="rank", tiers=tuple((item,) for item in shown.order))
    play.store.connection.conn.set_trace_callback(None)
    assert not [sql for sql in statements if "rounds" in sql or "decisions" in sql]
    assert replace(settings.current(play.store)) == ProjectSettings()


if __name__ == "__main__":
    die_at(sys.argv[1], sys.argv[2])
