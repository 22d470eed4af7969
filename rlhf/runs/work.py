"""How far a piece of work is: a function announces its total and reports what is done, and the functions it calls report to it.

Each function knows its own loops alone. It takes a `Work` as `on_progress`, announces `on_progress.total(n)`, and calls `on_progress()`
after each unit; a unit that another function does is handed on as `on_progress.part(1)`. So nobody counts the loops of others,
and a piece of work that ends early is complete all the same. Who listens is `progress`.
"""

from __future__ import annotations

from collections.abc import Callable

DECODE_COST = 5
"""A sampled token takes as long as a forward pass over this many tokens. Measured: scoring 32 completions of 108 tokens takes
as long as sampling 10 positions of 64."""

UPDATE_COST = 2
"""A token of an update takes as long as this many of a forward pass."""


def _nobody(amount: float) -> None: ...


class Work:
    """A piece of work, of which `share` units of its caller's total are reported by its end."""

    def __init__(self, report: Callable[[float], None] = _nobody, share: float = 1.0):
        self._report, self._left = report, share
        self._unit = 0.0
        self._part: Work | None = None

    def total(self, units: float) -> None:
        """Announces how many units the work has that is left. Without a total only the end is reported."""
        self._unit = self._left / units if units > 0 else 0.0

    def __call__(self, units: float = 1.0) -> None:
        """Reports that so many units more are done. Units beyond the total report nothing; the listener is called all the same."""
        self._finish_part()
        self._advance(units * self._unit)

    def part(self, units: float) -> Work:
        """A piece of so many units of this work, for another function; it ends where the next one begins."""
        self._finish_part()
        self._part = Work(self._advance, min(units * self._unit, self._left))
        return self._part

    def done(self) -> None:
        """Reports what is left."""
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
    """Nobody listens. It has no state, so that functions can share it as their default."""

    def total(self, units: float) -> None: ...

    def __call__(self, units: float = 1.0) -> None: ...

    def part(self, units: float) -> Work:
        return self

    def done(self) -> None: ...


NO_PROGRESS: Work = _NoProgress()
