"""The encoding of a text file: UTF-8, what a byte order mark says, or what the user names; and texts that are something else."""

from __future__ import annotations

import codecs
import io
import re
from pathlib import Path
from typing import Any, BinaryIO

from storage.core.database import StoreError
from storage.exchange.limits import CHUNK_BYTES

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks, the longer ones first: that of UTF-32 begins with that of UTF-16."""

USUAL = "cp1252 (Western Europe), cp1251 (Cyrillic), gb18030 (Chinese), shift_jis (Japanese), euc-kr (Korean)"
NOT_UTF8 = f"not UTF-8 text: name the encoding of the file with --encoding, such as {USUAL}"

_PAGES = (b"<!doctype html", b"<html", b"<head", b"<!-- ", b"<body")
_POINTERS = {
    b"version https://git-lfs.github.com/spec/": "git lfs pull",
    b"/annex/objects/": "git annex get",
    b"../.git/annex": "git annex get",
}


def check_encoding(name: str) -> str:
    """The name of an encoding of text, as Python knows it.

    Raises:
        StoreError: there is none of this name.
    """
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        raise StoreError(f"There is no encoding {name[:40]!r}: take one of {USUAL}, or utf-16-le.") from None
    if not getattr(found, "_is_text_encoding", True):
        raise StoreError(f"{name[:40]!r} is no encoding of text: take one of {USUAL}, or utf-16-le.")
    return found.name


def encoding_of(start: bytes, named: str | None, path: Path) -> str | None:
    """The encoding that a text file must be decoded from; None for UTF-8.

    Raises:
        StoreError: the text is UTF-16 without a mark, or none at all.
    """
    if named is not None and named not in ("utf-8", "ascii", "utf-8-sig"):
        return named
    for mark, encoding in MARKS:
        if start.startswith(mark):
            return encoding
    if b"\0" in start:
        even, odd = start[::2].count(0), start[1::2].count(0)
        if 4 * max(even, odd) > len(start) and 8 * min(even, odd) < len(start):
            name = "utf-16-le" if odd > even else "utf-16-be"
            raise StoreError(f"{path} looks like UTF-16 without a byte order mark: name it with --encoding {name}. Nothing was imported.")
        raise StoreError(f"{path} is not text: choose a JSON, CSV, Parquet or Arrow file. Nothing was imported.")
    return None


def check_content(start: bytes, path: Path) -> None:
    """Refuses a pointer to a file, and a web page, that were saved in the place of the file.

    Raises:
        StoreError: it is one of them.
    """
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    for pointer, command in _POINTERS.items():
        if text.startswith(pointer):
            raise StoreError(f"{path} only points to the file, which is elsewhere: fetch it with `{command}`. Nothing was imported.")
    if text[:100].lower().startswith(_PAGES):
        raise StoreError(f"{path} is an HTML page and no data: download the file itself, not the page about it. Nothing was imported.")
    if text.startswith(b"<?xml"):
        raise StoreError(f"{path} is XML: choose a JSON, CSV, Parquet or Arrow file. Nothing was imported.")


def as_utf8(file: BinaryIO, encoding: str, path: Path) -> io.BufferedReader:
    """The text of a file in another encoding, as UTF-8.

    Raises:
        StoreError: while reading: it is not in this encoding.
    """
    return io.BufferedReader(_Recoded(file, encoding, path), CHUNK_BYTES)


class _Recoded(io.RawIOBase):
    def __init__(self, file: BinaryIO, encoding: str, path: Path):
        self.file, self.encoding, self.path = file, encoding, path
        self.decoder = codecs.getincrementaldecoder(encoding)()
        self.rest = b""
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.rest and not self.ended:
            data = self.file.read(CHUNK_BYTES)
            self.ended = not data
            try:
                text = self.decoder.decode(data, final=self.ended)
            except UnicodeError as error:
                raise StoreError(
                    f"{self.path} is not {self.encoding.upper()} text ({error}): name another encoding with --encoding. "
                    "Nothing was imported."
                ) from error
            self.rest = text.encode(errors="surrogatepass")
        piece = self.rest[: len(buffer)]
        self.rest = self.rest[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)


def with_line_feeds(file: BinaryIO) -> io.BufferedReader:
    """The text with line feeds where it has carriage returns, which alone end the lines of some programs."""
    return io.BufferedReader(_LineFeeds(file), CHUNK_BYTES)


class _LineFeeds(io.RawIOBase):
    def __init__(self, file: BinaryIO):
        self.file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.file.read(len(buffer))
        buffer[: len(data)] = data.replace(b"\r", b"\n")
        return len(data)


_UNDECODED = re.compile(r"[\udc80-\udcff]")
"""Bytes that are no UTF-8, as `surrogateescape` reads them."""


def is_undecoded(value: Any) -> bool:
    """Whether a value holds bytes that are no UTF-8."""
    if isinstance(value, str):
        return not value.isascii() and _UNDECODED.search(value) is not None
    if isinstance(value, dict):
        return any(is_undecoded(key) or is_undecoded(inner) for key, inner in value.items())
    return isinstance(value, list) and any(map(is_undecoded, value))
