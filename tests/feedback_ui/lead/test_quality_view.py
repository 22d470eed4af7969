"""Pictures of intervals and of sides."""

import re
from dataclasses import replace
from datetime import date

import pytest
from lead_page import EN

from feedback_ui.lead import quality_view
from rlhf.analysis.agreement import Alpha, AnnotatorRow, LeftShare, Share
from rlhf.analysis.drift import Drift
from rlhf.analysis.target import Outlook
from rlhf.data.reliability import AnnotatorReliability


@pytest.mark.parametrize(
    "spread, drawn",
    [
        ((0.5, 0.25, 1.0), "left:25.0%;width:75.0%"),
        ((-0.2, -0.5, 0.1), "left:0.0%;width:10.0%"),
        ((0.3, None, None), "left:30.0%;width:0.0%"),
    ],
)
def test_intervals_are_drawn_between_0_and_1(spread, drawn):
    assert drawn in quality_view.interval(spread)


def test_a_significant_position_bias_is_highlighted():
    rows = [quality_view._left_cell(EN, LeftShare(0.9, low, 0.98, 20, p)) for low, p in ((0.7, 0.0004), (0.4, 0.2))]
    assert "rl-warn" in rows[0] and "p &lt; 0.001" in rows[0]
    assert "rl-warn" not in rows[1] and "p = 0.200" in rows[1]


def test_a_reliability_stands_beside_what_it_comes_from():
    gold = Share(0.9, 0.6, 0.98, 9, 10)
    known = AnnotatorReliability(1, "Ann", "human", 120, 80, 0.71, gold, 0.82, 0.6, 0.95, 1.31)
    unknown = AnnotatorReliability(2, "Bo", "simulated", 4, 0, None, Share(None, None, None, 0, 0), None, None, None, 1.0)
    shown = quality_view.reliability_table(EN, [known, unknown], {})
    ann, bo = shown.split("</tr>")[1:3]
    for part in ("Ann", "82%", "60% to 95%", "left:60.0%;width:35.0%", ">120<", "71%", "/ 80", "90%", "/ 10", "1.31"):
        assert part in ann, part
    assert "no shared pair and no known answer yet" in bo and "1.00" in bo and "simulated" in bo
    assert quality_view.reliability_table(EN, [], {}) == ""


def a_row(number, name, *, median=None, agreement=None, units=0):
    none = Share(None, None, None, 0, 0)
    return AnnotatorRow(number, name, "human", 40, 0, median, none, none, LeftShare(None, None, None, 0, None), agreement, units)


def test_people_who_are_hasty_disagree_or_drift_come_first_with_their_numbers():
    rows = [
        a_row(1, "<b>Ann</b>", median=0.94, agreement=0.9, units=40), a_row(2, "Bob", median=3.0, agreement=0.5, units=10),
        a_row(3, "Cy", median=2.99, agreement=0.2, units=9), a_row(4, "Di", agreement=0.9, units=40),
    ]  # fmt: skip
    drifts = {1: Drift(0.9, 0.8, 12, -0.3, 0.1), 2: Drift(0.9, 0.9, 12, -0.2, 0.2), 4: Drift(0.9, 0.4, 12, -0.71, -0.14)}
    html = quality_view.people(EN, rows, drifts, acts=True)
    found = [(int(number), said) for number, said in re.findall(r'<li data-person="(\d)">.*?</strong> (.*?)</p>', html)]
    assert [number for number, _ in found] == [1, 2, 3, 4]
    assert "took less than 0.9 s, under the bound of 3 s" in found[0][1]
    assert "in 50% of 10 pairs, no better than chance" in found[1][1]
    assert "less than 3.0 s" in found[2][1], "nine pairs are too few to say that Cy disagrees"
    assert "90% of the first 12 shared votes and in 40% of the last (change −71 to −14 points)" in found[3][1]
    assert "&lt;b&gt;Ann&lt;/b&gt;" in html and "Too few shared votes to say all of this of Cy." in html
    assert html.count('data-act="judgments"') == html.count('data-act="exclude"') == 4
    assert 'data-act="exclude"' not in quality_view.people(EN, rows, drifts, acts=False)
    assert "Nobody stands out" in quality_view.people(EN, [a_row(5, "Eve", median=9.0, agreement=0.9, units=20)], {}, acts=True)


