"""A clock for deadlines and durations that does not jump when the machine's clock is set.

`database.now()` reads the machine's clock and records when something happened. Deadlines, such as the end of a lease or a
session, use `Clock`, which starts at the machine's time and then follows a monotonic clock. It starts anew at every
restart, so that a stored deadline may be too far in the future: readers cap it at the longest possible time from now.
Heartbeats that one process writes and another reads use the machine's clock, and are valid only within `window`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def monotonic_s() -> float:
    """Seconds of a monotonic clock, including the time that the machine was suspended where the system supports that."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Clock:
    """The time in UTC, read from the machine's clock once, at creation, and advanced by a monotonic clock from then on."""

    def __init__(self, wall_s: Callable[[], float] = time.time, steady_s: Callable[[], float] = monotonic_s):
        self._steady_s = steady_s
        self._offset_s = wall_s() - steady_s()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._offset_s + self._steady_s(), UTC)

    def text(self, after: timedelta = timedelta()) -> str:
        """The time `after` from now, in the text form of the store."""
        return as_text(self.now() + after)

    def ms_since(self, moment: str) -> int | None:
        """Milliseconds since a moment of such a clock; None if the moment is in the future, as after the clock was set back."""
        elapsed = (self.now() - datetime.fromisoformat(moment)).total_seconds()
        return round(1000 * elapsed) if elapsed >= 0 else None


def as_text(moment: datetime) -> str:
    """ISO 8601 with milliseconds. Such texts sort by time as long as all are in UTC."""
    return moment.isoformat(timespec="milliseconds")


def window(**within: float) -> tuple[str, str]:
    """The times `within` before and after the machine's current time, as a range of recent timestamps."""
    at, margin = datetime.now(UTC), timedelta(**within)
    return as_text(at - margin), as_text(at + margin)
