"""Packages that only one export format needs: installed in a folder of their own beside rankloop's, at the first use. No torch.

They stay out of rankloop's environment, because a deployment needs one or two of them and a laptop none. A folder is found again by
its pins, the Python and the machine; it counts as built only with its last file.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rlhf import model_files
from rlhf.runs.environment import engine_environment

COMPLETE = "complete"
"""The file that is written last."""


class PackagesError(Exception):
    """The packages cannot be installed; the message says why and what to do."""


def folder_of(packages: Sequence[str]) -> Path:
    """Where these packages are or will be installed."""
    key = "\n".join([*sorted(packages), platform.python_version(), sys.platform, platform.machine()])
    return model_files.cache_folder() / "deploy" / hashlib.sha256(key.encode()).hexdigest()[:16]


def install(packages: Sequence[str], say: Callable[[str], None]) -> Path | None:
    """The folder with these packages, installed if they are not there yet; None if there are none.

    Args:
        say: called with a line when something is installed.

    Raises:
        PackagesError: pip failed.
    """
    if not packages:
        return None
    folder = folder_of(packages)
    if (folder / COMPLETE).exists():
        return folder
    say(f"installing {', '.join(packages)} in {folder}, which stays for the next export")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".installing-") as temporary:
        target = Path(temporary) / "packages"
        # What they need in turn is pinned among them, or rankloop's own.
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command = [*pip, "--no-deps", "--target", str(target), *packages]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            lines = [line for line in done.stdout.splitlines() if line.strip()]
            reason = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "pip printed nothing")
            raise PackagesError(
                f"the format's packages cannot be installed ({reason.strip()}). Check the network and pip's index, then repeat."
            )
        (target / COMPLETE).write_text("\n".join(packages) + "\n", encoding="utf-8")
        # A folder without its last file is a build that was broken off.
        shutil.rmtree(folder, ignore_errors=True)
        try:
            target.rename(folder)
        except OSError:
            # Another process was first.
            if not (folder / COMPLETE).exists():
                raise
    return folder


def environment_with(folder: Path | None) -> dict[str, str]:
    """The environment variables of a process that sees the packages of that folder beside rankloop's own."""
    variables = engine_environment()
    if folder is not None:
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), variables.get("PYTHONPATH", "")]))
    return variables
