"""The verdict on a run in the words of a page, in its colour, and the question of a run that has stopped at chance."""

import pytest

from feedback_ui.shared.i18n import Translator
from feedback_ui.training import verdict_view
from rlhf.runs.results import Estimate, RoundResult
from storage.core.records import Run

EN, KO = Translator("en"), Translator("ko")
EVEN, COIN = Estimate(0.46, 0.37, 0.56, 40), Estimate(0.52, 0.41, 0.63, 80)
BETTER = Estimate(0.71, 0.62, 0.79, 118)


def a_run(**changes):
    values = {
        "id": "r1", "status": "running", "config": {}, "seed": 0, "versions": {}, "snapshot": None, "stage": "ppo",
        "progress": 0.4, "eta_s": None, "cancel_requested": False, "pid": 1, "heartbeat_at": None,
        "created_at": "2026-11-02T10:00:00.000+00:00", "started_at": None, "finished_at": None, "error": None, "result": None,
    }  # fmt: skip
    return Run(**values | changes)


def shown(translate=EN, status="done", **result):
    return verdict_view.section(translate, a_run(status=status, result=RoundResult(**result).to_json()), None)


def test_the_verdict_is_one_sentence_with_its_figures():
    html = shown(win_rate=EVEN, heldout_accuracy=COIN)
    assert "No improvement shown: 46% (37 to 56%) under the rule; the reward model cannot be told from a coin: 52% (41 to 63%)." in html
    assert "나아졌다고 볼 수 없습니다: 규칙 기준 46%(37~56%)" in shown(KO, win_rate=EVEN, heldout_accuracy=COIN)


@pytest.mark.parametrize(
    ("result", "colour"),
    [
        ({"win_rate": BETTER}, "rl-good"),
        ({"win_rate": EVEN}, "rl-warn"),
        ({"win_rate_by_reward_model": BETTER}, "rl-warn"),
        ({"win_rate": Estimate(0.3, 0.2, 0.4, 40)}, "rl-bad"),
        ({}, "rl-muted"),
    ],
)
def test_it_is_coloured_by_what_it_says(result, colour):
    assert f'class="rl-run-verdict {colour}"' in shown(**result, kl=1.0)


def test_a_run_without_a_result_has_no_verdict():
    assert verdict_view.section(EN, a_run(status="running"), None) == ""
    assert verdict_view.section(EN, a_run(status="failed", error="x"), None) == ""


def test_a_run_that_has_stopped_at_chance_asks_and_names_the_figure():
    html = shown(status="cancelled", heldout_accuracy=COIN, stopped_at_chance=True)
    assert "Train the policy all the same? The reward model orders 52% (41 to 63%) of 80 held-out pairs" in html
    assert shown(status="cancelled", heldout_accuracy=COIN) == ""
