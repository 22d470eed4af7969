"""The interval of a fraction, against published figures."""

import pytest

from rlhf.analysis.intervals import wilson


@pytest.mark.parametrize(
    "successes, cases, low, high",
    # Newcombe 1998, table I, method 3 (the score method without continuity correction)
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(successes, cases, low, high):
    assert wilson(successes, cases) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
