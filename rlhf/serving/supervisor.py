"""Runs the policy server as a process of the web process: starts it, restarts it when it dies, stops it at the end."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from rlhf.runs.environment import engine_environment

log = logging.getLogger("rankloop.supervisor")

QUICK_DEATH_S = 20.0
"""A server that ran shorter than this is restarted after a longer pause each time."""

MAX_RESTART_PAUSE_S = 60.0


def free_port() -> int:
    """A free TCP port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class PolicyServer:
    """The policy server's process and the thread that watches it."""

    def __init__(self, data: Path, log_file: Path, options: Sequence[str]):
        self.port = free_port()
        self.log_file = log_file
        self._command = [
            sys.executable, "-m", "rlhf.generation.server", "--data", str(data), "--port", str(self.port),
            "--parent", str(os.getpid()), *options,
        ]  # fmt: skip
        self._stopping = threading.Event()
        # There is none before `start`.
        self._process: subprocess.Popen[bytes]
        self._thread = threading.Thread(target=self._watch, name="policy-server-watch", daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._spawn()
        self._thread.start()

    def stop(self) -> None:
        """Ends the server; kills it if it does not end within seconds."""
        self._stopping.set()
        # The watching thread ends first, or it might start another server meanwhile.
        self._thread.join(timeout=10)
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _spawn(self) -> None:
        with self.log_file.open("ab") as output:
            # A session of its own: Ctrl-C in the terminal reaches only the web process, which then stops the server.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=engine_environment(),
            )

    def _watch(self) -> None:
        pause = 1.0
        started = time.monotonic()
        while not self._stopping.wait(0.5):
            code = self._process.poll()
            if code is None:
                continue
            pause = 1.0 if time.monotonic() - started > QUICK_DEATH_S else min(2 * pause, MAX_RESTART_PAUSE_S)
            log.warning("the policy server ended with %s; starting it again in %.0f s (log: %s)", code, pause, self.log_file)
            if self._stopping.wait(pause):
                return
            started = time.monotonic()
            self._spawn()
