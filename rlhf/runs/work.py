"""Progress reporting: a function announces its total work and reports what is done, and passes parts of it to the functions it calls.

Each function knows only its own loops. It takes a `Work` as `on_progress`, announces `on_progress.total(n)`, and calls `on_progress()`
after each unit; a unit that another function does is handed on as `on_progress.part(1)`. No function counts the loops of another,
and work that ends early still completes its share. `progress` receives the reports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

DECODE_COST = 5
"""Time of sampling one token, in units of a forward pass over one token. Measured: scoring 32 completions of 108 tokens takes
as long as sampling 10 positions of 64."""

UPDATE_COST = 2
"""Time of training on one token, in units of a forward pass over one token."""


def _discard(amount: float) -> None: ...


class Activity(NamedTuple):
    """What is being done, as a key of the pages' texts, and how much of it where it is counted."""

    name: str
    done: int = 0
    total: int = 0
    """0 for what is not counted."""


class Work:
    """Work of one function, worth `share` units of its caller's total, all of which are reported by its end.

    Args:
        on_activity: told of each part that has a name, at its beginning and with each unit of it; None at the end of such a part.
    """

    def __init__(
        self, report: Callable[[float], None] = _discard, share: float = 1.0, on_activity: Callable[[Activity | None], None] | None = None
    ):
        self._report, self._left = report, share
        self._on_activity = on_activity
        self._unit = 0.0
        self._part: Work | None = None

    def total(self, units: float) -> None:
        """Announces how many units the remaining work has. Without a total, only the end is reported."""
        self._unit = self._left / units if units > 0 else 0.0

    def __call__(self, units: float = 1.0) -> None:
        """Reports that this many more units are done. Units beyond the total count as 0, but the callback is called."""
        self._finish_part()
        self._advance(units * self._unit)

    def part(self, units: float, name: str = "", *, count: int = 0) -> Work:
        """This many units of the work, for another function to report; the part ends when the next one begins.

        Args:
            name: what the part does, for people who watch. Parts of a part with a name have none of their own.
            count: how many things the part does, such as answers that it samples; 0 for what nobody would count.
        """
        self._finish_part()
        share = min(units * self._unit, self._left)
        if not name or self._on_activity is None:
            self._part = Work(self._advance, share)
        else:
            self._part = _NamedPart(self._advance, share, Activity(name, 0, count), self._on_activity)
        return self._part

    def done(self) -> None:
        """Reports the remaining units."""
        self._finish_part()
        self._advance(self._left)

    def _finish_part(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            part.done()

    def _advance(self, amount: float) -> None:
        amount = min(amount, self._left)
        self._left -= amount
        self._report(amount)


class _NamedPart(Work):
    """A part that says what it does and how much of it is done."""

    def __init__(self, report: Callable[[float], None], share: float, activity: Activity, on_activity: Callable[[Activity | None], None]):
        super().__init__(report, share)
        self._activity, self._share, self._tell = activity, share, on_activity
        on_activity(activity)

    def done(self) -> None:
        super().done()
        self._tell(None)

    def _advance(self, amount: float) -> None:
        left = max(0.0, self._left - amount)
        done = 1 - left / self._share if self._share else 1.0
        # A little over it, because shares of 1 add up to 1 only nearly.
        self._tell(self._activity._replace(done=int(self._activity.total * done + 1e-6)))
        super()._advance(amount)


class _NoProgress(Work):
    """Discards all reports. It has no state, so that functions can share it as their default."""

    def total(self, units: float) -> None: ...

    def __call__(self, units: float = 1.0) -> None: ...

    def part(self, units: float, name: str = "", *, count: int = 0) -> Work:
        return self

    def done(self) -> None: ...


NO_PROGRESS: Work = _NoProgress()
