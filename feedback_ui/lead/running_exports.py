"""The exports of judgments that this process is doing: how far each is, what came of it, and where its file is. None of this is stored."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from feedback_ui.server import download_files
from storage.core.database import Database, StoreError
from storage.exchange import formats, native, plain
from storage.exchange.export import Exported

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20


class ExportStopped(StoreError):
    """Somebody stopped the export; nothing of it is left."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be exported, as the options of `rankloop export`."""

    format: str
    include_simulated: bool = False
    names: bool = False
    strict: bool = False
    packed: bool = False
    """Gzipped; Parquet and native files are packed by themselves."""
    raw_cells: bool = False
    """CSV cells unchanged, also where a spreadsheet would run one as a formula."""

    @property
    def is_native(self) -> bool:
        return self.format == formats.NATIVE

    @property
    def suffix(self) -> str:
        return ".zip" if self.is_native else formats.FORMATS[self.format].suffix

    def file_name(self, day: str) -> str:
        return f"rankloop-{self.format}-{day}{self.suffix}{'.gz' if self.packed else ''}"


@dataclass(slots=True)
class RunningExport:
    """One export, under way or ended. Its thread calls `advance`, as the callback of a writer."""

    wanted: Wanted
    path: Path
    """The file, once it is whole; it is gone after it was downloaded."""
    started: float = field(default_factory=time.monotonic)
    done: int = 0
    total: int = 0
    """Judgments, of a native export rows of the store; 0 until the first are written."""
    is_over: bool = False
    stop_requested: bool = False
    exported: Exported | None = None
    error: Exception | None = None
    size: int = 0
    """Bytes of the file."""

    def advance(self, done: int, total: int) -> None:
        """Notes what is written.

        Raises:
            ExportStopped: `stop_requested` is set.
        """
        self.check()
        self.done, self.total = done, total

    def check(self) -> None:
        """Raises ExportStopped if `stop_requested` is set."""
        if self.stop_requested:
            raise ExportStopped(f"The export of {self.path.name} was stopped. Nothing of it is left.")

    @property
    def seconds_left(self) -> float | None:
        """Seconds until it is done, at the pace so far; None if that is not known."""
        if not self.done or not self.total:
            return None
        return (time.monotonic() - self.started) * max(0, self.total - self.done) / self.done


class RunningExports:
    """The last export of each annotator."""

    def __init__(self) -> None:
        self._last: dict[int, RunningExport] = {}
        self._lock = threading.Lock()

    def of(self, owner: int) -> RunningExport | None:
        return self._last.get(owner)

    def start(self, store: Database, owner: int, wanted: Wanted) -> RunningExport:
        """Begins an export in a thread. The file of the one before is deleted.

        Raises:
            StoreError: the one before is not over, or the options do not fit the format.
            OSError: no folder can be made for it.
        """
        check(wanted)
        with self._lock:
            last = self._last.get(owner)
            if last is not None and not last.is_over:
                raise StoreError(f"{last.path.name} is still being written: wait until that is done, or stop it.")
            path = download_files.new_folder(store, owner) / wanted.file_name(f"{datetime.now(UTC):%Y-%m-%d}")
            running = self._last[owner] = RunningExport(wanted, path)
        threading.Thread(target=_run, args=(store, running), name="data-export", daemon=True).start()
        return running

    def stop(self, owner: int) -> None:
        """Requests that an export ends; one that is over already is no error."""
        if running := self._last.get(owner):
            running.stop_requested = True


def check(wanted: Wanted) -> None:
    """Raises StoreError if the options do not fit the format, or there is no such format."""
    if wanted.format not in formats.WRITABLE:
        raise StoreError(f"{wanted.format} cannot be exported: choose one of {', '.join(formats.WRITABLE)}.")
    if wanted.raw_cells and wanted.format != "csv":
        raise StoreError("--raw-cells is for CSV: choose the format csv.")
    if wanted.packed and wanted.suffix in (".parquet", ".zip"):
        raise StoreError(f"A {wanted.suffix} file is packed by itself: export it without --packed.")


def _run(store: Database, running: RunningExport) -> None:
    try:
        running.exported = _write(store, running)
        running.size = running.path.stat().st_size
    except Exception as error:
        if not isinstance(error, StoreError | OSError):
            log.exception("an export failed")
        running.error = error
        download_files.delete(running.path)
    finally:
        running.is_over = True


def _write(store: Database, running: RunningExport) -> Exported:
    wanted = running.wanted
    if wanted.is_native:
        return Exported(written=_native(store, running))
    write: Callable[..., Exported] | None = plain.RAW if wanted.raw_cells else formats.FORMATS[wanted.format].write
    assert write is not None, "checked before the start"
    options = {"include_simulated": wanted.include_simulated, "names": wanted.names, "strict": wanted.strict}
    return write(store, running.path, **options, progress=running.advance)


def _native(store: Database, running: RunningExport) -> int:
    """Writes the folder of a native export as a .zip file, and returns the number of rows."""
    folder = running.path.with_suffix("")
    rows = native.write(store, folder, progress=running.advance)
    with ZipFile(running.path, "x", ZIP_DEFLATED, compresslevel=1) as packed:
        for file in sorted(folder.iterdir()):
            with open(file, "rb") as source, packed.open(f"{folder.name}/{file.name}", "w", force_zip64=True) as into:
                while chunk := source.read(CHUNK_BYTES):
                    running.check()
                    into.write(chunk)
    shutil.rmtree(folder)
    return rows
