"""Runs a server as a process of this one: starts it, restarts it when it dies, stops it at the end. The policy server is one."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
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


class WatchedProcess:
    """A process, and the thread that watches it.

    Args:
        what: its name in the log.
        environment: its variables; those of this process where it is None.
        stops_within_s: how long it may take to end by itself, in seconds.
    """

    def __init__(
        self,
        what: str,
        command: Sequence[str],
        log_file: Path,
        environment: Mapping[str, str] | None = None,
        *,
        stops_within_s: float = 10.0,
    ):
        self.log_file = log_file
        self._what = what
        self._command = list(command)
        self._environment = environment
        self._stops_within_s = stops_within_s
        self._stopping = threading.Event()
        # There is none before `start`.
        self._process: subprocess.Popen[bytes]
        self._thread = threading.Thread(target=self._watch, name=f"{what} watch", daemon=True)

    def start(self) -> None:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._spawn()
        self._thread.start()

    def stop(self) -> None:
        """Ends the process; kills it if it does not end within seconds."""
        self._stopping.set()
        # The watching thread ends first, or it might start another process meanwhile.
        self._thread.join(timeout=10)
        self._process.terminate()
        try:
            self._process.wait(timeout=self._stops_within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _spawn(self) -> None:
        with self.log_file.open("ab") as output:
            # A session of its own: Ctrl-C in the terminal reaches only this process, which then stops the other one.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self._environment,
            )

    def _watch(self) -> None:
        pause = 1.0
        started = time.monotonic()
        while not self._stopping.wait(0.5):
            code = self._process.poll()
            if code is None:
                continue
            pause = 1.0 if time.monotonic() - started > QUICK_DEATH_S else min(2 * pause, MAX_RESTART_PAUSE_S)
            log.warning("%s ended with %s; starting it again in %.0f s (log: %s)", self._what, code, pause, self.log_file)
            if self._stopping.wait(pause):
                return
            started = time.monotonic()
            self._spawn()


class PolicyServer(WatchedProcess):
    """The policy server's process.

    Args:
        port: its TCP port; a free one where it is None.
    """

    def __init__(self, data: Path, log_file: Path, options: Sequence[str], port: int | None = None):
        self.port = free_port() if port is None else port
        command = [
            sys.executable, "-m", "rlhf.generation.server", "--data", str(data), "--port", str(self.port),
            "--parent", str(os.getpid()), *options,
        ]  # fmt: skip
        super().__init__("the policy server", command, log_file, engine_environment())

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


class PolicyServerOnDemand:
    """A policy server that runs only while it is needed, always at the same port."""

    def __init__(self, data: Path, log_file: Path, options: Sequence[str]):
        self._made = partial(PolicyServer, data, log_file, options, free_port())
        self.base_url = self._made().base_url
        self._running: PolicyServer | None = None

    def keep(self, needed: bool) -> None:
        """Starts the server if it is needed and does not run, and stops it if it runs and is not needed."""
        if needed and self._running is None:
            self._running = self._made()
            self._running.start()
        elif not needed:
            self.stop()

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None
