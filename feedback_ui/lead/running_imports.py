"""The imports of files that this process is doing: how far each is, and a request to stop it. None of this is stored."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from storage.core.database import StoreError

AWAITED_S = 60.0
"""How long a page waits for an announced import to begin: before that the file's format is recognised."""


class ImportStopped(StoreError):
    """Somebody stopped the import; nothing of it is in the store."""


@dataclass(slots=True)
class RunningImport:
    """One import. Its thread calls `advance` and `roll_back`, as the callbacks of `storage.exchange.imports.import_file`."""

    id: int
    source: str
    started: float = field(default_factory=time.monotonic)
    done: int = 0
    total: int = 0
    """Rows of the file, estimated; 0 if that is not known."""
    rolling_back: bool = False
    """Whether the rows are deleted again, because the import was stopped or failed."""
    stop_requested: bool = False

    def advance(self, done: int, total: int) -> None:
        """Notes the rows that were read.

        Raises:
            ImportStopped: `stop_requested` is set.
        """
        if self.stop_requested:
            raise ImportStopped(f"The import of {self.source} was stopped after {self.done:,} rows. Nothing was imported.")
        self.done, self.total = done, total

    def roll_back(self, done: int, total: int) -> None:
        """Notes the rows that were deleted again."""
        if not self.rolling_back:
            self.rolling_back, self.started = True, time.monotonic()
        self.done, self.total = done, total

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the rows are done, at the pace so far; None if that is not known."""
        if not self.done or not self.total:
            return None
        return (time.monotonic() - self.started) * max(0, self.total - self.done) / self.done


class RunningImports:
    """The imports that are under way, oldest first."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._running: dict[int, RunningImport] = {}
        self._lock = threading.Lock()
        self._awaited_until = 0.0

    def await_one(self) -> None:
        """Notes that an import is about to begin: whoever follows must not stop before it does."""
        self._awaited_until = time.monotonic() + AWAITED_S

    @property
    def is_awaited(self) -> bool:
        """Whether an import that was announced has not begun, for up to `AWAITED_S`."""
        return time.monotonic() < self._awaited_until

    @contextmanager
    def run(self, source: str) -> Iterator[RunningImport]:
        """An import that is under way while the block runs."""
        with self._lock:
            running = RunningImport(next(self._ids), source)
            self._running[running.id] = running
            self._awaited_until = 0.0
        try:
            yield running
        finally:
            with self._lock:
                del self._running[running.id]

    def all(self) -> list[RunningImport]:
        with self._lock:
            return list(self._running.values())

    def stop(self, import_id: int) -> None:
        """Requests that an import ends; one that is over already is no error."""
        for running in self.all():
            if running.id == import_id:
                running.stop_requested = True
