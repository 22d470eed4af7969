"""Pictures of intervals and of sides."""

import pytest
from lead_page import EN

from feedback_ui.lead import quality_view
from rlhf.analysis.agreement import LeftShare


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
