"""Reads files as records, one at a time: JSON lines and documents, CSV and TSV, Parquet and Arrow, packed or not. Writes them atomically.

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
import stat
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

from storage.core.database import StoreError
from storage.exchange import cells, encodings, packing, parquet_rows, strict_json
from storage.exchange.limits import MOST_UNPACKED, Limits, mib
from storage.exchange.packing import Packing
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
"""Called with (done, total) from time to time, in rows or pages. A total of 0 is not known yet. What it raises ends the work."""

PARQUET = b"PAR1"
ARROW = (b"ARROW1", b"\xff\xff\xff\xff")
"""First bytes of Arrow's two kinds of file: with a footer (Feather), and the stream that `datasets` writes."""

UNSUPPORTED = {
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"ORC": "an ORC file",
    b"PARE": "encrypted Parquet",
    b"SQLite format 3\0": "an SQLite database",
    b"%PDF-": "a PDF",
    b"\x80\x04\x95": "a pickle, which is never read",
}
"""First bytes of unsupported files, and their names in messages."""

TEXT_ENDINGS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".tab", ".txt")


def records(
    path: Path | str, container: Container | None = None, *, limits: Limits = Limits(), progress: Progress | None = None
) -> Iterator[tuple[int, Record | BadRow]]:
    """Yields (number, record), with the line number, or the row number in JSON lists and Parquet. Numbers start at 1.

    Blank lines are skipped. For a record that cannot be read, a `BadRow` with the reason is yielded instead. `progress` gets the
    records so far, and how many the file has if those to come are as long; of Parquet and Arrow that is not known before the end.

    Raises:
        StoreError: the file is not there, is not what its name says, is not text, is truncated, or unpacks to too much.
    """
    path = Path(path)
    try:
        with open(path, "rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            count = 0
            for count, record in enumerate(_records(path, raw, container, limits), start=1):
                yield record
                if progress and count % PROGRESS_ROWS == 0:
                    at = raw.tell()
                    progress(count, round(count * size / at) if at else 0)
            if progress:
                progress(count, count)
    except packing.DAMAGED as error:
        with open(path, "rb") as raw:
            packed = packing.packing_of(raw.read(16))
        what = f"a damaged {packed.name} file" if packed else "damaged"
        raise StoreError(f"{path} is {what} ({error}): fetch it again. Nothing was imported.") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error}): check its name and permissions.") from error


def _records(path: Path, raw: io.BufferedReader, container: Container | None, limits: Limits) -> Iterator[tuple[int, Record | BadRow]]:
    start = raw.peek(CHUNK)[:CHUNK]
    packed = packing.packing_of(start)
    _check_name(path, start, packed)
    buffered: io.BufferedReader = raw
    if packed:
        buffered = packing.unpacked(packed, raw, os.fstat(raw.fileno()).st_size, path, limits)
        start = buffered.peek(CHUNK)[:CHUNK]
        if again := packing.packing_of(start):
            twice = f"{packed.name} twice" if again is packed else f"{packed.name} and {again.name}"
            raise StoreError(f"{path} is packed by {twice}: unpack it first. Nothing was imported.")
    if start.startswith((PARQUET, *ARROW)):
        kind = "Parquet" if start.startswith(PARQUET) else "Arrow"
        if packed or container in ("json", "csv"):
            remedy = f" inside {packed.name}: unpack it first" if packed else f", not {container}: say --format parquet"
            raise StoreError(f"{path} holds {kind}{remedy}. Nothing was imported.")
        return _as_rows(parquet_rows.lines(path, limits), limits)
    if container == "parquet" or _ending(path) == ".parquet":
        raise StoreError(f"{path} is no Parquet file: it does not begin as one. Check which file it is. Nothing was imported.")
    _check_text(path, start)
    encodings.check_content(start, path)
    if encoding := encodings.encoding_of(start, limits.encoding, path):
        buffered = encodings.as_utf8(buffered, encoding, path)
        start = buffered.peek(CHUNK)[:CHUNK]
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if container == "csv" or (container is None and _is_csv(path, text)):
        return _csv(buffered, path, limits, _delimiter(path, text))
    if text.startswith(b"[") or _is_spread(text):
        return _documents(buffered, limits)
    return _lines(buffered, limits)


