"""Time by which deadlines and durations go: it passes at the same pace whichever way the machine's clock is set.

`database.now()` is the machine's own clock, and says when something happened. What must be measured against it later,
as the end of a lease or of a session, goes by `Clock`, which begins at the machine's clock and then counts. After a
restart it begins there anew, so a moment that the store keeps may lie further ahead than any deadline could: whoever
reads one limits it to the longest that it can be from now. Signs of life that one process writes and another reads, go
by the machine's clock and count only when they are `window` it, before or after.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def monotonic_s() -> float:
    """Seconds since some moment, the time that the machine slept among them where it can tell."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Clock:
    """Moments in UTC that only ever go forward, one second a second, from the machine's clock at the time it was made."""

    def __init__(self, wall_s: Callable[[], float] = time.time, steady_s: Callable[[], float] = monotonic_s):
        self._steady_s = steady_s
        self._ahead_s = wall_s() - steady_s()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._ahead_s + self._steady_s(), UTC)

    def text(self, after: timedelta = timedelta()) -> str:
        """So long after now, as the store keeps moments."""
        return as_text(self.now() + after)

    def ms_since(self, moment: str) -> int | None:
        """Milliseconds since a moment by such a clock; None where it is yet to come, and so nobody knows."""
        passed = (self.now() - datetime.fromisoformat(moment)).total_seconds()
        return round(1000 * passed) if passed >= 0 else None


def as_text(moment: datetime) -> str:
    """ISO 8601 with milliseconds, which sorts as time does while all of it is in UTC."""
    return moment.isoformat(timespec="milliseconds")


def window(**within: float) -> tuple[str, str]:
    """The moments so long before and after the machine's clock: what lies between may have been written by it just now."""
    at, margin = datetime.now(UTC), timedelta(**within)
    return as_text(at - margin), as_text(at + margin)
