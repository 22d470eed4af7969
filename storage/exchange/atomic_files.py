"""Writes files atomically: a reader sees the old file or the new one, and after a crash one of them is complete."""

from __future__ import annotations

import gzip
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from storage.core.database import StoreError


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path to write to. It replaces `path` when the block succeeds; otherwise nothing changes.

    Raises:
        StoreError: the file cannot be written.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        try:
            yield unfinished
            with open(unfinished, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, path)
            sync_folder(path.parent)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error}): choose another folder.") from error


@contextmanager
def atomic_write_text(path: Path | str) -> Iterator[TextIO]:
    """As `atomic_write`, but yields a file open for UTF-8 text, gzipped if the name ends in .gz."""
    with atomic_write(path) as unfinished:
        open_file = gzip.open if str(path).lower().endswith(".gz") else open
        with open_file(unfinished, "xt", encoding="utf-8", newline="\n") as file:
            yield file


def sync_folder(folder: Path) -> None:
    """Makes a rename in the folder durable, where the system supports that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
