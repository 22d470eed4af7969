"""What the charts of a run draw."""

import pytest
from validation_row import FOUND

from feedback_ui.shared.i18n import Translator
from feedback_ui.training import charts
from rlhf.analysis.validation import Validation
from storage.core.records import Metric

EN, KO = Translator("en"), Translator("ko")


def test_the_learning_curve_shows_intervals_and_extrapolates_by_two_hundred():
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
    # The steps are told apart by their colour.
    assert list(line.marker.color) == [1, 2, 3] and line.marker.showscale and line.marker.colorbar.title.text == "step"
    # A KL that is measured on samples may come out below 0.
    assert charts.score_over_kl(EN, [*scores[:1], *points_of("kl", -0.1)]).data[0].x[0] == 0


def test_disagreement_is_a_band_around_the_score():
    upper, lower, line = charts.score_over_kl(
        EN, points_of("scores", 0.5, 1.0) + points_of("kl", 1.0, 4.0) + points_of("disagreement", 0.1, 0.3)
    ).data
    assert list(upper.y) == pytest.approx([0.6, 1.3]) and list(lower.y) == pytest.approx([0.4, 0.7]) and lower.fill == "tonexty"
    assert list(line.y) == [0.5, 1.0]
    assert len(charts.score_over_kl(EN, points_of("scores", 0.5) + points_of("kl", 1.0) + points_of("disagreement", 0.0)).data) == 1


def test_a_word_is_said_of_a_kl_below_zero():
    assert charts.on_negative_kl(EN, points_of("kl", 0.0, 1.0)) == ""
    assert charts.on_negative_kl(EN, points_of("kl", -0.1, 1.0, -0.2)).startswith("In 2 steps the KL came out below 0 and is drawn at 0")
