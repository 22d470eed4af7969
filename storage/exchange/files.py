"""Reads files as records, one at a time: JSON lines, JSON lists, CSV and Parquet, gzipped or not. Writes files atomically.

Only one record (of at most `Limits.row_bytes`) and a small buffer are in memory at a time, whatever the file unpacks to. The
first bytes determine the kind of file; a file whose name contradicts them is refused.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import os
import re
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

from storage.core.database import StoreError
from storage.exchange import cells, parquet_rows, strict_json
from storage.exchange.limits import Limits, mib
from storage.exchange.rows import BadRow, Record

CHUNK = 64 * 1024
PARQUET_ROWS = 256
PROGRESS_ROWS = 256

MOST_COLUMNS = 10_000
"""Most columns of a CSV file."""

MOST_BLANK = 1_000_000
"""Most blank lines: they take time, and a compressed file may contain billions."""

Container = Literal["json", "csv", "parquet"]
Progress = Callable[[int, int], None]
"""Called with (done, total) from time to time, in bytes or rows."""

GZIP, PARQUET = b"\x1f\x8b", b"PAR1"

UNSUPPORTED = {
    b"PK\x03\x04": "a zip archive, or an office document",
    b"(\xb5/\xfd": "packed by zstd",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ\0": "packed by xz",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"ARROW1": "an Arrow file",
    b"ORC": "an ORC file",
    b"PARE": "encrypted Parquet",
    b"SQLite format 3\0": "an SQLite database",
    b"%PDF-": "a PDF",
    b"\x80\x04\x95": "a pickle, which is never read",
}
"""First bytes of unsupported files, and their names in messages."""

TEXT_ENDINGS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt")


def records(
    path: Path | str, container: Container | None = None, *, limits: Limits = Limits(), progress: Progress | None = None
) -> Iterator[tuple[int, Record | BadRow]]:
    """Yields (number, record), with the line number, or the row number in JSON lists and Parquet. Numbers start at 1.

    Blank lines are skipped. For a record that cannot be read, a `BadRow` with the reason is yielded instead.

    Raises:
        StoreError: the file is not there, is not what its name says, is not text, is truncated, or unpacks to too much.
    """
    path = Path(path)
    try:
        with open(path, "rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            for count, record in enumerate(_records(path, raw, container, limits)):
                if progress and count % PROGRESS_ROWS == 0:
                    progress(raw.tell(), size)
                yield record
            if progress:
                progress(size, size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise StoreError(f"{path} is a damaged gzip file ({error}): fetch it again. Nothing was imported.") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error}): check its name and permissions.") from error


def _records(path: Path, raw: io.BufferedReader, container: Container | None, limits: Limits) -> Iterator[tuple[int, Record | BadRow]]:
    start = raw.peek(CHUNK)[:CHUNK]
    zipped = start.startswith(GZIP)
    _check_name(path, start)
    buffered: Any = raw
    if zipped:
        most = limits.unpacked(os.fstat(raw.fileno()).st_size)
        buffered = io.BufferedReader(_Unpacked(gzip.GzipFile(fileobj=raw), most, path), CHUNK)
        start = buffered.peek(CHUNK)[:CHUNK]
    if start.startswith(PARQUET):
        if zipped or container in ("json", "csv"):
            raise StoreError(
                f"{path} holds Parquet{' inside gzip: unpack it first' if zipped else f', not {container}: say --format parquet'}. "
                "Nothing was imported."
            )
        return _as_rows(parquet_rows.lines(path, limits), limits)
    if container == "parquet" or _ending(path) == ".parquet":
        raise StoreError(f"{path} is no Parquet file: it does not begin as one. Check which file it is. Nothing was imported.")
    _check_text(path, start)
    if container == "csv" or (container is None and _ending(path) == ".csv"):
        return _csv(buffered, path, limits)
    if start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        return _list(buffered, limits)
    return _lines(buffered, limits)


def _ending(path: Path) -> str:
    """The ending without .gz: `.csv` for `a.csv` and `a.csv.gz`."""
    names = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    return names[-1] if names else ""


def _check_name(path: Path, start: bytes) -> None:
    """Refuses a file whose first bytes contradict its name: a person would take it for something else than the reader does."""
    named_gzip, ending = path.suffix.lower() == ".gz", _ending(path)
    if start.startswith(PARQUET) and (named_gzip or ending in TEXT_ENDINGS):
        raise StoreError(f"{path} holds Parquet, which its name denies: name it .parquet if that is right. Nothing was imported.")
    if start.startswith(GZIP) and not named_gzip and ending in (*TEXT_ENDINGS, ".parquet"):
        raise StoreError(f"{path} is packed by gzip, which its name denies: name it {path.name}.gz if that is right. Nothing was imported.")
    if named_gzip and start and not start.startswith(GZIP):
        raise StoreError(f"{path} is not packed by gzip, as its name says: take .gz off its name if that is right. Nothing was imported.")


def _check_text(path: Path, start: bytes) -> None:
    # A text may begin with the same letters as an archive, but only an archive continues with binary bytes.
    binary = any(byte < 9 or byte > 0x7F for byte in start[:64])
    for magic, what in UNSUPPORTED.items():
        if binary and start.startswith(magic):
            raise StoreError(f"{path} is {what}: choose a JSON, CSV or Parquet file. Nothing was imported.")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise StoreError(f"{path} is UTF-16 text: save it as UTF-8. Nothing was imported.")
    if start.startswith(GZIP):
        raise StoreError(f"{path} is packed by gzip twice: unpack it first. Nothing was imported.")
    if b"\0" in start:
        raise StoreError(f"{path} is not text: choose a JSON, CSV or Parquet file. Nothing was imported.")


class _Unpacked(io.RawIOBase):
    """The unpacked contents of a gzip file, up to `most` bytes.

    Raises:
        StoreError: there are more.
    """

    def __init__(self, file: gzip.GzipFile, most: int, path: Path):
        self.file, self.most, self.path, self.count = file, most, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.file.readinto(buffer)
        self.count += count
        if self.count > self.most:
            raise StoreError(unpacks_to_too_much(self.path, self.most))
        return count


def unpacks_to_too_much(path: Path, most: int) -> str:
    return (
        f"{path} ({mib(path.stat().st_size)}) unpacks to more than {mib(most)}: unpack it yourself if it is right, or import it "
        "with a larger --max-unpacked-mib. Nothing was imported."
    )


def too_long(limits: Limits) -> BadRow:
    return BadRow(f"longer than {mib(limits.row_bytes)}: import with a larger --max-row-mib if it is right")


def _lines(file: BinaryIO, limits: Limits) -> Iterator[tuple[int, Record | BadRow]]:
    number = blank = 0
    # One more byte for the line break.
    while line := file.readline(limits.row_bytes + 1):
        number += 1
        if len(line) > limits.row_bytes and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(CHUNK)
            yield number, too_long(limits)
            continue
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield number, _object(line, limits)
        else:
            blank += 1
            _check_blank(blank)


def _check_blank(count: int) -> None:
    if count > MOST_BLANK:
        raise StoreError(f"More than {MOST_BLANK:,} blank lines: take them out. Nothing was imported.")


def _object(line: bytes, limits: Limits) -> Record | BadRow:
    try:
        value = strict_json.decode(line.decode(), limits)
    except UnicodeDecodeError:
        return BadRow("not UTF-8 text")
    except (ValueError, RecursionError):
        return BadRow("not JSON")
    return value if isinstance(value, (dict, BadRow)) else BadRow("not a JSON object")


def _as_rows(lines: Iterator[bytes], limits: Limits) -> Iterator[tuple[int, Record | BadRow]]:
    """Decodes rows of Parquet, each of which is a line of JSON."""
    for number, line in enumerate(lines, start=1):
        row = too_long(limits) if len(line) > limits.row_bytes else _object(line, limits)
        # A row has null in the columns for which it has no value.
        yield number, row if isinstance(row, BadRow) else {name: value for name, value in row.items() if value is not None}


def _list(file: BinaryIO, limits: Limits) -> Iterator[tuple[int, Record | BadRow]]:
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape") as text:
        for number, value in enumerate(_Elements(text, limits), start=1):
            yield number, value if isinstance(value, (dict, BadRow)) else BadRow("not a JSON object")


class _Elements:
    """Iterates over the elements of a JSON list and reads the file as needed. Iteration ends at invalid JSON."""

    _space = re.compile(r"[ \t\r\n]*")

    def __init__(self, file: TextIO, limits: Limits):
        self.file = file
        self.limits = limits
        self.buffer = ""
        self.at = 0
        self.ended = False

    def __iter__(self) -> Iterator[Any]:
        self._next_character()
        self.at += 1
        if self._next_character() == "]":
            return
        while True:
            value = self._value()
            yield value
            if self.ended:
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
            # Two chunks decode to a small value in any case, so the size is checked only for longer ones.
            if len(self.buffer) - self.at > 2 * CHUNK and (refused := self._too_large(len(self.buffer))):
                return self._end(f"{refused}; nothing after it was read")
            try:
                value, end = strict_json.decode_at(self.buffer, self.at)
                value = self._too_large(end) or value
                self.at = end
                return value
            except RecursionError:
                return self._end(f"{strict_json.TOO_DEEP}; nothing after it was read")
            except ValueError:
                buffered = len(self.buffer) - self.at
                if buffered > self.limits.row_bytes:
                    return self._end(f"{too_long(self.limits)}, or not JSON; nothing after it was read")
                # The buffer doubles each time, so that a long element is not scanned again for every chunk.
                if not self._read(max(CHUNK, buffered)):
                    return self._end("not JSON, nothing after it was read")

    def _too_large(self, end: int) -> BadRow | None:
        return strict_json.too_large(self.buffer, self.at, end, self.limits)

    def _end(self, reason: str) -> BadRow:
        self.ended = True
        return BadRow(reason)

    def _next_character(self) -> str:
        while True:
            if space := self._space.match(self.buffer, self.at):
                self.at = space.end()
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self._read(CHUNK):
                return ""

    def _read(self, characters: int) -> bool:
        more = self.file.read(characters)
        self.buffer = self.buffer[self.at :] + more
        self.at = 0
        return bool(more)


def _csv(file: BinaryIO, path: Path, limits: Limits) -> Iterator[tuple[int, Record | BadRow]]:
    # Invalid UTF-8 becomes lone surrogates, so that only its row is refused and not the file.
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        yield from _csv_rows(text, path, limits)


class _TooLong(Exception):
    pass


class _RecordLines:
    """The lines of a CSV file for `csv.reader`, with a limit for each record; the reader itself has one for fields only.

    Raises:
        _TooLong: the lines since `begin` have more characters than `most`.
    """

    def __init__(self, text: TextIO, most: int):
        self.text, self.most, self.taken = text, most, 0

    def begin(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.text.readline(self.most + 1 - self.taken)
        self.taken += len(line)
        if self.taken > self.most:
            raise _TooLong
        if not line:
            raise StopIteration
        return line


def _csv_rows(text: TextIO, path: Path, limits: Limits) -> Iterator[tuple[int, Record | BadRow]]:
    # This limit is global to the process. The limit of a record is enforced by `_RecordLines`.
    csv.field_size_limit(2**31 - 1)
    lines = _RecordLines(text, limits.row_bytes)
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    blank = 0
    while True:
        line = reader.line_num + 1
        lines.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except _TooLong:
            # The rest may still be inside a quoted text, and must not be read as rows.
            reason = f"{too_long(limits)}, or a quotation mark was never closed; nothing after it was read"
            yield line, BadRow(reason)
            return
        except csv.Error as error:
            yield line, BadRow(f"not CSV: {error}")
            continue
        if not fields:
            blank += 1
            _check_blank(blank)
            continue
        if not header:
            header = [field.strip() for field in fields]
            _check_header(header, path)
            continue
        if len(fields) != len(header):
            yield line, BadRow(f"{len(fields)} fields under {len(header)} headings")
            continue
        if not limits.raw_cells:
            fields = [cells.raw(field) for field in fields]
        yield line, {name: field for name, field in zip(header, fields, strict=True) if field != ""}


def _check_header(header: list[str], path: Path) -> None:
    if len(header) > MOST_COLUMNS:
        raise StoreError(f"{path} has {len(header):,} columns, at most {MOST_COLUMNS:,} are read. Nothing was imported.")
    name, count = Counter(filter(None, header)).most_common(1)[0] if any(header) else ("", 1)
    if count > 1:
        raise StoreError(f"{path} has the column {name[:40]!r} {count} times: rename all but one. Nothing was imported.")


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
