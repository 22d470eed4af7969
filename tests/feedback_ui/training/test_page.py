"""The Training page's handlers, called as Gradio calls them."""

import pytest
from called_pages import EN, ENGLISH, asking, filled_in

from rlhf.config import ConfigError
from rlhf.data.pairs import NotEnoughPairs
from rlhf.runs.jobs import RoundError
from rlhf.runs.results import Estimate, RoundResult
from storage.project import runs


@pytest.mark.parametrize("error", [RoundError("3 runs, need 1"), RoundError("r9 is running: wait for it")])
def test_a_refused_start_says_why(training, jobs, error):
    jobs.refuse(error)
    shown = training.start_round(filled_in(training), ENGLISH)
    assert str(error) in shown[training.refusal]
    assert training.progress not in shown


TOO_FEW = NotEnoughPairs("3 teach · 9 measure: pass --min-pairs 3", found=3, needed=50)
NO_WEIGHT = NotEnoughPairs("60 teach · 9 measure, and all that teach have the weight 0", found=60, needed=50)


@pytest.mark.parametrize(
    ("error", "request_", "message"),
    [
        (
            TOO_FEW,
            "en",
            "and this round asks for 50: judge 47 more comparisons on training prompts, or set “Fewest pairs” to 3.",
        ),
        (TOO_FEW, "ko", "비교를 47건 더 판정해 주세요. 또는 ‘최소 선호 쌍 수’를 3개로 낮추세요."),
        (NO_WEIGHT, "en", "60 teach · 9 measure, and all that teach have the weight 0."),
        (NO_WEIGHT, "ko", "요청을 처리하지 못했습니다. 60 teach · 9 measure, and all that teach have the weight 0."),
        (ConfigError("--ppo-steps 0: must be greater than 0"), "en", "“PPO steps” 0: must be greater than 0."),
        (ConfigError("--ppo-steps 0: must be greater than 0"), "ko", "‘PPO 스텝 수’ 0: must be greater than 0."),
        (ConfigError("2 steps: too few"), "en", "2 steps: too few."),
        (ConfigError("--ppo-steps 0 and --data x: no"), "en", "no. What to type on the server stands in its log."),
    ],
)
def test_a_refusal_names_options_as_the_form_does(training, jobs, error, request_, message):
    jobs.refuse(error)
    assert message in training.start_round(filled_in(training), asking(request_))[training.refusal]


def test_cancel_and_resume(training, store):
    training.start_round(filled_in(training), ENGLISH)
    shown = training.cancel_round("r1", ENGLISH)
    assert runs.get(store, "r1").cancel_requested
    assert "Stopping" in shown[training.progress]
    runs.finish(store, "r1", "cancelled")
    assert training.show(EN, "r1")[training.resume].visible
    assert training.resume_round("r1", ENGLISH)[training.cancel].visible


def test_without_runs_only_the_empty_state_is_shown(training):
    shown = training.open(None, ENGLISH)
    assert "No round has been run yet" in shown[training.progress]
    assert training.picker not in shown


def test_a_reload_shows_the_active_run(training, store):
    for run_id, end in (("old", "done"), ("now", None)):
        runs.create(store, run_id, config={}, seed=0, versions={})
        if end:
            runs.finish(store, run_id, end)
    assert training.open(None, ENGLISH)[training.shown_state].run_id == "now"
    assert training.open("old", ENGLISH)[training.shown_state].run_id == "old"


def test_a_tick_sends_nothing_when_nothing_has_changed(training, store):
    runs.create(store, "r", config={}, seed=0, versions={})
    runs.finish(store, "r", "done")
    drawn = training.show(EN, "r")[training.shown_state]
    assert training.progress not in training.follow("r", drawn, ENGLISH)


