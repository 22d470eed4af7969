"""How standings and one's own progress are shown, for boards written by hand."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from feedback_ui.leaderboard import leaderboard_view
from feedback_ui.leaderboard.leaderboard_view import everyone, own, streak
from feedback_ui.shared.i18n import Translator
from rlhf.analysis.leaderboard import Leaderboard, ScoreEstimate, Standing
from rlhf.analysis.style import StyleEffect
from storage.core.records import Annotator

EN, KO = Translator("en"), Translator("ko")
TODAY = date(2026, 11, 23)


def standing(name, score, low=None, high=None, *, group=0, rank=1, over=None, **figures):
    return Standing(1, name, "tuned", group, rank, ScoreEstimate(score, low, high), over, figures.get("votes", 30), 20, 4, 6)


def board(*standings, references=("base",), **changes):
    shares = tuple(tuple(None if i == j else 0.5 for j in range(len(standings))) for i in range(len(standings)))
    met = tuple(tuple(0 if i == j else 30 for j in range(len(standings))) for i in range(len(standings)))
    made = Leaderboard(False, 30, 30, 25, "newman", references, False, standings, shares, met)
    return replace(made, **changes)


BASE = standing("base", 1000.0, 1000.0, 1000.0, rank=2)


def test_an_interval_is_coloured_where_it_lies_on_one_side():
    shown = [
        leaderboard_view.policies(EN, board(standing("x", value, low, high), BASE), with_switch=False)
        for value, low, high in ((1100.0, 1050.0, 1150.0), (1020.0, 980.0, 1060.0), (900.0, 850.0, 950.0), (1100.0, None, None))
    ]
    assert ["rl-above" in s for s in shown] == [True, False, False, False]
    assert ["rl-below" in s for s in shown] == [False, False, True, False]


def test_the_interval_is_in_the_text_too():
    shown = leaderboard_view.policies(
        EN, board(standing("x", 1100.0, 1050.0, 1150.0, over=ScoreEstimate(0.64, 0.57, 0.70)), BASE), with_switch=False
    )
    assert "1,050 to 1,150" in shown and "64%" in shown and "57%–70%" in shown and "20 · 4 · 6" in shown


def test_a_score_is_drawn_at_its_position_on_the_scale():
    scale = leaderboard_view.Scale(900.0, 1100.0)
    # 6% of 200 points to each side: 888 to 1112.
    assert (scale.at(888.0), scale.at(1000.0), scale.at(1112.0)) == (pytest.approx(0), pytest.approx(50), pytest.approx(100))
    assert 'class="rl-reference-line" style="left:50.0%"' in scale.picture(standing("x", 1050.0))
    assert ">900<" in scale.marks() and ">1,000<" in scale.marks()
    assert 2 <= scale.marks().count("<i") <= 5


def test_the_scale_reaches_every_interval():
    rows = [standing("x", 2400.0, 1900.0, 3300.0), standing("y", 400.0, 100.0, 700.0)]
    scale = leaderboard_view.Scale.around(rows)
    assert all(0 < scale.at(end) < 100 for end in (100.0, 1000.0, 3300.0))


def test_a_name_stays_text():
    shown = leaderboard_view.policies(EN, board(standing("<b>x</b>", 1100.0), BASE, standing("z", 900.0)), with_switch=False)
    assert "<b>x" not in shown and "&lt;b&gt;x" in shown


def test_groups_without_comparisons_between_them_are_announced():
    shown = leaderboard_view.policies(
        EN, board(standing("x", 1100.0), BASE, standing("p", 1010.0, group=1), references=("base", None)), with_switch=False
    )
    assert "2 groups without comparisons between them" in shown and "Group 2" in shown


def test_what_votes_prefer_in_style_is_said_where_it_is_taken_out():
    effects = (StyleEffect("length", 0.574, 0.531, 0.616, 1234), StyleEffect("bold", None, None, None, 0))
    plain, controlled = (leaderboard_view.policies(EN, board(BASE, style=style), with_switch=False) for style in (None, effects))
    assert "twice as long" not in plain and "covariates" not in plain
    assert "An answer twice as long is preferred in 57% of the votes (pairs that differ: 1,234)." in controlled
    assert "53%–62%" in controlled and "No two compared answers differ in bold text." in controlled and "covariates" in controlled


def test_pairs_are_shown_if_they_differ_from_the_votes():
    assert "pairs</dt>" not in leaderboard_view.policies(EN, board(BASE), with_switch=False)
    assert "pairs</dt>" in leaderboard_view.policies(EN, board(BASE, pairs=90), with_switch=False)


@pytest.mark.parametrize(
    ("included", "with_switch", "text"),
    [(False, False, "on the Lead page"), (False, True, "count the simulated"), (True, True, "on the Lead page")],
)
def test_an_empty_board_says_what_to_do(included, with_switch, text):
    assert text in leaderboard_view.policies(EN, board(include_simulated=included, references=()), with_switch=with_switch)


def test_the_method_of_the_scores_is_explained():
    text = leaderboard_view.policies(EN, board(standing("x", 1100.0), BASE, smoothed=True, method="bradley_terry"), with_switch=False)
    assert "half a win each way" in text and "fewer than 10 prompts" not in text
    assert "fewer than 10 prompts" in leaderboard_view.policies(EN, board(standing("x", 1100.0)), with_switch=False)


def test_a_streak_by_hand():
    days = {(TODAY - timedelta(days=ago)).isoformat(): 1 for ago in (0, 1, 2, 4)}
    assert streak(days, TODAY) == 3
    # A day that has just begun does not break the streak; a whole day without a judgment does.
    assert streak(days, TODAY + timedelta(days=1)) == 3
    assert streak(days, TODAY + timedelta(days=2)) == 0
    assert streak({}, TODAY) == 0


def test_own_progress_counts_today_and_draws_thirty_days():
    shown = own(EN, {"2026-11-23": 4, "2026-11-22": 8, "2026-10-25": 2, "2026-10-24": 50}, 64, TODAY)
    assert all(part in shown for part in ("<dd>4</dd>", "<dd>64</dd>", "<dd>2 days</dd>"))
    assert shown.count("<li") == 30 and "25 Oct: 2" in shown and "24 Oct" not in shown
    assert 'style="height:100%"' in shown and 'style="height:50%"' in shown


def test_before_the_first_judgment_the_page_says_where_to_judge():
    assert "Compare page" in own(EN, {}, 0, TODAY) and "‘판정하기’ 페이지" in own(KO, {}, 0, TODAY)


def test_everybody_is_listed_most_judgments_first_and_rules_are_not():
    people = [
        Annotator(1, "Ann", "human", None, "p1", False, 5), Annotator(2, "Bob <i>", "human", None, "p2", True, 10),
        Annotator(3, "idle", "human", None, "p3", True, 0), Annotator(4, "rule", "simulated", "length", "p4", True, 99),
    ]  # fmt: skip
    shown = everyone(EN, people, 1)
    assert shown.index("Bob &lt;i&gt;") < shown.index("Annotator 2 (you)")
    assert "idle" not in shown and "rule" not in shown and "width:50.0%" in shown
    assert "Nobody has judged" in everyone(EN, people[2:], 1)
