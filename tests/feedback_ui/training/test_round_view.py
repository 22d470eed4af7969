"""The story of a round on the Training page, and the buttons of a researcher, called as Gradio calls them."""

import pytest
from called_pages import EN, ENGLISH, asking
from round_play import BASE, Rounds

from feedback_ui.shared.i18n import Translator
from feedback_ui.training import round_view
from rlhf.analysis import round_story
from rlhf.runs import deciding
from rlhf.runs.results import GuardCheck, RoundResult
from storage.core.records import ProjectSettings
from storage.project import rounds, runs, settings

KO = Translator("ko")


@pytest.fixture
def play(store):
    return Rounds(store)


def section(play, found, translate=EN):
    found = rounds.get(play.store, found.id)
    drawn = deciding.sequence(play.store, found) if found.is_open else []
    return round_view.section(translate, round_story.of_round(play.store, found.id), drawn)


def test_an_open_round_shows_its_votes_guards_comparisons_and_what_is_missing(play):
    found = play.round("r1")
    runs.set_snapshot(play.store, "r1", {"pairs": 1234, "train": 1000, "heldout": 234, "simulated": 3, "sha256": "0123456789abcdef01"})
    result = RoundResult(guards=[GuardCheck("empty", 0.02, high=0.1), GuardCheck("kl", 4.04, high=50.0)])
    runs.finish(play.store, "r1", "done", result=result.to_json())
    play.deciding(found, "wwwlt-")
    shown = section(play, found)
    for part in (
        "Round 1",
        "being compared",
        "1,000 teach · 234 measure",
        "0123456789abcdef<",
        "Empty answers",
        "2%",
        "at most 10%",
        "4.0",
        "Judged",
        "70% (",
    ):
        assert part in shown, part
    assert shown.count("<li") >= 5 and "more comparisons" in shown
    assert "비교 중" in section(play, found, KO) and "빈 답변" in section(play, found, KO)


@pytest.mark.parametrize(
    ("votes", "project", "sentence"),
    [
        ("", ProjectSettings(), "Not decided: at most 200 more comparisons are needed."),
        ("wwwwwwwl" * 6, ProjectSettings(), "would promote it, but 1 of the 2 annotators"),
        ("lllllllw" * 6, ProjectSettings(), "would reject it, but 1 of the 2 annotators"),
        ("wwwwwwwl" * 6, ProjectSettings(deciding_annotators=1), "The comparisons promote it"),
    ],
)
def test_the_verdict_is_a_sentence(play, votes, project, sentence):
    settings.change(play.store, project, by=None)
    found = play.round("r1")
    play.deciding(found, votes)
    assert sentence in section(play, found)


def test_one_annotator_s_taste_is_told(play):
    found = play.round("r1")
    play.deciding(found, "wwwwwwwl" * 6)
    play.deciding(found, "lwl", by=play.bob)
    assert "not without the votes of one annotator" in section(play, found)
    waits = play.round("r2")
    assert "Another version is compared first" in section(play, waits)


def test_a_decided_round_shows_who_decided_and_why(play):
    found = play.round("r1")
    rounds.decide(play.store, found.version, "promoted", decided_by="comparisons", reason="It won.", evidence={
        "units": 48, "annotators": 2, "win_rate": 0.875, "low": 0.7, "high": 0.95, "evidence_better": 31.0, "evidence_worse": 0.1,
    })  # fmt: skip
    rounds.roll_back(play.store, BASE, reason="It <swears>.", by=play.ann.id)
    shown = section(play, found)
    for part in (
        "v-r1 was promoted in place of tiny",
        "by comparisons",
        "It won.",
        "v-r1 was rolled back to tiny",
        "Ann",
        "88% (70% to 95%)",
    ):
        assert part in shown, part
    assert "It &lt;swears&gt;." in shown and "promoted, rolled back since" in shown


def test_evidence_that_rankloop_did_not_write_is_left_out(play):
    found = play.round("r1")
    evidence = {"units": "many", "win_rate": [1], "low": None, "high": 1}
    rounds.decide(play.store, found.version, "promoted", decided_by="comparisons", reason="It won.", evidence=evidence)
    assert "It won." in section(play, found)


# ---- the buttons


def visible(training, shown):
    return {name: shown[getattr(training, name)].visible for name in ("decision", "promote", "reject", "roll_back")}


def test_a_researcher_promotes_rejects_and_rolls_back(training, store):
    play = Rounds(store)
    found = play.round("r1")
    shown = training.open("r1", ENGLISH)
    assert visible(training, shown) == {"decision": True, "promote": True, "reject": True, "roll_back": False}
    shown = training.promote_version("r1", " It is kinder. ", ENGLISH)
    assert visible(training, shown) == {"decision": True, "promote": False, "reject": False, "roll_back": True}
    assert shown[training.reason] == "" and "current policy" in shown[training.round] and play.current() == "v-r1"
    shown = training.take_back("r1", "It swears.", ENGLISH)
    assert visible(training, shown) == {"decision": True, "promote": True, "reject": True, "roll_back": False}
    shown = training.reject_version("r1", "For good.", ENGLISH)
    assert visible(training, shown) == {"decision": True, "promote": True, "reject": False, "roll_back": False}
    made = rounds.decisions_of(store, found.id)
    assert [(d.act, d.reason) for d in made] == [
        ("promoted", "It is kinder."), ("rolled back", "It swears."), ("rejected", "For good."),
    ]  # fmt: skip
    assert {d.by_id for d in made} != {None}


@pytest.mark.parametrize("reason", ["", "  ", None])
def test_without_a_reason_nothing_is_decided(training, store, reason):
    Rounds(store).round("r1")
    for act in (training.promote_version, training.reject_version, training.take_back):
        assert "A decision needs a reason" in act("r1", reason, ENGLISH)[training.decided]
        assert "이유가 필요합니다" in act("r1", reason, asking("ko"))[training.decided]
    assert rounds.decisions(store) == []


def test_a_second_page_cannot_roll_back_what_it_does_not_show(training, store):
    play = Rounds(store)
    first, second = play.round("r1"), play.round("r2")
    for found in (first, second):
        rounds.decide(store, found.version, "promoted", decided_by="person", reason="Because.")
    assert "v-r1 is not the current policy" in training.take_back("r1", "It swears.", ENGLISH)[training.decided]
    assert play.current() == "v-r2"


def test_a_run_without_a_version_has_no_buttons(training, store):
    play = Rounds(store)
    runs.create(store, "alone", config={}, seed=0, versions={})
    shown = training.open("alone", ENGLISH)
    assert shown[training.round] == "" and shown[training.decision].visible is False
    runs.create(store, "young", config={}, seed=0, versions={})
    rounds.create(store, "young", trigger="hand", judges="people", baseline=play.base)
    shown = training.open("young", ENGLISH)
    assert "in training" in shown[training.round] and shown[training.decision].visible is False
    assert "no policy version" in training.promote_version("young", "Now.", ENGLISH)[training.decided]


def test_a_tick_sends_the_story_again_only_when_something_was_done(training, store):
    play = Rounds(store)
    found = play.round("r1")
    shown = training.open("r1", ENGLISH)
    drawn = shown[training.shown_state]
    assert training.round not in training.follow("r1", drawn, ENGLISH)
    play.deciding(found, "w")
    assert "Judged" in training.follow("r1", drawn, ENGLISH)[training.round]
