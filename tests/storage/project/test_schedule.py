"""Cron expressions of five fields, in UTC."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.project import schedule

FRIDAY = datetime(2026, 11, 27, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("0 3 * * *", "2026-11-28 03:00"),
        ("30 10 * * *", "2026-11-28 10:30"),
        ("*/20 * * * *", "2026-11-27 10:40"),
        ("0 9 * * MON", "2026-11-30 09:00"),
        ("15 6 1 * *", "2026-12-01 06:15"),
        ("0 0 29 2 *", "2028-02-29 00:00"),
    ],
)
def test_the_next_time_comes_after_the_moment(expression, expected):
    assert schedule.problem(expression) is None
    assert schedule.next_after(expression, FRIDAY).isoformat(" ", "minutes") == f"{expected}+00:00"


def test_a_moment_elsewhere_is_taken_in_utc():
    in_seoul = datetime(2026, 11, 27, 19, 30, tzinfo=timezone(timedelta(hours=9)))
    assert schedule.next_after("0 * * * *", in_seoul) == datetime(2026, 11, 27, 11, tzinfo=UTC)


@pytest.mark.parametrize(
    "expression, why",
    [
        ("0 3 * *", "a schedule has five fields (minute, hour, day of month, month, day of week), not 4: '0 3 * *'"),
        ("0 0 3 * * *", "not 6"),
        ("@daily", "not 1"),
        ("61 3 * * *", "the schedule '61 3 * * *' cannot be read: bad minute"),
        ("0 3 * * BANANA", "bad day-of-week"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("*/0 * * * *", "bad minute"),
        ("0 3 * * *" + " " * 100, "at most 100 characters, not 109"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_reason(expression, why):
    assert why in schedule.problem(expression)


@given(
    st.text("0123456789*/,-#L ²", max_size=30)
    | st.lists(st.text("019*/,-#LW²", min_size=1, max_size=6), min_size=5, max_size=5).map(" ".join)
)
def test_whatever_is_typed_has_a_next_time_or_a_reason(expression):
    if schedule.problem(expression) is None:
        assert schedule.next_after(expression, FRIDAY) > FRIDAY
