"""RunProgress of a round: writes its stage, fraction done and time left to its row, and raises `Cancelled` when asked to stop.

Each stage is a `Work`, to which the stage's functions report without knowing about rows. The row is written at most once a
second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from rlhf.runs import metric_table
from rlhf.runs.work import Activity, Work
from storage.core.database import Database
from storage.project import runs

WRITE_EVERY_S = 1.0


class Cancelled(Exception):
    """A user cancelled the run. Its last checkpoint is kept."""


class RunProgress:
    """Follows one run through its stages."""

    def __init__(self, store: Database, run_id: str, on_change: Callable[[str, float, float | None], None] | None = None):
        self.store, self.run_id, self.on_change = store, run_id, on_change
        self._stage_work: dict[str, float] = {}
        self._stage: str | None = None
        self._activity: Activity | None = None
        self._stage_done = 0.0
        self._started = self._stage_started = time.monotonic()
        self._skipped = 0.0
        self._written = float("-inf")
        self._reached = runs.get(store, run_id).progress
        """The fraction that an earlier attempt had reached. What comes after its last checkpoint is done again, and the bar waits."""

    def plan(self, stage_work: Mapping[str, float]) -> None:
        """Sets the work of each stage, in any common unit; the fraction done and the time left are computed from it."""
        self._stage_work = dict(stage_work)

    def stage(self, name: str, *, done: float = 0.0) -> Work:
        """Begins a stage, of which an earlier attempt has done the fraction `done`. The function that does the work announces its total."""
        self.close_stage()
        self._stage = name
        self._stage_started = time.monotonic()
        return self.resume_at(done)

    def resume_at(self, fraction: float) -> Work:
        """Records that an earlier attempt did this fraction of the current stage; returns the remaining work."""
        self._stage_done = fraction
        self._skipped += self._stage_work.get(self._stage or "", 0.0) * fraction
        self._write()
        return Work(self._add, 1 - fraction, self._set_activity)

    def skip(self, name: str) -> None:
        """Records that an earlier attempt finished this stage."""
        self.stage(name, done=1.0)

    def close_stage(self) -> None:
        """Ends the stage and adds its time to the metric `time/<stage>`, which includes earlier attempts."""
        if self._stage is not None:
            name = metric_table.of_stage(self._stage)
            spent = self.seconds().get(name, 0.0) + time.monotonic() - self._stage_started
            runs.log_metrics(self.store, self.run_id, 0, {name: spent})
        self._stage = self._activity = None

    def _set_activity(self, activity: Activity | None) -> None:
        self._activity = activity

    def seconds(self) -> dict[str, float]:
        """Seconds per closed stage, over all attempts of this run."""
        return {m.name: m.value for m in runs.metrics(self.store, self.run_id) if m.name.startswith(metric_table.TIME)}

    def _add(self, fraction: float) -> None:
        self._stage_done += fraction
        self.check()

    @property
    def uncounted(self) -> Work:
        """Work that is not part of the stage's total; it only checks for cancellation."""
        return Work(lambda _: self.check(), 0.0)

    def check(self) -> None:
        """Writes the row, at most once a second.

        Raises:
            Cancelled: a user cancelled the run.
        """
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
        within = self._stage_work[self._stage] * min(1.0, self._stage_done)
        return (sum(self._stage_work[s] for s in earlier) + within) / total

    def eta_s(self) -> float | None:
        """Estimated seconds left, at the speed of this attempt; None in its first seconds."""
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
        fraction, eta = max(self.fraction(), self._reached), self.eta_s()
        runs.set_stage(self.store, self.run_id, self._stage, fraction, eta, activity=self._activity)
        if self.on_change:
            self.on_change(self._stage or "", fraction, eta)
