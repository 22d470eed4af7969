"""Names and notes of runs, written on the Training page."""

from called_pages import EN, ENGLISH

from storage.people import audit
from storage.project import runs


def test_a_name_is_saved_and_shown_wherever_the_run_is(training, store):
    runs.create(store, "r1", config={}, seed=0, versions={})
    runs.finish(store, "r1", "failed")
    drawn = training.show(EN, "r1")[training.shown_state]
    naming = training.naming
    assert naming.load("r1", ENGLISH)[naming.name] == "" and naming.load("r1", ENGLISH)[naming.fold].visible
    saved = naming.write("r1", " Lower  KL ", "Half of it.", ENGLISH)
    assert (saved[naming.name], saved[naming.note]) == ("Lower KL", "Half of it.") and "Saved." in saved[naming.message]
    shown = training.follow("r1", drawn, ENGLISH)
    assert "Lower KL" in shown[training.progress] and shown[training.picker].choices == [("Lower KL · r1 · failed", "r1")]
    assert naming.load("r1", ENGLISH)[naming.note] == "Half of it."
    assert [(e.who, e.act, e.subject_id, e.detail) for e in audit.entries(store, act="named")] == [("local", "named", "r1", "Lower KL")]


def test_a_name_that_is_too_long_is_refused_and_nothing_is_written(training, store):
    runs.create(store, "r1", config={}, seed=0, versions={})
    shown = training.naming.write("r1", "n" * 81, "", ENGLISH)
    assert "at most 80" in shown[training.naming.message] and runs.newest_name(store) == 0
    assert training.naming.name not in shown, "what was typed stays"


def test_without_a_run_there_is_nothing_to_name(training):
    assert training.naming.load(None, ENGLISH)[training.naming.fold].visible is False
    assert "no run" in training.naming.write(None, "x", None, ENGLISH)[training.naming.message]
