"""When a project's target of judgments is reached at the present rate, and what rate it needs. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, timedelta

from storage.analytics import stats
from storage.core.database import Database
from storage.project import settings

RECENT_DAYS = 7
"""Days of the present rate, today included."""

FARTHEST_DAYS = 36_500
"""A target is not said to be reached later than that."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """A target, and how far it is."""

    wanted: int
    by: date | None
    done: int
    days: int
    """Days over which the rate is taken: fewer than `RECENT_DAYS` in a young project."""
    per_day: float
    people: int
    """Annotators who made judgments on these days."""
    reached: date | None
    """The day on which it is reached at this rate; None if it is reached already, or never at this rate."""
    needed: float | None
    """Judgments a day that reach it by its day, today included; None without a day, after it, or once it is reached."""

    @property
    def is_reached(self) -> bool:
        return self.done >= self.wanted


def of_store(store: Database, today: date) -> Outlook | None:
    """The outlook of the project's target; None if it has none."""
    project = settings.current(store)
    if not project.target_judgments:
        return None
    by = date.fromisoformat(project.target_date) if project.target_date else None
    return outlook(project.target_judgments, by, stats.pace(store, since=today - timedelta(days=RECENT_DAYS - 1)), today)


def outlook(wanted: int, by: date | None, pace: stats.Pace, today: date) -> Outlook:
    """When so many judgments are there at the pace of the recent days."""
    days = RECENT_DAYS if pace.first is None else max(1, min(RECENT_DAYS, (today - pace.first).days + 1))
    per_day, left = pace.recent / days, wanted - pace.votes
    reached = needed = None
    if left > 0 and per_day and (ahead := math.ceil(left / per_day)) <= FARTHEST_DAYS:
        reached = today + timedelta(days=ahead)
    if left > 0 and by is not None and by >= today:
        needed = left / ((by - today).days + 1)
    return Outlook(wanted, by, pace.votes, days, per_day, pace.people, reached, needed)
