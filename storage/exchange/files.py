"""Files as records, one at a time: JSON lines, JSON lists, CSV and Parquet, gzipped or not. And files written whole.

No more than one record (at most `LONGEST` bytes) and a small buffer is ever in memory.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import json
import os
import re
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

from storage.database import StoreError
from storage.exchange.rows import BadRow

LONGEST = 64 * 1024 * 1024
"""Bytes of one record."""

CHUNK = 64 * 1024
PARQUET_ROWS = 256
PROGRESS_ROWS = 256

Container = Literal["json", "csv", "parquet"]
Progress = Callable[[int, int], None]
"""Told (done, total) now and then, in bytes or rows."""


def records(
    path: Path | str, container: Container | None = None, *, progress: Progress | None = None
) -> Iterator[tuple[int, dict | BadRow]]:
    """Each record with its line, counted from 1; in a JSON list and in Parquet with its row. Blank lines count for nothing.

    A record that cannot be read comes as the `BadRow` that says why.

    Raises:
        StoreError: the file is not there, is no text, or ends too early.
    """
    path = Path(path)
    try:
        with open(path, "rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            for count, record in enumerate(_records(path, raw, container)):
                if progress and count % PROGRESS_ROWS == 0:
                    progress(raw.tell(), size)
                yield record
            if progress:
                progress(size, size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise StoreError(f"{path} is a damaged gzip file ({error}): fetch it again. Nothing was imported.") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error}): check its name and permissions.") from error


def _records(path: Path, raw: io.BufferedReader, container: Container | None) -> Iterator[tuple[int, dict | BadRow]]:
    zipped = raw.peek(2).startswith(b"\x1f\x8b")
    buffered = io.BufferedReader(gzip.GzipFile(fileobj=raw), CHUNK) if zipped else raw
    start = buffered.peek(CHUNK)[:CHUNK]
    if container == "parquet" or (container is None and start.startswith(b"PAR1")):
        return _parquet(path)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise StoreError(f"{path} is UTF-16 text: save it as UTF-8. Nothing was imported.")
    if b"\0" in start:
        raise StoreError(f"{path} is not text: choose a JSON, CSV or Parquet file. Nothing was imported.")
    names = [suffix.lower() for suffix in path.suffixes]
    if container == "csv" or (container is None and (".csv" in names[-2:])):
        return _csv(buffered)
    if start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        return _list(buffered)
    return _lines(buffered)


def _lines(file: BinaryIO) -> Iterator[tuple[int, dict | BadRow]]:
    number = 0
    while line := file.readline(LONGEST):
        number += 1
        if len(line) == LONGEST and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST)
            yield number, BadRow(f"longer than {LONGEST >> 20} MiB")
            continue
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield number, _object(line)


def _object(line: bytes) -> dict | BadRow:
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError:
        return BadRow("not UTF-8 text")
    except (ValueError, RecursionError):
        return BadRow("not JSON")
    return value if isinstance(value, dict) else BadRow("not a JSON object")


def _list(file: BinaryIO) -> Iterator[tuple[int, dict | BadRow]]:
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape") as text:
        for number, value in enumerate(_Elements(text), start=1):
            yield number, value if isinstance(value, (dict, BadRow)) else BadRow("not a JSON object")


class _Elements:
    """The elements of a JSON list, read as they are asked for. After broken JSON there is no telling where the next begins."""

    _decode = json.JSONDecoder().raw_decode
    _space = re.compile(r"[ \t\r\n]*")

    def __init__(self, file: TextIO):
        self.file = file
        self.buffer = ""
        self.at = 0

    def __iter__(self) -> Iterator[Any]:
        self._next_character()
        self.at += 1
        if self._next_character() == "]":
            return
        while True:
            value = self._value()
            yield value
            if isinstance(value, BadRow):
                return
            after = self._next_character()
            if after == "]":
                return
            if after != ",":
                yield BadRow("the list breaks off after the row before this one")
                return
            self.at += 1

    def _value(self) -> Any:
        self._next_character()
        while True:
            try:
                value, self.at = self._decode(self.buffer, self.at)
                return value
            except RecursionError:
                return BadRow("not JSON: nested too deeply; nothing after it was read")
            except ValueError:
                kept = len(self.buffer) - self.at
                # Twice as much each time: a long element is not scanned again for every chunk of it.
                if kept > LONGEST or not self._read(max(CHUNK, kept)):
                    return BadRow("not JSON, nothing after it was read")

    def _next_character(self) -> str:
        while True:
            self.at = self._space.match(self.buffer, self.at).end()
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self._read(CHUNK):
                return ""

    def _read(self, characters: int) -> bool:
        more = self.file.read(characters)
        self.buffer = self.buffer[self.at :] + more
        self.at = 0
        return bool(more)


def _csv(file: BinaryIO) -> Iterator[tuple[int, dict | BadRow]]:
    # Bytes that are no UTF-8 come through as lone surrogates, so that they cost their row and not the file.
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        yield from _csv_rows(text)


def _csv_rows(text: TextIO) -> Iterator[tuple[int, dict | BadRow]]:
    csv.field_size_limit(LONGEST)
    reader = csv.reader(text, strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, BadRow(f"not CSV: {error}")
            continue
        if not fields:
            continue
        if not header:
            header = [field.strip() for field in fields]
            continue
        if len(fields) != len(header):
            yield line, BadRow(f"{len(fields)} fields under {len(header)} headings")
            continue
        yield line, {name: field for name, field in zip(header, fields, strict=True) if field != ""}


def _parquet(path: Path) -> Iterator[tuple[int, dict | BadRow]]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    # A column that a row says nothing about is null there.
                    yield number, {name: value for name, value in row.items() if value is not None}
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(f"{path} is no Parquet file that can be read ({reason}). Nothing was imported.") from error


def sha256(path: Path | str) -> str:
    """SHA-256 of the file, in hex.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}): check its name and permissions.") from error


@contextmanager
def whole(path: Path | str) -> Iterator[Path]:
    """A name to write to; when the block ends well the file takes `path`'s place, otherwise nothing changes.

    Raises:
        StoreError: it cannot be written.
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
def whole_text(path: Path | str) -> Iterator[TextIO]:
    """As `whole`, open for UTF-8 text; gzipped if the name ends in .gz."""
    with whole(path) as unfinished:
        opened = gzip.open if str(path).lower().endswith(".gz") else open
        with opened(unfinished, "xt", encoding="utf-8", newline="\n") as file:
            yield file


def sync_folder(folder: Path) -> None:
    """Makes a rename outlive a power cut, where the system can."""
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