def test_a_tick_draws_a_plot_again_only_for_new_points(training, store):
    runs.create(store, "r", config={}, seed=0, versions={})
    plots = set(training.plots.values())
    drawn = training.show(EN, "r")[training.shown_state]
    assert not plots & set(training.follow("r", drawn, ENGLISH))
    runs.log_metrics(store, "r", 1, {"reward/loss": 0.6})
    assert plots <= set(training.follow("r", drawn, ENGLISH))


def test_empty_axes_are_shown_only_for_metrics_to_come(training, store):
    def sections(update):
        return [update[section].visible for section in (training.reward_section, training.policy_section)]

    runs.create(store, "r", config={}, seed=0, versions={})
    shown = training.show(EN, "r")
    assert sections(shown) == [True, True], "of a run under way"
    runs.create(store, "probe alone", config={"reward": {"epochs": 0}}, seed=0, versions={})
    assert sections(training.show(EN, "probe alone")) == [False, True]
    runs.log_metrics(store, "r", 1, {"reward/loss": 0.6})
    runs.finish(store, "r", "cancelled")
    assert sections(training.follow("r", shown[training.shown_state], ENGLISH)) == [True, False]


def test_the_validation_card_appears_before_the_policy_is_trained_and_is_sent_once(training, store):
    runs.create(store, "r", config={}, seed=0, versions={})
    shown = training.show(EN, "r")
    assert "before the policy is trained" in shown[training.validation_card] and shown[training.validation_row].visible is False
    drawn = shown[training.shown_state]
    assert training.validation_card not in training.follow("r", drawn, ENGLISH)
    runs.set_validation(store, "r", {"pairs": 3, "judgments": 3, "prompts": 1, "accuracy": None})
    after = training.follow("r", drawn, ENGLISH)
    assert "on one prompt" in after[training.validation_card] and after[training.validation].visible
    assert after[training.validation_details] == "" and after[training.validation_row].visible is False
    assert training.validation_card not in training.follow("r", after[training.shown_state], ENGLISH)
    runs.create(store, "from before", config={}, seed=0, versions={})
    runs.finish(store, "from before", "done")
    assert training.show(EN, "from before")[training.validation].visible is False


def test_a_tick_does_not_update_the_open_list_of_runs(training, store):
    runs.create(store, "r", config={}, seed=0, versions={})
    drawn = training.show(EN, "r")[training.shown_state]
    assert training.picker not in training.follow("r", drawn, ENGLISH)
    runs.finish(store, "r", "failed")
    shown = training.follow("r", drawn, ENGLISH)
    assert "failed" in shown[training.picker].choices[0][0]
    assert shown[training.resume].visible


def test_the_pairs_are_counted_again_when_a_run_begins_or_ends(training, store):
    runs.create(store, "r", config={}, seed=0, versions={})
    drawn = training.show(EN, "r")[training.shown_state]
    assert training.material not in training.follow("r", drawn, ENGLISH)
    runs.mark_started(store, "r", 1)
    begun = training.follow("r", drawn, ENGLISH)
    assert "No preference pairs yet" in begun[training.material]
    assert training.material not in training.follow("r", begun[training.shown_state], ENGLISH)


def test_a_run_that_stopped_at_chance_asks_and_goes_on_when_told_to(training, store, jobs):
    runs.create(store, "r", config={}, seed=0, versions={})
    result = RoundResult(heldout_accuracy=Estimate(0.52, 0.41, 0.63, 80), stopped_at_chance=True)
    runs.finish(store, "r", "cancelled", error="It stopped at chance.", result=result.to_json())
    shown = training.show(EN, "r")
    assert "52% (41 to 63%) of 80 held-out pairs" in shown[training.verdict] and "Waits for your answer" in shown[training.progress]
    assert (shown[training.go_on].visible, shown[training.resume].visible) == (True, False)
    assert shown[training.picker].choices == [("r · waits for your answer", "r")]
    after = training.go_on_round("r", ENGLISH)
    assert jobs.gone_on and after[training.verdict] == "" and after[training.go_on].visible is False
