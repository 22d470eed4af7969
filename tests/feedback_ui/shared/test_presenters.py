"""Presenters are pure functions from records to HTML, compared with the texts that a reader should see."""

import re

import pytest

from feedback_ui.shared import presenters
from feedback_ui.shared.i18n import Translator
from feedback_ui.training import charts
from storage.analytics.stats import DayOfJudging
from storage.core.records import Metric

EN, KO = Translator("en"), Translator("ko")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.2, "1 s"), (20, "20 s"), (89, "89 s"), (90, "2 min"), (660, "11 min"), (5400, "1 h 30 min"), (7200, "2 h")],
)
def test_durations(seconds, expected):
    assert presenters.duration(EN, seconds) == expected


def test_pairs_from_people_and_simulated_ones_are_counted_separately():
    html = presenters.pairs_available(EN, (28, 73), (1, 0))
    assert "from people: 28 teach · 73 measure. From simulated annotators (used only if included): 1 teach · 0 measure." in html
    assert "judge some comparisons" in presenters.pairs_available(EN, (0, 0), (0, 0))
    assert "hardly tell" not in presenters.pairs_available(EN, (28, 20), (0, 0), few_measure=20)
    assert "19 pairs of people measure" in presenters.pairs_available(EN, (28, 19), (0, 0), few_measure=20)
    left_out = presenters.pairs_available(EN, (0, 0), (0, 0), unused_starter_votes=204)
    assert "count now" in left_out and "204 votes on starter prompts are left out" in left_out and "judge some" not in left_out
    assert "Demo" not in html
    assert "4 votes of the Demo page are left out" in presenters.pairs_available(EN, (2, 1), (1, 0), demo_votes=4)


def test_notices_are_escaped():
    assert "&lt;b&gt;" in presenters.notice("<b>", "bad")
    assert presenters.notice("") == ""


def test_an_error_reads_as_a_sentence():
    assert presenters.sentence(ValueError("no answer from x")) == "No answer from x."
    assert presenters.sentence(ValueError("")) == "ValueError."
    assert presenters.sentence(ValueError("r9 is running: wait")) == "r9 is running: wait."
    assert presenters.sentence(ValueError("http://127.0.0.1/v1 refused.")) == "http://127.0.0.1/v1 refused."


def test_the_overview_counts_people_and_simulated_annotators_separately():
    stats = {
        "prompts": 241, "prompts_in_use": 241, "completions": 1600, "comparisons": 8, "judgments": {"human": 1204, "simulated": 31},
        "annotators": {"human": 1, "simulated": 2}, "runs": {"done": 1}, "policy_versions": 2, "queue_depth": 5,
        "labels_not_used_in_training": {"good": 0, "bad": 0},
    }  # fmt: skip
    html = presenters.overview(EN, stats, [DayOfJudging("2026-11-02", 4, 0)])
    assert "<dt>by people</dt><dd>1,204</dd>" in html
    assert "<dt>simulated</dt><dd>31</dd>" in html
    assert "1,235" not in html and "not used in training" not in html
    html = presenters.overview(EN, stats | {"labels_not_used_in_training": {"good": 3, "bad": 4}}, [])
    assert "<dt>answers labelled good or bad (not used in training)</dt><dd>7</dd>" in html
    assert "Import prompts or start with the packaged ones" in presenters.overview(EN, stats | {"prompts": 0}, [])


def test_a_bar_a_day_is_as_high_as_its_share_of_the_highest():
    days = [DayOfJudging("2026-11-01", 1, 0), DayOfJudging("2026-11-02", 0, 0), DayOfJudging("2026-11-03", 2, 8)]
    html = presenters.judgments_by_day(EN, days)
    assert re.findall(r'class="rl-of-(\w+)" style="height:([\d.]+)%"', html) == [
        ("people", "12.5"), ("people", "25.0"), ("simulated", "100.0"),
    ]  # fmt: skip
    assert html.count("<li ") == 3
    assert "3 Nov: 2 by people, 8 simulated" in html
    assert "highest bar: 8 judgments" in html


def test_without_judgments_the_chart_says_where_to_judge():
    html = presenters.judgments_by_day(EN, [DayOfJudging("2026-11-01", 0, 0)])
    assert "They are given on the Compare page." in html and "<figure" not in html


def test_a_day_is_formatted_for_the_language():
    assert presenters.day(EN, "2026-03-09") == "9 Mar"
    assert presenters.day(KO, "2026-03-09T23:10:00.000+00:00") == "3월 9일"


def test_a_chart_draws_its_metric_in_order_of_steps():
    metrics = [Metric("reward/loss", 2, 0.5), Metric("reward/loss", 1, 0.7), Metric("objective/kl", 1, 9.0)]
    figure = charts.figure(EN, charts.REWARD_CHARTS[0], metrics)
    assert (list(figure.data[0].x), list(figure.data[0].y)) == ([1, 2], [0.7, 0.5])
    assert "0.5" in figure.layout.title.text


def test_an_empty_chart_has_the_size_of_a_full_one():
    empty = charts.figure(EN, charts.REWARD_CHARTS[0], [])
    assert len(empty.data[0].x) == 0
    assert empty.layout.height == charts.figure(EN, charts.REWARD_CHARTS[0], [Metric("reward/loss", 1, 0.7)]).layout.height
