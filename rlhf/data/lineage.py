"""Lineage: from a run to the judgments that it learned from, and from a judgment to the runs that it went into.

A run's folder holds its snapshot of preference pairs, and each pair names its judgment; the run's row has the file's hash. There is
no second copy: a run whose folder was deleted is named as such, never guessed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from rlhf.data import pairs
from rlhf.runs.typed_json import UnreadableRecord
from storage.core.data_folder import DataFolder
from storage.core.database import Database, StoreError
from storage.core.records import Run
from storage.project import runs


@dataclass(frozen=True, slots=True)
class Uses:
    """The runs that learned from a judgment."""

    run_ids: list[str]
    unknown: list[str]
    """Runs with a snapshot that cannot be read here: it was deleted, or is not the one that the run's row names."""


def judgments_of(folder: DataFolder, run: Run) -> list[int]:
    """The ids of the judgments whose pairs a run learned from, in order.

    Raises:
        StoreError: the run has no snapshot, or its file is missing or not the one that its row names.
    """
    found = {int(row["judgment_id"]) for row in map(json.loads, _snapshot(folder, run).decode().splitlines())}
    return sorted(found)


def uses_of(store: Database, folder: DataFolder, judgment_id: int) -> Uses:
    """The runs that learned from this judgment, oldest first. Reads the snapshot of every run."""
    uses = Uses([], [])
    for run in reversed(runs.all_runs(store)):
        if not run.snapshot:
            continue
        try:
            if judgment_id in judgments_of(folder, run):
                uses.run_ids.append(run.id)
        except StoreError:
            uses.unknown.append(run.id)
    return uses


def _snapshot(folder: DataFolder, run: Run) -> bytes:
    file = _file(folder, run)
    try:
        content = file.read_bytes()
        expected = pairs.manifest_of_run(run).sha256
    except (OSError, UnreadableRecord) as error:
        raise StoreError(
            f"The judgments of run {run.id} are not known: its snapshot cannot be read ({error}). Restore a backup."
        ) from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise StoreError(f"The judgments of run {run.id} are not known: {file} is not the snapshot that it learned from. Restore a backup.")
    return content


def _file(folder: DataFolder, run: Run) -> Path:
    return folder.run(run.id) / pairs.PAIRS_FILE
