"""The validation card of the Training page, for a validation written by hand."""

from copy import deepcopy

import pytest

from feedback_ui.shared.i18n import Translator
from feedback_ui.training import charts, validation_view
from rlhf.analysis.validation import Validation
from storage.core.records import Annotator, Comparison, Metric, Prompt, Run

EN, KO = Translator("en"), Translator("ko")

FOUND = {
    "pairs": 412, "judgments": 400, "prompts": 96,
    "accuracy": {"value": 0.684, "low": 0.631, "high": 0.739, "pairs": 412, "prompts": 96},
    "calibration": {
        "confidence": 0.61, "accuracy": 0.68, "ece": 0.074, "ece_by_chance": 0.031,
        "bins": [
            {"low": 0.5, "high": 0.55, "pairs": 0, "confidence": None, "accuracy": None},
            {"low": 0.55, "high": 0.6, "pairs": 100, "confidence": 0.58, "accuracy": 0.66},
            {"low": 0.6, "high": 0.65, "pairs": 312, "confidence": 0.62, "accuracy": 0.7},
        ],
    },
    "curve": {
        "points": [
            {"judgments": 60.0, "accuracy": 0.6, "low": 0.52, "high": 0.66},
            {"judgments": 320.0, "accuracy": 0.68, "low": 0.62, "high": 0.73},
        ],
        "asymptote": 0.2, "half_saturation": 100.0, "additional_judgments": 200, "gain": {"value": 0.0213, "low": 0.004, "high": 0.0391},
    },
    "by_kind": [
        {
            "kind": "short_story", "pairs": 300, "prompts": 80,
            "accuracy": {"value": 0.7, "low": 0.6, "high": 0.8, "pairs": 300, "prompts": 80},
        },
        {"kind": "<i>code", "pairs": 12, "prompts": 4, "accuracy": None},
    ],
    "by_annotator": [
        {
            "annotator_id": 1, "pairs": 390, "prompts": 90,
            "accuracy": {"value": 0.66, "low": 0.6, "high": 0.7, "pairs": 390, "prompts": 90},
        },
        {"annotator_id": 2, "pairs": 22, "prompts": 6, "accuracy": None},
    ],
    "high_loss_judgments": [
        {"judgment_id": 31, "comparison_id": 12, "annotator_id": 1, "probability": 0.004},
        {"judgment_id": 32, "comparison_id": 13, "annotator_id": 2, "probability": 0.26},
    ],
}  # fmt: skip

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


def said(**changes):
    return validation_view.card(EN, a_run(FOUND, **changes))


def test_the_card_says_accuracy_gain_and_calibration_in_words():
    html = said()
    for part in (
        "68%", "63% to 74%", "in 68 of 100 pairs", "200 more judgments would buy about 2.1 points of accuracy (0.4 to 3.9)",
        "right more often than it says", "7 points off", "up to 3 would be chance", "412 pairs of 96 training prompts",
    ):  # fmt: skip
        assert part in html
    # 63.1% and 73.9% of the width, with a mark at half.
    assert 'style="left:63.1%;width:10.8%"' in html and 'style="left:50%"' in html


def test_before_it_is_known_the_card_says_when_and_a_run_from_before_says_nothing():
    assert "before the policy learns" in validation_view.card(EN, a_run())
    assert validation_view.card(EN, a_run(status="done")) == ""
    assert validation_view.details(EN, a_run(), {}, {}) == ""


def test_what_cannot_be_told_from_chance_is_a_warning():
    html = said(accuracy={"value": 0.53, "low": 0.47, "high": 0.59, "pairs": 412, "prompts": 96})
    assert "coin flips: 53 of 100" in html and "rl-warn" in html
    assert "rl-warn" not in said()


def test_few_prompts_give_no_interval_and_say_how_many_are_needed():
    html = said(accuracy={"value": 0.6, "low": None, "high": None, "pairs": 40, "prompts": 7}, curve__gain=None)
    assert "7 prompts are too few for an interval: judge comparisons of at least 10" in html and "60%" in html
    assert "fewer than 100 pairs or 10 prompts nothing is said" in html
    one = validation_view.card(EN, a_run({"pairs": 3, "judgments": 3, "prompts": 1, "accuracy": None}))
    assert "All preference pairs are on one prompt" in one


@pytest.mark.parametrize(("low", "claimed"), [(0.001, True), (0.0, False), (-0.01, False)])
def test_nothing_is_promised_where_the_interval_reaches_zero(low, claimed):
    curve = {**FOUND["curve"], "gain": {"value": 0.0213, "low": low, "high": 0.0391}}
    assert ("would buy about" in said(curve=curve)) is claimed
    assert ("do not tell" in said(curve=curve)) is not claimed
    lines = [trace for trace in charts.learning_curve(EN, Validation.from_json({**FOUND, "curve": curve})).data if trace.mode == "lines"]
    assert len(lines) == (2 if claimed else 0)