def _is_csv(path: Path, text: bytes) -> bool:
    """Whether a text is CSV: by its ending, or because it begins with a line of headings where no ending says otherwise."""
    ending = _ending(path)
    if ending in (".csv", ".tsv", ".tab"):
        return True
    first = text.splitlines()[0] if text else b""
    return ending not in (".json", ".jsonl", ".ndjson") and bool(re.match(rb"[\w\"]", first)) and any(mark in first for mark in b",\t;")


def _delimiter(path: Path, text: bytes) -> str:
    """What separates the fields: what stands in the line of headings, a comma first where the file is named CSV."""
    first = text.splitlines()[0] if text else b""
    if _ending(path) in (".tsv", ".tab"):
        return "\t"
    return next((mark for mark in (",", "\t", ";") if mark.encode() in first), ",")


def _is_spread(text: bytes) -> bool:
    """Whether a JSON object goes over several lines: its first line ends where no row of JSON lines would."""
    first, newline, _ = text.partition(b"\n")
    return bool(newline) and first.startswith(b"{") and first.rstrip().endswith((b"{", b"[", b","))


def _ending(path: Path) -> str:
    """The ending without that of the packing: `.csv` for `a.csv` and `a.csv.gz`."""
    names = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in packing.ENDINGS]
    return names[-1] if names else ""


def _check_name(path: Path, start: bytes, packed: Packing | None) -> None:
    """Refuses a file whose first bytes contradict its name: a person would take it for something else than the reader does."""
    named = next((one for one in packing.PACKINGS if path.suffix.lower() == one.ending), None)
    ending = _ending(path)
    if start.startswith((PARQUET, *ARROW)) and (named or ending in TEXT_ENDINGS):
        kind, right = ("Parquet", ".parquet") if start.startswith(PARQUET) else ("Arrow", ".arrow")
        raise StoreError(f"{path} holds {kind}, which its name denies: name it {right} if that is right. Nothing was imported.")
    if packed and packed is not named and (named or ending in (*TEXT_ENDINGS, ".parquet", ".arrow")):
        right = path.with_suffix(packed.ending).name if named else path.name + packed.ending
        raise StoreError(
            f"{path} is packed by {packed.name}, which its name denies: name it {right} if that is right. Nothing was imported."
        )
    if named and start and not packed:
        raise StoreError(
            f"{path} is not packed by {named.name}, as its name says: take {named.ending} off its name if that is right. "
            "Nothing was imported."
        )


def _check_text(path: Path, start: bytes) -> None:
    # A text may begin with the same letters as an archive, but only an archive continues with binary bytes.
    binary = any(byte < 9 or byte > 0x7F for byte in start[:64])
    for magic, what in UNSUPPORTED.items():
        if binary and start.startswith(magic):
            raise StoreError(f"{path} is {what}: choose a JSON, CSV, Parquet or Arrow file. Nothing was imported.")


@contextmanager
def regular(path: Path | str, limits: Limits = Limits()) -> Iterator[Path]:
    """Yields the path of a file that can be read twice: what comes from a pipe, or from standard input for `-`, is kept meanwhile.

    Raises:
        StoreError: it cannot be read, or is longer than a packed file may unpack to.
    """
    path = Path(path)
    try:
        is_pipe = str(path) == "-" or stat.S_ISFIFO(mode := os.stat(path).st_mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}): check its name and permissions.") from error
    if not is_pipe:
        yield path
        return
    most = limits.unpacked_bytes or MOST_UNPACKED
    with tempfile.TemporaryDirectory(prefix="rankloop-") as folder:
        kept = Path(folder) / "stdin"
        with open(kept, "xb") as file:
            count = 0
            try:
                with open(sys.stdin.fileno() if str(path) == "-" else path, "rb", closefd=str(path) != "-") as pipe:
                    while piece := pipe.read(CHUNK):
                        count += len(piece)
                        if count > most:
                            raise StoreError(
                                f"{path} gave more than {mib(most)}: import it with a larger --max-unpacked-mib. Nothing was imported."
                            )
                        file.write(piece)
            except OSError as error:
                raise StoreError(f"{path} cannot be read ({error.strerror or error}).") from error
        yield kept


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
        # Files that were joined have one in the middle too.
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
        return BadRow(encodings.NOT_UTF8)
    except (ValueError, RecursionError):
        return BadRow("not JSON")
    return value if isinstance(value, (dict, BadRow)) else BadRow("not a JSON object")


