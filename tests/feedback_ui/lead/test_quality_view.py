"""Pictures of intervals and of sides."""

import pytest
from lead_page import EN

from feedback_ui.lead import quality_view
from rlhf.analysis.agreement import LeftShare, Share
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
    rows = [quality_view._left_cell(EN, LeftShare(0.9, 0.7, 0.98, 20, p)) for p in (0.0004, 0.2)]
    assert "rl-warn" in rows[0] and "p &lt; 0.001" in rows[0]
    assert "rl-warn" not in rows[1] and "p = 0.200" in rows[1]


def test_a_reliability_stands_beside_what_it_comes_from():
    gold = Share(0.9, 0.6, 0.98, 9, 10)
    known = AnnotatorReliability(1, "Ann", "human", 120, 80, 0.71, gold, 0.82, 0.6, 0.95, 1.31)
    unknown = AnnotatorReliability(2, "Bo", "simulated", 4, 0, None, Share(None, None, None, 0, 0), None, None, None, 1.0)
    shown = quality_view.reliability_table(EN, [known, unknown])
    ann, bo = shown.split("</tr>")[1:3]
    for part in ("Ann", "82%", "60% to 95%", "left:60.0%;width:35.0%", ">120<", "71%", "/ 80", "90%", "/ 10", "1.31"):
        assert part in ann, part
    assert "no shared pair and no known answer yet" in bo and "1.00" in bo and "simulated" in bo
    assert quality_view.reliability_table(EN, []) == ""
