"""What is downloaded from a run: its adapter as a zip, and its metrics as CSV. No torch.

The zip has the two files that PEFT reads. It has none of the store's ids, and no folder of this machine.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlhf import model_files, safe_files
from rlhf.runs import results
from rlhf.safe_files import ModelError
from storage.content import policies
from storage.core.database import Database
from storage.core.records import ACTIVE_STATUSES, Metric, Run

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"

CHUNK_BYTES = 1 << 20

Missing = Literal["not_yet", "at_chance", "ended", "gone"]
"""Why a run has no adapter: it has not come so far, it stopped because of its reward model, it ended before, or the files are not there."""


class NoAdapter(Exception):
    """A run has no adapter to download; `reason` says why."""

    def __init__(self, reason: Missing):
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Adapter:
    """The adapter that a run trained."""

    folder: Path
    base_model: str

    @property
    def size_bytes(self) -> int:
        return (self.folder / WEIGHTS).stat().st_size


def adapter(store: Database, run: Run) -> Adapter:
    """The adapter of the policy version that the run registered.

    Raises:
        NoAdapter: there is none, or its files are not where they must be.
        StoreError: its folder lies outside of the data folder.
    """
    made = [version for version in policies.all_versions(store) if version.kind == "tuned" and version.run_id == run.id]
    folder = policies.adapter_folder(store, made[-1]) if made else None
    if folder is None:
        raise NoAdapter(_why_not(run))
    try:
        safe_files.adapter_fields(folder)
    except ModelError as error:
        raise NoAdapter("gone") from error
    return Adapter(folder, made[-1].base_model)


def _why_not(run: Run) -> Missing:
    if run.status in ACTIVE_STATUSES:
        return "not_yet"
    return "at_chance" if results.of_run_or_empty(run).stopped_at_chance else "ended"


def config_for_elsewhere(folder: Path, base_model: str) -> str:
    """The adapter's `adapter_config.json`, which names the base by its id on the hub, where it has one, and by no folder."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = model_files.hub_id(base_model) or model_files.display_name(base_model)
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def zipped(found: Adapter) -> Iterator[bytes]:
    """The adapter's files as a zip, piece by piece: no temporary file is written, and a large adapter is not held in memory."""
    written = _Written()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(CONFIG), config_for_elsewhere(found.folder, found.base_model))
        with archive.open(zipfile.ZipInfo(WEIGHTS), "w", force_zip64=True) as inside, (found.folder / WEIGHTS).open("rb") as weights:
            while chunk := weights.read(CHUNK_BYTES):
                inside.write(chunk)
                yield written.take()
    yield written.take()


class _Written(io.RawIOBase):
    """Takes what is written, and gives it away. It cannot seek, so that `zipfile` writes each part once."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, part: bytes) -> int:  # type: ignore[override]  # zipfile writes bytes
        self._parts.append(bytes(part))
        return len(part)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def metrics_csv(metrics: Sequence[Metric]) -> str:
    """The metrics in the long form, one value a line: `step,metric,value`."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("step", "metric", "value"))
    rows.writerows((m.step, m.name, repr(m.value)) for m in sorted(metrics, key=lambda m: (m.step, m.name)))
    return text.getvalue()
