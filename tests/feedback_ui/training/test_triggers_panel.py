"""The handlers of the triggers on the Training page, called as Gradio calls them."""

import pytest
from called_pages import ENGLISH, filled_in

from rlhf.config import ConfigError
from rlhf.runs import triggers
from storage.core.records import ProjectSettings
from storage.project import queued_rounds, runs, settings


@pytest.fixture
def panel(training):
    return training.triggers


def change(training, after, schedule, **options):
    panel = training.triggers
    return panel.change(filled_in(training, **options) | {panel.after: after, panel.schedule: schedule}, ENGLISH)


def test_what_is_saved_is_shown_with_the_options_of_the_form(training, panel, store, local):
    shown = change(training, 50, " 0 3  * * * ", ppo_steps=7)
    assert "Saved" in shown[panel.message] and "0 of 50" in shown[panel.state] and shown[panel.schedule] == "0 3 * * *"
    saved = settings.current(store)
    assert (saved.retrain_after_judgments, saved.retrain_schedule) == (50, "0 3 * * *")
    assert saved.retrain_options == {"preset": "laptop", "ppo-steps": 7}
    assert store.value("SELECT by_id FROM settings") == local.id
    opened = panel.open(ENGLISH)
    assert (opened[panel.after], opened[panel.schedule]) == (50, "0 3 * * *")


@pytest.mark.parametrize(
    "after, schedule, options, why",
    [
        (-1, "", {}, "must be 0 to 1000000"),
        (5, "every day", {}, "five fields"),
        (5, "", {"ppo_steps": 0}, "PPO steps"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_saved(training, panel, store, after, schedule, options, why):
    shown = change(training, after, schedule, **options)
    assert why in shown[panel.message] and panel.state not in shown
    assert settings.current(store) == ProjectSettings()


def test_empty_fields_turn_the_triggers_off(training, panel, store):
    change(training, 50, "0 3 * * *")
    shown = change(training, None, None)
    assert "by hand alone" in shown[panel.state] and settings.current(store).retrain_after_judgments == 0


def test_a_tick_sends_nothing_while_nothing_changes(training, panel, store):
    seen = panel.open(ENGLISH)[panel.shown_state]
    assert panel.state not in panel.follow(seen, ENGLISH)
    change(training, 50, "")
    assert "0 of 50" in panel.follow(seen, ENGLISH)[panel.state]


def test_a_dry_run_starts_nothing(training, panel, store):
    change(training, 50, "", min_pairs=7)
    shown = panel.try_out(ENGLISH)
    assert "ound needs 7 preference pairs" in shown[panel.message] and "No round is due" in shown[panel.state]
    assert runs.all_runs(store) == [] and queued_rounds.waiting(store) == []


def test_options_that_another_version_saved_are_named(panel, store):
    settings.change(store, ProjectSettings(retrain_after_judgments=3, retrain_options={"preset": "gone"}), by=None)
    assert "which there is not" in panel.try_out(ENGLISH)[panel.message]
    with pytest.raises(ConfigError, match="which there is not"):
        triggers.choose(store, None, after=4)