@pytest.mark.parametrize(
    ("confidence", "ece", "words"),
    [(0.61, 0.02, "at their word"), (0.61, 0.074, "right more often"), (0.75, 0.074, "too sure of itself")],
)
def test_calibration_in_words(confidence, ece, words):
    assert words in said(calibration__confidence=confidence, calibration__ece=ece)


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
    assert "No judgment went against" in validation_view.details(EN, a_run(FOUND, high_loss_judgments=[]), PEOPLE, {})


def test_korean_says_the_same_figures():
    run = a_run(FOUND)
    html = validation_view.card(KO, run) + validation_view.details(KO, run, PEOPLE, JUDGED)
    for part in ("68%", "63%~74%", "약 2.1%p", "선호 쌍 412개", "평가자별", "비교 12 열기"):
        assert part in html
    assert "Accuracy" not in html and "prompts" not in html


# ---- plots


def test_the_learning_curve_shows_points_with_intervals_and_carries_on_by_two_hundred():
    figure = charts.learning_curve(EN, Validation.from_json(FOUND))
    dots, until_now, beyond = figure.data
    assert (list(dots.x), list(dots.y)) == ([60, 320], [0.6, 0.68])
    assert list(dots.error_y.array) == pytest.approx([0.06, 0.05]) and list(dots.error_y.arrayminus) == pytest.approx([0.08, 0.06])
    assert (until_now.x[0], until_now.x[-1], beyond.x[0], beyond.x[-1]) == (60, 400, 400, 600)
    # 1/2 + 0.2 sqrt(n / (n + 100)) at 300 would be 0.673; here at both ends of the extrapolation.
    assert (beyond.y[0], beyond.y[-1]) == (pytest.approx(0.5 + 0.2 * 0.8**0.5), pytest.approx(0.5 + 0.2 * (6 / 7) ** 0.5))
    assert (until_now.line.dash, beyond.line.dash) == ("solid", "dash")


def test_reliability_shows_filled_bins_against_the_diagonal():
    diagonal, dots = charts.reliability(EN, Validation.from_json(FOUND)).data
    assert (list(diagonal.x), list(diagonal.y)) == ([0.5, 1], [0.5, 1])
    assert (list(dots.x), list(dots.y), list(dots.customdata)) == ([0.58, 0.62], [0.66, 0.7], [100, 312])
    assert dots.marker.size[1] == 16 > dots.marker.size[0]


def test_empty_plots_have_the_size_of_full_ones():
    for draw in (charts.learning_curve, charts.reliability):
        assert draw(EN, None).layout.height == draw(EN, Validation.from_json(FOUND)).layout.height


def points_of(metric, *values):
    return [Metric(f"objective/{metric}", step, value) for step, value in enumerate(values, 1)]


def test_the_score_is_drawn_over_the_root_of_the_kl():
    scores, kl = points_of("scores", 0.5, 1.0, 0.8), points_of("kl", 0.0, 4.0, 9.0, 16.0)
    (line,) = charts.score_over_kl(EN, [*reversed(scores), *kl]).data
    assert (list(line.x), list(line.y), list(line.customdata)) == ([0, 2, 3], [0.5, 1.0, 0.8], [1, 2, 3])
    # The reward model's score without the penalty, if it is logged.
    paid_less = charts.score_over_kl(EN, [*scores, *kl, *points_of("proxy_scores", 0.7, 1.2, 1.3)])
    assert list(paid_less.data[0].y) == [0.7, 1.2, 1.3]
    # A KL that is measured on samples may come out below 0.
    assert charts.score_over_kl(EN, [*scores[:1], *points_of("kl", -0.1)]).data[0].x[0] == 0


def test_disagreement_is_a_band_around_the_score():
    upper, lower, line = charts.score_over_kl(
        EN, points_of("scores", 0.5, 1.0) + points_of("kl", 1.0, 4.0) + points_of("disagreement", 0.1, 0.3)
    ).data
    assert list(upper.y) == pytest.approx([0.6, 1.3]) and list(lower.y) == pytest.approx([0.4, 0.7]) and lower.fill == "tonexty"
    assert list(line.y) == [0.5, 1.0]
    assert len(charts.score_over_kl(EN, points_of("scores", 0.5) + points_of("kl", 1.0) + points_of("disagreement", 0.0)).data) == 1
