"""Targets, with rates and days worked out by hand."""

from dataclasses import replace
from datetime import date

import pytest

from rlhf.analysis import target
from rlhf.analysis.target import outlook
from storage.analytics.stats import Pace
from storage.project import settings

TODAY = date(2026, 11, 28)
LONG_AGO = date(2026, 10, 1)


def test_a_target_that_is_reached_too_late():
    # 70 in 7 days are 10 a day; 200 are left: 20 days. 14 days and today are 15: 200 / 15.
    found = outlook(600, date(2026, 12, 12), Pace(400, 70, 3, LONG_AGO), TODAY)
    assert (found.done, found.days, found.per_day, found.people) == (400, 7, 10, 3)
    assert found.reached == date(2026, 12, 18) and found.needed == pytest.approx(13.3333, abs=1e-4) and not found.is_reached


@pytest.mark.parametrize(
    ("pace", "days", "reached"),
    [
        # Begun today: 30 a day, 570 are left.
        (Pace(30, 30, 1, TODAY), 1, date(2026, 12, 17)),
        # Begun the day before yesterday: 30 in 3 days, 57 days.
        (Pace(30, 30, 1, date(2026, 11, 26)), 3, date(2027, 1, 24)),
        # Nothing in the last week, and nothing at all.
        (Pace(30, 0, 0, LONG_AGO), 7, None),
        (Pace(0, 0, 0, None), 7, None),
        # An old vote whose clock is ahead.
        (Pace(60, 60, 1, date(2026, 12, 24)), 1, date(2026, 12, 7)),
    ],
)
def test_the_rate_is_that_of_the_days_since_the_beginning(pace, days, reached):
    found = outlook(600, None, pace, TODAY)
    assert (found.days, found.reached, found.needed) == (days, reached, None)


def test_a_target_that_is_reached_needs_nothing():
    found = outlook(600, date(2026, 12, 12), Pace(600, 70, 3, LONG_AGO), TODAY)
    assert (found.is_reached, found.reached, found.needed) == (True, None, None)


def test_a_day_that_has_come_and_one_that_has_passed():
    assert outlook(600, TODAY, Pace(590, 70, 3, LONG_AGO), TODAY).needed == 10
    assert outlook(600, date(2026, 11, 27), Pace(590, 70, 3, LONG_AGO), TODAY).needed is None


def test_no_day_beyond_the_calendar():
    assert outlook(10_000_000, None, Pace(1, 1, 1, LONG_AGO), TODAY).reached is None


def test_of_a_store(store):
    assert target.of_store(store, TODAY) is None
    settings.change(store, replace(settings.current(store), target_judgments=600, target_date="2026-12-12"), None)
    found = target.of_store(store, TODAY)
    assert (found.wanted, found.by, found.done, found.reached) == (600, date(2026, 12, 12), 0, None)
