"""The validation card of the Training page, for a validation written by hand."""

from copy import deepcopy

import pytest
from validation_row import FOUND

from feedback_ui.shared.i18n import Translator
from feedback_ui.training import charts, validation_view
from rlhf.analysis.validation import Validation
from storage.core.records import Annotator, Comparison, Prompt, Run

EN, KO = Translator("en"), Translator("ko")
PEOPLE = {1: Annotator(1, "<b>Ann</b>", "human", None), 2: Annotator(2, "rule", "simulated", "{}")}
JUDGED = {12: Comparison(12, Prompt(1, ({"role": "user", "content": "<script>alert(1)</script>?"},), "k", "train"), (), "collect")}


def a_run(validation=None, status="running", **changes):
    found = deepcopy(validation)
    for path, value in changes.items():
        part, *rest = path.split("__")
        if rest:
            found[part][rest[0]] = value
        else:
            found[part] = value
    return Run("r1", status, {}, 0, {}, None, "ppo", 0.5, None, False, 1, None, "2026-11-02", None, None, None, None, found)


def card(**changes):
    return validation_view.card(EN, a_run(FOUND, **changes))


def test_the_card_describes_accuracy_gain_and_calibration():
    html = card()
    for part in (
        "68%", "63% to 74%", "in 68 of 100 pairs", "200 more judgments would raise the accuracy by about 2.1 points (0.4 to 3.9)",
        "is underconfident", "7 points off", "up to 3 are expected by chance", "412 pairs of 96 training prompts",
    ):  # fmt: skip
        assert part in html
    # 63.1% and 73.9% of the width, with a mark at half.
    assert 'style="left:63.1%;width:10.8%"' in html and 'style="left:50%"' in html


def test_before_the_validation_the_card_is_a_note_and_old_runs_have_none():
    assert "before the policy is trained" in validation_view.card(EN, a_run())
    assert validation_view.card(EN, a_run(status="done")) == ""
    assert validation_view.details(EN, a_run(), {}, {}) == ""


def test_a_reward_model_from_elsewhere_is_told_with_its_agreement():
    agreement = {"value": 0.684, "low": 0.58, "high": 0.77, "cases": 89}
    outside = {"name": "<b>sky</b>", "weight": 0.25, "agreement": agreement}
    html = card(outside=outside)
    assert "&lt;b&gt;sky&lt;/b&gt; (weight 0.25), prefers what the annotators preferred in 68% of 89 held-out pairs (58% to 77%)." in html
    assert "may be chance" not in html.split("outside-agreement")[1]
    low = validation_view.card(EN, a_run(FOUND, outside=outside | {"agreement": agreement | {"low": 0.49}}))
    assert "That may be chance." in low
    assert "no held-out pairs to compare" in card(outside={"name": "sky", "weight": 1.0})
    assert "outside-agreement" not in card()


def test_an_accuracy_that_may_be_chance_is_a_warning():
    html = card(accuracy={"value": 0.53, "low": 0.47, "high": 0.59, "pairs": 412, "prompts": 96})
    assert "in 53 of 100 pairs, which may be chance" in html and "rl-warn" in html
    assert "rl-warn" not in card()


def test_few_prompts_give_no_interval_and_say_how_many_are_needed():
    html = card(accuracy={"value": 0.6, "low": None, "high": None, "pairs": 40, "prompts": 7}, curve__gain=None)
    assert "7 prompts are too few for an interval: judge comparisons of at least 10" in html and "60%" in html
    assert "fewer than 100 pairs or 10 prompts, the gain" in html
    one = validation_view.card(EN, a_run({"pairs": 3, "judgments": 3, "prompts": 1, "accuracy": None}))
    assert "All preference pairs are on one prompt" in one


@pytest.mark.parametrize(("low", "claimed"), [(0.001, True), (0.0, False), (-0.01, False)])
def test_no_gain_is_claimed_where_the_interval_reaches_zero(low, claimed):
    curve = {**FOUND["curve"], "gain": {"value": 0.0213, "low": low, "high": 0.0391}}
    assert ("would raise the accuracy by about" in card(curve=curve)) is claimed
    assert ("do not show" in card(curve=curve)) is not claimed
    lines = [trace for trace in charts.learning_curve(EN, Validation.from_json({**FOUND, "curve": curve})).data if trace.mode == "lines"]
    assert len(lines) == (2 if claimed else 0)


@pytest.mark.parametrize(
    ("confidence", "ece", "words"),
    [(0.61, 0.02, "are calibrated"), (0.61, 0.074, "underconfident"), (0.75, 0.074, "overconfident")],
)
def test_calibration_in_words(confidence, ece, words):
    assert words in card(calibration__confidence=confidence, calibration__ece=ece)


def test_the_tables_escape_names_kinds_and_prompts_and_say_where_there_is_too_little():
    html = validation_view.details(EN, a_run(FOUND), PEOPLE, JUDGED)
    assert "<script" not in html and "<b>Ann" not in html and "<i>code" not in html
    for part in ("short story", "&lt;i&gt;code", "&lt;b&gt;Ann&lt;/b&gt;", "60% to 80%", "too few", "simulated", "&lt;script&gt;"):
        assert part in html
    assert html.count("too few") == 2


def test_each_high_loss_judgment_links_to_its_comparison():
    html = validation_view.details(EN, a_run(FOUND), PEOPLE, JUDGED)
    assert 'href="#comparison-12" target="_blank" rel="noopener" aria-label="Open comparison 12"' in html
    assert "&lt;1%" in html and "26%" in html
    # Of a comparison that is missing, everything but the prompt is still shown.
    assert 'href="#comparison-13"' in html
    assert validation_view.compared(a_run(FOUND)) == [12, 13] and validation_view.compared(a_run()) == []
    assert "The model disagrees with no judgment" in validation_view.details(EN, a_run(FOUND, high_loss_judgments=[]), PEOPLE, {})


def test_korean_shows_the_same_figures():
    run = a_run(FOUND)
    html = validation_view.card(KO, run) + validation_view.details(KO, run, PEOPLE, JUDGED)
    for part in ("68%", "63%~74%", "약 2.1%p", "선호 쌍 412개", "평가자별", "비교 12 열기"):
        assert part in html
    assert "Accuracy" not in html and "prompts" not in html
