"""The data folder: the paths of the database, runs, uploads, downloads and logs, and checks that a name does not lead out of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.core.database import StoreError

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
"""A run's id is the name of its folder in `runs`: at most 64 letters, digits, blanks, `.`, `_` or `-`."""


@dataclass(frozen=True, slots=True)
class DataFolder:
    """The folder with everything that rankloop stores: the database, runs, uploads and logs."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "rankloop.db"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def uploads(self) -> Path:
        """Files uploaded through a page, until they are processed. Emptied when the server starts."""
        return self.root / "uploads"

    @property
    def downloads(self) -> Path:
        """Files made for a page's visitor, until they are fetched. Emptied when the server starts."""
        return self.root / "downloads"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def run(self, run_id: str) -> Path:
        """The path of a run's folder, which need not exist.

        Raises:
            StoreError: the id is not a valid run id, or the folder is a link to somewhere else.
        """
        if not is_run_id(run_id):
            raise StoreError(f"{run_id!r} is not a run's id (letters, digits, blanks, dots, hyphens and underscores, at most 64).")
        return inside(self.runs / run_id, self.runs)

    def run_log(self, run_id: str) -> Path:
        return self.run(run_id) / "log.txt"


def is_run_id(value: Any) -> bool:
    return isinstance(value, str) and RUN_ID.fullmatch(value) is not None


def inside(path: Path, folder: Path) -> Path:
    """Returns the path after checking that it resolves to a place inside the folder. The folder itself may be a link.

    Raises:
        StoreError: the path resolves to a place outside the folder, or cannot be resolved.
    """
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise StoreError(f"{path.name!r} cannot be resolved ({error}): remove it.") from error
    if not resolved.is_relative_to(folder.resolve()):
        raise StoreError(f"{path.name!r} leads out of the folder {folder.name}: replace the link with a folder.")
    return path
