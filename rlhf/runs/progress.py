"""Progress of a round: writes its stage, fraction done and time left to its row, and raises `Cancelled` when asked to stop.

The engine calls `on_progress` after each piece of work and knows nothing of rows; rows are written once a second at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from storage.core.database import Database
from storage.project import runs

WRITE_EVERY_S = 1.0


class Cancelled(Exception):
    """Someone asked for the run to stop; the last checkpoint is kept."""


class Progress:
    """Follows one run through its stages."""

    def __init__(self, store: Database, run_id: str, on_change: Callable[[str, float, float | None], None] | None = None):
        self.store, self.run_id, self.on_change = store, run_id, on_change
        self._stage_work: dict[str, float] = {}
        self._stage: str | None = None
        self._work_done, self._work_total = 0.0, 1
        self._started = self._stage_started = time.monotonic()
        self._skipped = 0.0
        self._written = float("-inf")

    def plan(self, stage_work: Mapping[str, float]) -> None:
        """Sets the work of each stage, in any common unit; the fraction done and the time left are computed from it."""
        self._stage_work = dict(stage_work)

    def stage(self, name: str, ticks: int, *, done: int = 0) -> None:
        """Begins a stage of about `ticks` units of work, `done` of which an earlier attempt has done."""
        self.close_stage()
        self._stage, self._work_done, self._work_total = name, done, max(1, ticks)
        self._stage_started = time.monotonic()
        self._skipped += self._stage_work.get(name, 0.0) * min(1.0, done / self._work_total)
        self._write()

    def skip(self, name: str) -> None:
        """Records that an earlier attempt finished this stage."""
        self.stage(name, 1, done=1)

    def close_stage(self) -> None:
        """Ends the stage and adds its time to the metric `time/<stage>`, which holds that of earlier attempts too."""
        if self._stage is not None:
            name = f"time/{self._stage}"
            spent = self.seconds().get(name, 0.0) + time.monotonic() - self._stage_started
            runs.log_metrics(self.store, self.run_id, 0, {name: spent})
        self._stage = None

    def seconds(self) -> dict[str, float]:
        """Seconds per closed stage, over all attempts of this run."""
        return {m.name: m.value for m in runs.metrics(self.store, self.run_id) if m.name.startswith("time/")}

    def on_progress(self, work: float = 1.0) -> None:
        """Adds `work` units to the stage's work done.

        Raises:
            Cancelled: somebody asked for it; the row is read once a second.
        """
        self._work_done += work
        self.check()

    def check(self) -> None:
        """As `on_progress`, for work that the stage's total does not include."""
        if time.monotonic() - self._written >= WRITE_EVERY_S:
            self._write()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Stores the metrics of one training step."""
        runs.log_metrics(self.store, self.run_id, step, dict(metrics))

    def fraction(self) -> float:
        """Fraction of the round's work that is done, 0 to 1."""
        total = sum(self._stage_work.values())
        if not total or self._stage not in self._stage_work:
            return 0.0
        earlier = list(self._stage_work)[: list(self._stage_work).index(self._stage)]
        within = self._stage_work[self._stage] * min(1.0, self._work_done / self._work_total)
        return (sum(self._stage_work[s] for s in earlier) + within) / total

    def eta_s(self) -> float | None:
        """Seconds left at the speed of this attempt; None in its first seconds."""
        total = sum(self._stage_work.values())
        fraction = self.fraction()
        done_here = fraction - (self._skipped / total if total else 0.0)
        elapsed = time.monotonic() - self._started
        if done_here <= 0.005 or elapsed < 5:
            return None
        return elapsed / done_here * (1 - fraction)

    def _write(self) -> None:
        self._written = time.monotonic()
        if runs.cancel_requested(self.store, self.run_id):
            raise Cancelled(self.run_id)
        fraction, eta = self.fraction(), self.eta_s()
        runs.set_stage(self.store, self.run_id, self._stage, fraction, eta)
        if self.on_change:
            self.on_change(self._stage or "", fraction, eta)
