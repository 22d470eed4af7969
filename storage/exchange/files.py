"""Reads files as records, one at a time: JSON lines and documents, CSV and TSV, Parquet and Arrow, lines of text, packed or not.

The first bytes determine the kind of file, and a file whose name contradicts them is refused; `json_rows`, `wrapped`, `csv_rows`,
`parquet_rows` and `text_lines` read each kind. Only one record (of at most `Limits.row_bytes`) and a small buffer are in memory at a
time, whatever the file unpacks to. `atomic_files` writes.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from storage.core.database import StoreError
from storage.exchange import csv_rows, encodings, json_rows, message_texts, packing, parquet_rows, text_lines, wrapped
from storage.exchange.columns import fold
from storage.exchange.limits import CHUNK_BYTES, MAX_UNPACKED_BYTES, Limits, mib
from storage.exchange.packing import Packing
from storage.exchange.rows import Row
from storage.exchange.wrapped import IsRow

PROGRESS_ROWS = 256

Container = Literal["json", "csv", "parquet", "lines", "paragraphs"]
RowProgress = Callable[[int, int], None]
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
    path: Path | str,
    container: Container | None = None,
    *,
    limits: Limits = Limits(),
    is_row: IsRow = bool,
    progress: RowProgress | None = None,
) -> Iterator[tuple[int, Row]]:
    """Yields (number, row), with the line number, or the row number in JSON lists and Parquet. Numbers start at 1.

    Blank lines are skipped. A record that cannot be read is a `BadRow` with the reason. `progress` gets the records so far, and how many
    the file has if those to come are as long; of Parquet and Arrow that is not known before the end.

    Args:
        is_row: whether a JSON object is a row. Rows inside an object that is none are found: `{"data": [...]}`.

    Raises:
        StoreError: the file is not there, is not what its name says, is not text, is truncated, or unpacks to too much.
    """
    path = Path(path)
    try:
        with open(path, "rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            count = 0
            for count, record in enumerate(message_texts.decoded(_records(path, raw, container, limits, is_row), limits), start=1):
                yield record
                if progress and count % PROGRESS_ROWS == 0:
                    at = raw.tell()
                    progress(count, round(count * size / at) if at else 0)
            if progress:
                progress(count, count)
    except packing.DAMAGE_ERRORS as error:
        with open(path, "rb") as raw:
            packed = packing.packing_of(raw.read(16))
        what = f"a damaged {packed.name} file" if packed else "damaged"
        raise StoreError(f"{path} is {what} ({error}): fetch it again. Nothing was imported.") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error}): check its name and permissions.") from error


def _records(path: Path, raw: io.BufferedReader, container: Container | None, limits: Limits, is_row: IsRow) -> Iterator[tuple[int, Row]]:
    start = raw.peek(CHUNK_BYTES)[:CHUNK_BYTES]
    packed = packing.packing_of(start)
    _check_name(path, start, packed)
    buffered: io.BufferedReader = raw
    if packed:
        buffered = packing.unpacked(packed, raw, os.fstat(raw.fileno()).st_size, path, limits)
        start = buffered.peek(CHUNK_BYTES)[:CHUNK_BYTES]
        if again := packing.packing_of(start):
            twice = f"{packed.name} twice" if again is packed else f"{packed.name} and {again.name}"
            raise StoreError(f"{path} is packed by {twice}: unpack it first. Nothing was imported.")
    if start.startswith((PARQUET, *ARROW)):
        kind = "Parquet" if start.startswith(PARQUET) else "Arrow"
        if packed or container not in (None, "parquet"):
            remedy = f" inside {packed.name}: unpack it first" if packed else f", not {container}: say --format parquet"
            raise StoreError(f"{path} holds {kind}{remedy}. Nothing was imported.")
        return json_rows.of_lines(parquet_rows.lines(path, limits), limits)
    if container == "parquet" or _ending(path) == ".parquet":
        raise StoreError(f"{path} is no Parquet file: it does not begin as one. Check which file it is. Nothing was imported.")
    _check_text(path, start)
    encodings.check_content(start, path)
    text, start = _as_text(path, buffered, limits)
    kind_of_text = container or _kind_of_text(path, start)
    if b"\r" in start and b"\n" not in start:
        text = encodings.with_line_feeds(text)
    if kind_of_text in ("lines", "paragraphs"):
        return (text_lines.lines if kind_of_text == "lines" else text_lines.paragraphs)(text, limits)
    if kind_of_text == "csv":
        return csv_rows.rows(text, path, limits, _delimiter(path, start))
    if layout := start.startswith((b"{", b"[")) and _layout(path, packed, limits, is_row):
        return wrapped.rows(text, limits, layout)
    if start.startswith(b"[") or _is_spread(start):
        return json_rows.documents(text, limits)
    return json_rows.lines(text, limits)


def _as_text(path: Path, buffered: io.BufferedReader, limits: Limits) -> tuple[io.BufferedReader, bytes]:
    """The text of a file as UTF-8, and its beginning without a mark and blanks."""
    if encoding := encodings.encoding_of(buffered.peek(CHUNK_BYTES)[:CHUNK_BYTES], limits.encoding, path):
        buffered = encodings.as_utf8(buffered, encoding, path)
    return buffered, buffered.peek(CHUNK_BYTES)[:CHUNK_BYTES].removeprefix(codecs.BOM_UTF8).lstrip()


def _layout(path: Path, packed: Packing | None, limits: Limits, is_row: IsRow) -> wrapped.Layout | None:
    """Where the rows of a JSON file stand. Reads its first document."""
    with open(path, "rb") as raw:
        text = packing.unpacked(packed, raw, os.fstat(raw.fileno()).st_size, path, limits) if packed else raw
        return wrapped.layout_of(_as_text(path, text, limits)[0], path, limits, is_row)


def _kind_of_text(path: Path, text: bytes) -> Container:
    """What a text is, by its ending and its beginning.

    Raises:
        StoreError: they contradict each other.
    """
    ending = _ending(path)
    if _is_csv(path, text):
        if _JSON_ROWS.match(text):
            raise StoreError(f"{path} holds JSON, which its name contradicts: rename it to .json if that is right. Nothing was imported.")
        return "csv"
    if ending in JSON_ENDINGS and text and text[:1].isalpha() and any(fold(name) in _HEADINGS for name in _headings(text)[1:]):
        raise StoreError(f"{path} looks like CSV, which its name contradicts: rename it to .csv if that is right. Nothing was imported.")
    return "lines" if ending == ".txt" and text and not _JSON.match(text) else "json"


JSON_ENDINGS = (".json", ".jsonl", ".ndjson")
_JSON = re.compile(rb'[\[{]\s*(?:["{\[\]}]|\Z)')
_JSON_ROWS = re.compile(rb'(?:\{\s*"|\[\s*\{)')
"""How JSON begins, and how it certainly does. `[1] One, two` is text."""


def _headings(text: bytes) -> list[str]:
    first = text.splitlines()[0] if text else b""
    return re.split(r"[,;\t]", first.decode(errors="replace"))


def _is_csv(path: Path, text: bytes) -> bool:
    """Whether a text is CSV: by its ending, or because it begins with a line of headings where no ending says otherwise.

    A `.txt` file may hold sentences with commas: there the headings are words without blanks, or one of them is a usual name of a column.
    """
    ending = _ending(path)
    if ending in (".csv", ".tsv", ".tab"):
        return True
    first = text.splitlines()[0] if text else b""
    if ending in JSON_ENDINGS or not re.match(rb"[\w\"]", first) or not any(mark in first for mark in b",\t;"):
        return False
    headings = _headings(text)
    return ending != ".txt" or all(map(_WORD.fullmatch, headings)) or any(fold(name) in _HEADINGS for name in headings)


_WORD = re.compile(r'"?[A-Za-z_][A-Za-z0-9_.-]*"?')
_HEADINGS = frozenset(map(fold, (
    "prompt", "prompts", "question", "instruction", "text", "messages", "query", "chosen", "rejected", "winner", "completion",
    "completions", "response_a", "response_1", "answer_a", "answer_1",
)))  # fmt: skip


def _delimiter(path: Path, text: bytes) -> str:
    """The field separator: a tab for TSV, or what a first line `sep=;` says.

    Otherwise the one of comma, tab and semicolon that parts the line of headings into the most usual names; of equal ones the first that it
    contains.
    """
    first = text.splitlines()[0].decode(errors="replace") if text else ""
    if _ending(path) in (".tsv", ".tab"):
        return "\t"
    if said := re.fullmatch(r"sep=([,;\t])", first):
        return said[1]
    found = [mark for mark in (",", "\t", ";") if mark in first]
    return max(found, key=lambda mark: sum(fold(name) in _HEADINGS for name in first.split(mark)), default=",")


def _is_spread(text: bytes) -> bool:
    """Whether a JSON object spans several lines: its first line ends as no row of JSON Lines would."""
    first, newline, _ = text.partition(b"\n")
    return bool(newline) and first.startswith(b"{") and first.rstrip().endswith((b"{", b"[", b","))


def _ending(path: Path) -> str:
    """The ending without that of the packing: `.csv` for `a.csv` and `a.csv.gz`."""
    names = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in packing.PACKED_SUFFIXES]
    return names[-1] if names else ""


def _check_name(path: Path, start: bytes, packed: Packing | None) -> None:
    """Refuses a file whose first bytes contradict its name: a person would expect another format than the reader uses."""
    named = next((one for one in packing.PACKINGS if path.suffix.lower() == one.ending), None)
    ending = _ending(path)
    if start.startswith((PARQUET, *ARROW)) and (named or ending in TEXT_ENDINGS):
        kind, right = ("Parquet", ".parquet") if start.startswith(PARQUET) else ("Arrow", ".arrow")
        raise StoreError(f"{path} holds {kind}, which its name contradicts: rename it to {right} if that is right. Nothing was imported.")
    if packed and packed is not named and (named or ending in (*TEXT_ENDINGS, ".parquet", ".arrow")):
        right = path.with_suffix(packed.ending).name if named else path.name + packed.ending
        raise StoreError(
            f"{path} is packed by {packed.name}, which its name contradicts: rename it to {right} if that is right. Nothing was imported."
        )
    if named and start and not packed:
        raise StoreError(
            f"{path} is not packed by {named.name}, although its name says so: remove {named.ending} from its name if that is right. "
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
    """Yields the path of a file that can be read twice: a pipe, or standard input for `-`, is copied to a temporary file.

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
    most = limits.unpacked_bytes or MAX_UNPACKED_BYTES
    with tempfile.TemporaryDirectory(prefix="rankloop-") as folder:
        kept = Path(folder) / "stdin"
        with open(kept, "xb") as file:
            count = 0
            try:
                with open(sys.stdin.fileno() if str(path) == "-" else path, "rb", closefd=str(path) != "-") as pipe:
                    while piece := pipe.read(CHUNK_BYTES):
                        count += len(piece)
                        if count > most:
                            raise StoreError(
                                f"{path} gave more than {mib(most)}: import it with a larger --max-unpacked-mib. Nothing was imported."
                            )
                        file.write(piece)
            except OSError as error:
                raise StoreError(f"{path} cannot be read ({error.strerror or error}).") from error
        yield kept


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
