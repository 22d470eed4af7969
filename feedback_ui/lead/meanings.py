"""What a value of each statistic of the Quality page means: the bounds, in one table. No Gradio.

A sentence for each level stands in the translations, under `lead.quality.means`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nextafter

from feedback_ui.shared.i18n import Translator

ABOVE_HALF = nextafter(0.5, 1)
"""The smallest share that is more than a half."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The levels of a statistic, from the highest bound to the lowest."""

    fewest: int
    """Cases below which nothing is said of a value."""
    levels: Sequence[tuple[float, str]]
    """The level of a value is the first whose bound it reaches."""
    below: str
    """The level of a value that reaches no bound."""


SCALES = {
    # Krippendorff's bounds (2004) for conclusions and for tentative ones; the cases are comparisons.
    "alpha": Scale(10, ((0.8, "good"), (0.667, "tentative"), (0.2, "weak")), "chance"),
    "unanimous": Scale(10, ((0.5, "most"),), "few"),
    "gold": Scale(10, ((0.8, "careful"), (ABOVE_HALF, "misses")), "coin"),
    "consistency": Scale(10, ((0.8, "steady"), (ABOVE_HALF, "wavers")), "coin"),
    "agreement": Scale(10, ((0.7, "alike"), (ABOVE_HALF, "differs")), "coin"),
    # In seconds.
    "median": Scale(10, ((90, "slow"), (3, "reads")), "hasty"),
    "reliability": Scale(10, ((0.8, "follows"), (0.4, "mixed")), "coin"),
}
"""Of each statistic with one value. A share of a half is what a coin gives."""

SIDES = {
    "left": (10, ("right", "fair", "left")),
    "longer": (10, ("shorter", "fair", "longer")),
    "drift": (10, ("worse", "steady", "better")),
}
"""Of each statistic with a middle: the fewest cases, and the levels where the interval lies below the middle, holds it, and lies above."""

WIDEST_RELIABILITY = 0.6
"""The widest interval of a reliability that says anything."""

HASTY_S = SCALES["median"].levels[-1][0]
"""An annotator whose median active time is below this is called hasty, in seconds."""

FEWEST_SHARED = SCALES["agreement"].fewest
"""Pairs that others judged too, at least, before an annotator is said to disagree."""


def level(statistic: str, value: float, cases: int) -> str:
    """The level of a value over so many cases; `too_few` below the fewest."""
    scale = SCALES[statistic]
    if cases < scale.fewest:
        return "too_few"
    return next((name for bound, name in scale.levels if value >= bound), scale.below)


def side(statistic: str, low: float, high: float, cases: int, middle: float = 0.5) -> str:
    """The level of an interval around a middle, over so many cases; `too_few` below the fewest."""
    fewest, (below, holds, above) = SIDES[statistic]
    if cases < fewest:
        return "too_few"
    return below if high < middle else above if low > middle else holds


def sentence(translate: Translator, statistic: str, level: str, cases: int, **values: str) -> str:
    """What a level of a statistic means. `values` stand in its text."""
    if level == "too_few":
        fewest = SCALES[statistic].fewest if statistic in SCALES else SIDES[statistic][0]
        return translate("lead.quality.means.too_few", count=cases, fewest=fewest)
    return translate(f"lead.quality.means.{statistic}.{level}", **values)
