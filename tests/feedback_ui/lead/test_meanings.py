"""What values mean: each bound from both sides, and a sentence for every level in every language."""

import pytest
from lead_page import EN, KO

from feedback_ui.lead.meanings import SCALES, SIDES, level, sentence, side
from rlhf.analysis.agreement import left_share, proportion
from rlhf.analysis.drift import between


@pytest.mark.parametrize(
    ("statistic", "value", "says"),
    [
        ("alpha", 1.0, "good"), ("alpha", 0.8, "good"), ("alpha", 0.79, "tentative"), ("alpha", 0.667, "tentative"),
        ("alpha", 0.66, "weak"), ("alpha", 0.2, "weak"), ("alpha", 0.19, "chance"), ("alpha", -0.15, "chance"),
        ("unanimous", 0.5, "most"), ("unanimous", 0.49, "few"),
        ("gold", 0.8, "careful"), ("gold", 0.79, "misses"), ("gold", 0.51, "misses"), ("gold", 0.5, "coin"),
        ("consistency", 0.8, "steady"), ("consistency", 0.6, "wavers"), ("consistency", 0.5, "coin"),
        ("agreement", 0.7, "alike"), ("agreement", 0.69, "differs"), ("agreement", 0.5, "coin"),
        ("median", 90, "slow"), ("median", 89.9, "reads"), ("median", 3, "reads"), ("median", 2.99, "hasty"),
        ("reliability", 0.8, "follows"), ("reliability", 0.79, "mixed"), ("reliability", 0.4, "mixed"), ("reliability", 0.39, "coin"),
    ],
)  # fmt: skip
def test_a_level_begins_at_its_bound(statistic, value, says):
    assert level(statistic, value, 10) == says
    assert level(statistic, value, 9) == "too_few"


@pytest.mark.parametrize(
    ("statistic", "interval", "cases", "middle", "says"),
    [
        # 15 of 20: Clopper and Pearson give 51 to 91%. 14 of 20: 46 to 88%.
        ("left", left_share(15, 20), 20, 0.5, "left"), ("left", left_share(14, 20), 20, 0.5, "fair"),
        ("left", left_share(5, 20), 20, 0.5, "right"), ("left", left_share(9, 9), 9, 0.5, "too_few"),
        # Wilson: 15 of 20 has 53 to 89%, 14 of 20 has 48 to 85%.
        ("longer", proportion(15, 20), 20, 0.5, "longer"), ("longer", proportion(14, 20), 20, 0.5, "fair"),
        ("longer", proportion(5, 20), 20, 0.5, "shorter"),
        # Newcombe: from 9 of 10 to 4 of 10 lies between -74 and -8 points, to 7 of 10 between -52 and +16.
        ("drift", between(0.9, 0.4, 10), 10, 0, "worse"), ("drift", between(0.9, 0.7, 10), 10, 0, "steady"),
        ("drift", between(0.4, 0.9, 10), 10, 0, "better"),
    ],
)  # fmt: skip
def test_an_interval_says_on_which_side_of_the_middle_it_lies(statistic, interval, cases, middle, says):
    assert side(statistic, interval.low, interval.high, cases, middle) == says


def test_there_is_a_sentence_for_every_level():
    levels = {name: [*(level for _, level in scale.levels), scale.below] for name, scale in SCALES.items()}
    levels |= {name: list(found) for name, (_, found) in SIDES.items()}
    for statistic, names in levels.items():
        assert len(set(names)) == len(names)
        for translate in (EN, KO):
            said = {sentence(translate, statistic, name, 10, points="3") for name in names}
            assert len(said) == len(names), "each level says something else"
            assert "9" in sentence(translate, statistic, "too_few", 9) and "10" in sentence(translate, statistic, "too_few", 9)


def test_the_bounds_of_a_scale_fall():
    for scale in SCALES.values():
        bounds = [bound for bound, _ in scale.levels]
        assert bounds == sorted(bounds, reverse=True) and scale.fewest >= 10
