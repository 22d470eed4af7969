"""The queue of rounds as the Training page shows it, in both languages."""

from feedback_ui.shared.i18n import Translator
from feedback_ui.training import queue_view
from storage.core.records import QueuedRound

EN, KO = Translator("en"), Translator("ko")


def queued(number=4, by=1, trigger="hand", reason=None, config=None):
    at = "2026-11-27T10:12:13.000+00:00"
    return QueuedRound(number, trigger, "people", {"method": "ppo"} if config is None else config, by, at, "waiting", None, reason, None)


def test_nothing_is_shown_while_nothing_waits():
    assert queue_view.section(EN, [], [], {}, acts=True) == ""


def test_a_row_says_who_asked_when_and_for_which_method():
    shown = queue_view.section(
        EN, [queued(), queued(5, None), queued(6, None, "judgments", config={"method": "magic"})], [], {1: "Ann"}, acts=True
    )
    rows = shown.split("<li")[1:]
    assert "Ann" in rows[0] and "2026-11-27 10:12" in rows[0] and "PPO" in rows[0] and 'data-row="4"' in rows[0]
    assert "the command line" in rows[1] and "new judgments" in rows[2] and "magic" not in rows[2]
    assert "다음 라운드" in queue_view.section(KO, [queued()], [], {1: "Ann"}, acts=True)


def test_who_may_not_act_has_no_button():
    assert "<button" in queue_view.section(EN, [queued()], [], {}, acts=True)
    assert "<button" not in queue_view.section(EN, [queued()], [], {}, acts=False)


def test_a_round_that_could_not_begin_is_shown_with_its_reason():
    shown = queue_view.section(EN, [], [queued(by=None, trigger="schedule", reason="3 pairs, need 20")], {}, acts=True)
    assert "Not started, asked for by the schedule: 3 pairs, need 20" in shown and "<ol" not in shown
