"""How far a round is: its stage, fraction and time left as columns of its row, and the place where a cancel arrives.

The engine calls `tick` often and knows nothing of rows; what it costs is bounded here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from storage.core.database import Database
from storage.project import runs

WRITE_EVERY_S = 1.0


class Cancelled(Exception):
    """Someone asked for the run to stop; everything up to the last checkpoint is kept."""


class Progress:
    """Follows one run through its stages."""

    def __init__(self, store: Database, run_id: str, on_change: Callable[[str, float, float | None], None] | None = None):
        self.store, self.run_id, self.on_change = store, run_id, on_change
        self._shares: dict[str, float] = {}
        self._stage: str | None = None
        self._ticks, self._expected = 0.0, 1
        self._started = self._stage_started = time.monotonic()
        self._skipped = 0.0
        self._written = float("-inf")

    def plan(self, shares: Mapping[str, float]) -> None:
        """What part of the round's work each stage is, in any common unit; the time left is reckoned from it."""
        self._shares = dict(shares)

    def stage(self, name: str, ticks: int, *, done: int = 0) -> None:
        """Begins a stage of about so many ticks, some of which an earlier attempt may have done."""
        self.close_stage()
        self._stage, self._ticks, self._expected = name, done, max(1, ticks)
        self._stage_started = time.monotonic()
        self._skipped += self._shares.get(name, 0.0) * min(1.0, done / self._expected)
        self._write()

    def skip(self, name: str) -> None:
        """Notes that an earlier attempt finished this stage."""
        self.stage(name, 1, done=1)

    def close_stage(self) -> None:
        """Adds the time spent in the stage to what earlier attempts spent in it, as the metric `time/<stage>`."""
        if self._stage is not None:
            name = f"time/{self._stage}"
            spent = self.seconds().get(name, 0.0) + time.monotonic() - self._stage_started
            runs.log_metrics(self.store, self.run_id, 0, {name: spent})
        self._stage = None

    def seconds(self) -> dict[str, float]:
        """Seconds per closed stage, over all attempts of this run."""
        return {m.name: m.value for m in runs.metrics(self.store, self.run_id) if m.name.startswith("time/")}

    def on_progress(self, worth: float = 1.0) -> None:
        """Notes a piece of work done, worth so many of those that the stage was reckoned in.

        Raises:
            Cancelled: somebody asked for it; looked up once a second.
        """
        self._ticks += worth
        self.check()

    def check(self) -> None:
        """As `tick`, where the work done is no part of what the stage was reckoned at."""
        if time.monotonic() - self._written >= WRITE_EVERY_S:
            self._write()

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Keeps the figures of one step of training."""
        runs.log_metrics(self.store, self.run_id, step, dict(figures))

    def fraction(self) -> float:
        """How much of the whole round is done, 0 to 1."""
        total = sum(self._shares.values())
        if not total or self._stage not in self._shares:
            return 0.0
        earlier = list(self._shares)[: list(self._shares).index(self._stage)]
        within = self._shares[self._stage] * min(1.0, self._ticks / self._expected)
        return (sum(self._shares[s] for s in earlier) + within) / total

    def eta_s(self) -> float | None:
        """Seconds left, from the pace of this attempt; None until there is a pace."""
        total = sum(self._shares.values())
        fraction = self.fraction()
        worked = fraction - (self._skipped / total if total else 0.0)
        elapsed = time.monotonic() - self._started
        if worked <= 0.005 or elapsed < 5:
            return None
        return elapsed / worked * (1 - fraction)

    def _write(self) -> None:
        self._written = time.monotonic()
        if runs.cancel_requested(self.store, self.run_id):
            raise Cancelled(self.run_id)
        fraction, eta = self.fraction(), self.eta_s()
        runs.set_stage(self.store, self.run_id, self._stage, fraction, eta)
        if self.on_change:
            self.on_change(self._stage or "", fraction, eta)
