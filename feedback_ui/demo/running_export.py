"""The export of a policy version that this process is doing: how far it is, and what came of it. None of this is stored.

`rankloop deploy` runs in a process of its own, whose lines say how far it is. One at a time, because each needs the memory of two models.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from rlhf.runs.environment import engine_environment
from storage.core.database import StoreError

LINE = re.compile(r" *(\d{1,3})% (.+)")


@dataclass(slots=True)
class RunningExport:
    """One export, under way or ended."""

    version: str
    format: str
    done: float = 0.0
    """The fraction that is done, 0 to 1."""
    doing: str = ""
    code: int | None = None
    """The status that the process ended with: 0 passed, 1 failed its check; None while it runs."""
    says: str = ""
    """What it printed beside its progress."""

    @property
    def is_over(self) -> bool:
        return self.code is not None


class Exports:
    """Starts exports and follows the last one.

    Args:
        data: the data folder; exports are written to `exports` in it.
    """

    def __init__(self, data: Path):
        self.data = data
        self.last: RunningExport | None = None
        self._lock = threading.Lock()

    def start(self, version: str, format_name: str, base_model: str) -> RunningExport:
        """Begins an export in a thread that waits for its process.

        Raises:
            StoreError: another one is under way.
        """
        with self._lock:
            if self.last is not None and not self.last.is_over:
                raise StoreError(f"{self.last.version} is being exported as {self.last.format}: wait until that is done.")
            self.last = RunningExport(version, format_name)
        options = ["--to", format_name, "--data", str(self.data), "--model", base_model]
        command = [sys.executable, "-m", "launch", "deploy", *options, "--", version]
        threading.Thread(target=self._follow, args=(self.last, command), name="export", daemon=True).start()
        return self.last

    def _follow(self, running: RunningExport, command: list[str]) -> None:
        said: list[str] = []
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=engine_environment()
        ) as process:
            for line in process.stdout or ():
                if step := LINE.fullmatch(line.rstrip()):
                    running.done, running.doing = int(step[1]) / 100, step[2]
                else:
                    said = [*said[-20:], line.strip()]
        running.says = "\n".join(said)
        running.code = process.returncode
