"""Progress reporting: a function announces its total work and reports what is done, and passes parts of it to the functions it calls.

Each function knows only its own loops. It takes a `Work` as `on_progress`, announces `on_progress.total(n)`, and calls `on_progress()`
after each unit; a unit that another function does is handed on as `on_progress.part(1)`. No function counts the loops of another,
and work that ends early still completes its share. `progress` receives the reports.
"""

from __future__ import annotations

from collections.abc import Callable

DECODE_COST = 5
"""Time of sampling one token, in units of a forward pass over one token. Measured: scoring 32 completions of 108 tokens takes
as long as sampling 10 positions of 64."""

UPDATE_COST = 2
"""Time of training on one token, in units of a forward pass over one token."""


def _discard(amount: float) -> None: ...


class Work:
    """Work of one function, worth `share` units of its caller's total, all of which are reported by its end."""

    def __init__(self, report: Callable[[float], None] = _discard, share: float = 1.0):
        self._report, self._left = report, share
        self._unit = 0.0
        self._part: Work | None = None

    def total(self, units: float) -> None:
        """Announces how many units the remaining work has. Without a total, only the end is reported."""
        self._unit = self._left / units if units > 0 else 0.0

    def __call__(self, units: float = 1.0) -> None:
        """Reports that this many more units are done. Units beyond the total count as 0, but the callback is called."""
        self._finish_part()
        self._advance(units * self._unit)

    def part(self, units: float) -> Work:
        """This many units of the work, for another function to report; the part ends when the next one begins."""
        self._finish_part()
        self._part = Work(self._advance, min(units * self._unit, self._left))
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


class _NoProgress(Work):
    """Discards all reports. It has no state, so that functions can share it as their default."""

    def total(self, units: float) -> None: ...

    def __call__(self, units: float = 1.0) -> None: ...

    def part(self, units: float) -> Work:
        return self

    def done(self) -> None: ...


NO_PROGRESS: Work = _NoProgress()