def test_the_overall_figures_say_what_they_mean():
    assert quality_view._alpha(EN, Alpha(-0.15, -0.3, 0.1), 24, 12)[2] == "of 24 pairs · no better than chance; look at the guidelines"
    assert quality_view._alpha(EN, Alpha(-0.15), 9, 9)[2] == "of 9 pairs · too few to say: 9 of the 10 that are needed"
    assert "one answer that everybody prefers" in quality_view._unanimous(EN, Share(0.5, 0.3, 0.7, 5, 10))[2]
    assert "people disagree about most comparisons" in quality_view._unanimous(EN, Share(0.4, 0.2, 0.6, 4, 10))[2]
    assert "4 of 9 · too few to say" in quality_view._unanimous(EN, Share(0.4, 0.2, 0.6, 4, 9))[2]
    longer = quality_view._longer(EN, Share(0.71, 0.62, 0.79, 71, 100))[2]
    assert longer == "71 of 100 · votes prefer longer answers, by 21 points over an even split; the Leaderboard can leave length out"
    assert "no sign that length decides" in quality_view._longer(EN, Share(0.55, 0.45, 0.65, 55, 100))[2]
    assert "different length yet" in quality_view._longer(EN, Share(None, None, None, 0, 0))[2]
    assert "the left answer wins too often" in quality_view._left(EN, LeftShare(0.9, 0.7, 0.98, 20, 0.0004))[2]


def test_each_figure_of_an_annotator_says_what_it_means():
    row = replace(
        a_row(1, "Ann", median=0.9, agreement=0.4, units=12), gold=Share(0.9, 0.6, 0.98, 9, 10), consistency=Share(0.75, 0.5, 0.9, 3, 4)
    )
    html = quality_view.annotator_table(EN, [row], acts=True)
    for said in ("hasty: too short to read two answers", "careful: knows", "no better than chance", "4 of the 10 that are needed"):
        assert html.count(said) == 1, said
    assert "Excluded" in html and "0 of the 10" not in html
    assert quality_view.annotator_table(EN, [a_row(1, "Ann")], acts=True).count("0 of the 10 that are needed") == 3


def test_drift_is_said_of_everybody_who_has_voted_enough():
    none = Share(None, None, None, 0, 0)
    ann, bo = (AnnotatorReliability(n, name, "human", 40, 36, 0.7, none, 0.3, 0.1, 0.5, 0.4) for n, name in ((1, "Ann"), (2, "Bo")))
    html = quality_view.reliability_table(EN, [ann, bo], {1: Drift(0.9, 0.4, 12, -0.71, -0.14)})
    assert "−50 points" in html and "agrees less than at first" in html and "fewer than 30 shared votes" in html
    assert html.count("hardly more than a coin flip") == 2


def test_an_interval_that_is_too_wide_says_nothing():
    none = Share(None, None, None, 0, 0)
    ann, bo = (AnnotatorReliability(1, "A", "human", 40, 36, 0.7, none, 0.29, low, high, 0.4) for low, high in ((0.01, 0.98), (0.1, 0.6)))
    html = quality_view.reliability_table(EN, [ann, bo], {})
    assert html.count("the interval is too wide") == html.count("hardly more than a coin flip") == 1


def an_outlook(**changes):
    found = Outlook(600, date(2026, 12, 12), 400, 7, 10.0, 3, date(2026, 12, 18), 13.34)
    return replace(found, **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {},
            "At 10.0 a day (the last 7 days) it is reached on 2026-12-18, 6 days late. By its day it needs 14 a day. That is 5 for",
        ),
        ({"reached": date(2026, 12, 11)}, "it is reached on 2026-12-11, 1 day early."),
        ({"reached": date(2026, 12, 12)}, "it is reached on 2026-12-12. By its day"),
        ({"by": None, "needed": None, "days": 1}, "At 10.0 a day (1 day so far) it is reached on 2026-12-18.<"),
        ({"reached": None}, "it is not reached in a hundred years. By its day"),
        ({"per_day": 0, "people": 0, "reached": None}, "Nobody judged here lately (the last 7 days): at this rate it is not reached. By"),
        ({"needed": None}, "6 days late. Its day has passed."),
        ({"done": 600, "reached": None, "needed": None}, "The target is reached.<"),
    ],
)
def test_a_target_says_when_it_is_reached(changes, says):
    html = quality_view.target(EN, an_outlook(**changes), 0)
    assert says in html and "600 judgments" in html and "daily goal" not in html


def test_a_target_stands_beside_the_daily_goal():
    html = quality_view.target(EN, an_outlook(), 40)
    assert "Target: 600 judgments by 2026-12-12" in html and "400 of 600 are there, imported ones left out." in html
    assert "3 people who judged lately. Their daily goal is 40." in html
    assert quality_view.target(EN, None, 40) == ""
