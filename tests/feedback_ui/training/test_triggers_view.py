"""The triggers as the Training page shows them, in both languages."""

from datetime import UTC, datetime

import pytest

from feedback_ui.shared.i18n import Translator
from feedback_ui.training import triggers_view
from rlhf.runs.dry_run import DryRun
from rlhf.runs.triggers import Hold, Triggers
from storage.core.records import QueuedRound

EN, KO = Translator("en"), Translator("ko")
DUE = datetime(2026, 11, 28, 3, tzinfo=UTC)


def standing(after=50, schedule="0 3 * * *", counted=12, due=(), hold=None, last=None):
    return Triggers(after, schedule, counted, counted, DUE if schedule else None, due, hold, last)


def asked(state, run_id=None, reason=None):
    at = "2026-11-27T03:00:04.000+00:00"
    return QueuedRound(3, "schedule", "people", {}, None, at, state, run_id, reason, at)


def test_without_triggers_rounds_begin_by_hand():
    assert "by hand alone" in triggers_view.section(EN, Triggers(0, "", 0, 0, None, (), None, None), {})


def test_how_far_each_trigger_is():
    shown = triggers_view.section(EN, standing(), {"preset": "tiny", "model": "/home/ann/base", "ppo-steps": 7})
    for part in ("12 of 50", "2026-11-28 03:00", "No round is due", "preset tiny, model base, ppo-steps 7", 'data-state="waiting"'):
        assert part in shown, part
    assert "/home" not in shown
    assert "50건 중 12건" in triggers_view.section(KO, standing(), {})
    assert "Next time" not in triggers_view.section(EN, standing(schedule=""), {})
    assert "New judgments" not in triggers_view.section(EN, standing(after=0), {})


@pytest.mark.parametrize(
    "hold, words",
    [
        (None, "it begins within seconds"),
        (Hold("training", "r9"), "run r9 trains"),
        (Hold("queued", "4"), "round 4 of the queue is before it"),
        (Hold("undecided", "2"), "the version of round 2 is not decided about"),
    ],
)
def test_a_trigger_that_is_due_says_what_it_waits_for(hold, words):
    shown = triggers_view.section(EN, standing(due=("schedule",), hold=hold), {})
    assert words in shown and f'data-state="{"held" if hold else "due"}"' in shown


@pytest.mark.parametrize(
    "row, words",
    [
        (asked("started", "r7"), "(the schedule): run r7"),
        (asked("not started", reason="3 pairs, need 20"), "(the schedule): not started. 3 pairs, need 20"),
        (asked("taken out"), "taken out of the queue."),
        (asked("waiting"), "in the queue."),
    ],
)
def test_what_came_of_the_last_time(row, words):
    assert words in triggers_view.section(EN, standing(last=row), {})


def test_a_dry_run_has_its_figures_and_why_a_round_would_not_start():
    would = DryRun(None, None, 0, 476, 89, 40, 3, None, 6.1)
    shown = triggers_view.dry_run(EN, would, None)
    for part in ("476", "89", "40", "6 min", "could begin now. Nothing was started"):
        assert part in shown, part
    assert "Too few." in triggers_view.dry_run(EN, would, "Too few.")
