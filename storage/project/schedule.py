"""Schedules: cron expressions of five fields, in UTC as all times of the store are."""

from __future__ import annotations

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

MAX_CHARS = 100


def problem(expression: str) -> str | None:
    """Why this is no schedule, as part of a sentence; None if it is one."""
    if len(expression) > MAX_CHARS:
        return f"a schedule has at most {MAX_CHARS} characters, not {len(expression):,}"
    if len(expression.split()) != 5:
        return f"a schedule has five fields (minute, hour, day of month, month, day of week), not {len(expression.split())}: {expression!r}"
    try:
        next_after(expression, datetime(2000, 1, 1, tzinfo=UTC))
    except StopIteration:
        return f"no time ever matches the schedule {expression!r}"
    except (CronSimError, ValueError, AssertionError) as error:
        return f"the schedule {expression!r} cannot be read: {str(error)[:1].lower()}{str(error)[1:]}"
    return None


def next_after(expression: str, moment: datetime) -> datetime:
    """The first time of the schedule after this moment, in UTC.

    Raises:
        CronSimError: the expression is not one that `problem` accepts.
    """
    return next(CronSim(expression, moment.astimezone(UTC)))
