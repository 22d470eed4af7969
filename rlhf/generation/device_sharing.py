"""Lets training rounds have the accelerator that the policy server is on: while one is active, the server's weights are elsewhere.

The server looks at the rows of runs, as pages do: no process tells another. Leaves out how weights are moved (`PolicyService.release`).
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime

from rlhf.generation.policy_service import PolicyService
from rlhf.generation.request import EngineClosed
from rlhf.runs.jobs import STALE_S
from storage.core.database import Database
from storage.core.records import Run
from storage.project import runs

log = logging.getLogger("rankloop.serve")

POLL_S = 2.0
"""Seconds between two looks at the runs."""


class DeviceSharing:
    """Releases the service's weights while a round needs the accelerator, in a thread of its own."""

    def __init__(self, service: PolicyService, store: Database):
        self.service, self.store = service, store
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="device-sharing", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def poll(self) -> None:
        """Releases the weights if a round needs the device, and takes them back if none does."""
        run = runs.active(self.store)
        if run is not None and needs_device(run, datetime.now(UTC)):
            self.service.release(f"round {run.id} has this server's accelerator until it ends: try again after it")
        else:
            self.service.restore()

    def _loop(self) -> None:
        while not self._stopping.wait(POLL_S):
            try:
                self.poll()
            except EngineClosed:
                return
            except Exception:
                # A locked store, say: the next look may do better.
                log.exception("the accelerator could not be handed over")


def needs_device(run: Run, now: datetime) -> bool:
    """Whether an active run computes on an accelerator, or is about to. A worker without a heartbeat for long is dead."""
    if run.config.get("device") == "cpu":
        return False
    return (now - datetime.fromisoformat(run.heartbeat_at or run.created_at)).total_seconds() < STALE_S