def _as_rows(lines: Iterator[bytes], limits: Limits) -> Iterator[tuple[int, Record | BadRow]]:
    """Decodes rows of Parquet, each of which is a line of JSON."""
    for number, line in enumerate(lines, start=1):
        row = too_long(limits) if len(line) > limits.row_bytes else _object(line, limits)
        # A row has null in the columns for which it has no value.
        yield number, row if isinstance(row, BadRow) else {name: value for name, value in row.items() if value is not None}


def _documents(file: BinaryIO, limits: Limits) -> Iterator[tuple[int, Record | BadRow]]:
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape") as text:
        for number, value in enumerate(_Elements(text, limits), start=1):
            if _is_undecoded(value):
                value = BadRow(encodings.NOT_UTF8)
            yield number, value if isinstance(value, (dict, BadRow)) else BadRow("not a JSON object")


_UNDECODED = re.compile(r"[\udc80-\udcff]")
"""Bytes that are no UTF-8, as `surrogateescape` reads them."""


def _is_undecoded(value: Any) -> bool:
    if isinstance(value, str):
        return not value.isascii() and _UNDECODED.search(value) is not None
    if isinstance(value, dict):
        return any(_is_undecoded(key) or _is_undecoded(inner) for key, inner in value.items())
    return isinstance(value, list) and any(map(_is_undecoded, value))


class _Elements:
    """Iterates over JSON documents, the elements of lists one by one, and reads the file as needed. It ends at invalid JSON."""

    _space = re.compile(r"[ \t\r\n\x1e\ufeff]*")

    def __init__(self, file: TextIO, limits: Limits):
        self.file = file
        self.limits = limits
        self.buffer = ""
        self.at = 0
        self.ended = False

    def __iter__(self) -> Iterator[Any]:
        while character := self._next_character():
            if character == "[":
                self.at += 1
                yield from self._list()
            elif character == "{":
                yield self._value()
            else:
                yield self._end("not JSON; nothing after it was read")
            if self.ended:
                return

    def _list(self) -> Iterator[Any]:
        if self._next_character() == "]":
            self.at += 1
            return
        while True:
            value = self._value()
            yield value
            if self.ended:
                return
            after = self._next_character()
            self.at += 1
            if after == "]":
                return
            if after != ",":
                yield self._end("the list breaks off after the row before this one")
                return

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


def _csv(file: BinaryIO, path: Path, limits: Limits, delimiter: str) -> Iterator[tuple[int, Record | BadRow]]:
    # Invalid UTF-8 becomes lone surrogates, so that only its row is refused and not the file.
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        yield from _csv_rows(text, path, limits, delimiter)


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


def _csv_rows(text: TextIO, path: Path, limits: Limits, delimiter: str) -> Iterator[tuple[int, Record | BadRow]]:
    # This limit is global to the process. The limit of a record is enforced by `_RecordLines`.
    csv.field_size_limit(2**31 - 1)
    lines = _RecordLines(text, limits.row_bytes)
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
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
        if any(map(_is_undecoded, fields)):
            yield line, BadRow(encodings.NOT_UTF8)
            if not header:
                return
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
        try:
            yield line, {name: _cell(name, field, limits) for name, field in zip(header, fields, strict=True) if field != ""}
        except BadRow as error:
            yield line, error


def _cell(name: str, text: str, limits: Limits) -> Any:
    """The text of a cell, or the messages that it holds as JSON.

    Raises:
        BadRow: it holds messages as Python prints them, which would become one text otherwise.
    """
    if _PYTHON_MESSAGES.match(text):
        raise BadRow(f"{name} holds messages as Python prints them, not as JSON: write the file with JSON in its cells")
    if not _JSON_MESSAGES.match(text):
        return text
    try:
        value = strict_json.decode(text, limits)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, BadRow) or not all(isinstance(item, dict) and _ROLES & set(item) for item in value) else value


_JSON_MESSAGES = re.compile(r'\s*\[\s*\{\s*"(?:role|content|from|value)"\s*:')
_PYTHON_MESSAGES = re.compile(r"\s*\[\s*\{\s*'(?:role|content|from|value)'\s*:")
_ROLES = {"role", "from"}


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
