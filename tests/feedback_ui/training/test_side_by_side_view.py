"""Runs side by side: which options differ, and what stands in the columns."""

import re

import pytest

from feedback_ui.shared.i18n import Translator
from feedback_ui.training import charts, side_by_side_view
from rlhf.config import PPOConfig, RoundConfig
from tests.feedback_ui.training.test_rounds_table import a_round

EN, KO = Translator("en"), Translator("ko")
LOW_KL = RoundConfig(ppo=PPOConfig(kl_coef=0.2))


def rows(html):
    """Each row of each table: its head, and the text of its cells."""
    found = re.findall(r'<tr(?: class="([^"]+)")?><th scope="row">(.*?)</th>(.*?)</tr>', html)
    return [(head, [re.sub("<[^>]+>", "", cell) for cell in re.findall("<td>(.*?)</td>", cells)], mark) for mark, head, cells in found]


def test_only_options_that_differ_come_first_and_all_are_folded_up():
    html = side_by_side_view.options(EN, [a_round("r1"), a_round("r2", LOW_KL)])
    first, folded = html.split("<details")
    assert rows(first) == [("PPO KL coefficient", ["0.05", "0.2"], "rl-differs")]
    every = rows(folded)
    assert len(every) > 30 and [head for head, _, mark in every if mark] == ["PPO KL coefficient"]
    assert f"Show all {len(every)} options" in folded
    assert ("PPO steps", ["10", "10"], "") in every


def test_an_option_that_one_method_does_not_read_is_no_difference():
    html = side_by_side_view.options(EN, [a_round("r1"), a_round("r2", RoundConfig(method="dpo"))])
    first, folded = html.split("<details")
    assert rows(first) == [("Method", ["ppo", "dpo"], "rl-differs")]
    assert ("PPO KL coefficient", ["0.05", "not read"], "") in rows(folded)


def test_equal_runs_say_so():
    assert "the same value of every option" in side_by_side_view.options(EN, [a_round("r1"), a_round("r2")])


def test_figures_stand_with_their_intervals_and_rows_that_nobody_has_are_left_out():
    judged = {"r2": {"win_rate": 0.64, "low": 0.52, "high": 0.75, "units": 40}}
    found = {head: cells for head, cells, _ in rows(side_by_side_view.figures(EN, [a_round("r1"), a_round("r2", kl=None)], judged))}
    assert found["Held-out accuracy"] == ["71% (62 to 79%)"] * 2
    assert found["Win rate over the current policy"] == ["–", "64% (52 to 75%)"]
    assert found["KL to base"] == ["2.85 nats", "–"] and found["Pairs"] == ["1,120 teach · 200 measure"] * 2
    assert "64% (52 to 75%) by people" in found["Verdict"][1]
    assert "Win rate under the rule" not in found and "Policy" not in found


def test_a_run_without_results_has_an_empty_column():
    found = {head: cells for head, cells, _ in rows(side_by_side_view.figures(EN, [a_round("r1"), a_round("r2", status="failed")], {}))}
    assert found["Status"] == ["Done", "Failed"] and found["Held-out accuracy"] == ["71% (62 to 79%)", "–"] and found["Verdict"][1] == "–"


def test_runs_that_learned_from_other_judgments_are_said_to():
    one, other = a_round("r1"), a_round("r2")
    assert side_by_side_view.warnings(EN, [one, other], [], []) == ""
    other.snapshot["sha256"] = "9" * 64
    assert "different judgments" in side_by_side_view.warnings(EN, [one, other], [], [])
    assert "서로 다른 판정" in side_by_side_view.warnings(KO, [one, other], [], [])
    told = side_by_side_view.warnings(EN, [one], ["r8"], ["r9"])
    assert "no such run here: r8" in told and "at most 4 runs are laid side by side: r9" in told


def test_two_runs_of_one_name_are_told_apart_by_their_ids():
    class Named:
        def __init__(self, run_id, name):
            self.id, self.name = run_id, name

    assert side_by_side_view.titles([Named("r1", "Low"), Named("r2", "Low"), Named("r3", "")]) == ["Low (r1)", "Low (r2)", "r3"]


@pytest.mark.parametrize(("part", "ids"), [("", []), ("r1", ["r1"]), ("r1~r 2~r1", ["r1", "r 2"]), ("~~r1~", ["r1"])])
def test_an_address_names_each_run_once(part, ids):
    assert side_by_side_view.runs_of_address(part) == ids
    assert side_by_side_view.address(["r1", "r 2"]) == "#training/compare~r1~r%202"


def test_the_style_sheet_has_the_colours_of_the_charts(assets):
    style = (assets / "style.css").read_text()
    for number, (colour, _, _) in enumerate(charts.RUN_LINES, 1):
        (rule,) = re.findall(rf"\.rl-line-{number} {{(.*)}}", style)
        assert {*re.findall("#[0-9a-f]{6}", rule)} == {colour}
