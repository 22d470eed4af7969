"""Unpacks files while they are read: gzip, bzip2, xz, zstd and zip, each with a limit for what it may unpack to.

The first bytes say how a file is packed. A name that says otherwise is refused: somebody who looks at the name expects that kind.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from storage.core.database import StoreError
from storage.exchange.limits import CHUNK_BYTES, Limits, mib

XZ_MEMORY = 128 << 20
"""Bytes of memory that the dictionary of an xz file may take: a few bytes of a header can ask for 4 GiB."""

ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)


@dataclass(frozen=True, slots=True)
class Packing:
    name: str
    ending: str
    magic: bytes


GZIP = Packing("gzip", ".gz", b"\x1f\x8b")
PACKINGS = (
    GZIP,
    Packing("bzip2", ".bz2", b"BZh"),
    Packing("xz", ".xz", b"\xfd7zXZ\0"),
    Packing("zstd", ".zst", b"\x28\xb5\x2f\xfd"),
    Packing("zip", ".zip", b"PK\x03\x04"),
)
PACKED_SUFFIXES = tuple(packing.ending for packing in PACKINGS)

DAMAGE_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)
"""What readers raise for a damaged file; `OSError` too."""


def packing_of(start: bytes) -> Packing | None:
    """How a file that begins so is packed."""
    # A text may begin with the letters of bzip2, but its archive continues with the digits of pi.
    return next((one for one in PACKINGS if start.startswith(one.magic) and (one.name != "bzip2" or start[4:10] == b"1AY&SY")), None)


def unpacked(packing: Packing, raw: io.BufferedReader, size: int, path: Path, limits: Limits) -> io.BufferedReader:
    """The contents of a packed file.

    Raises:
        StoreError: here or while reading: it holds several files or an office document, or unpacks to too much.
    """
    most = limits.unpacked(size)
    return io.BufferedReader(_Bounded(_reader(packing, raw, path), most, path), CHUNK_BYTES)


def _reader(packing: Packing, raw: io.BufferedReader, path: Path) -> Any:
    if packing.name == "gzip":
        return gzip.GzipFile(fileobj=raw)
    if packing.name == "zip":
        return _member(raw, path)
    if packing.name == "zstd":
        import pyarrow

        # pyarrow limits zstd's window to 128 MiB.
        return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), "zstd")
    return _Streams(raw, bz2.BZ2Decompressor if packing.name == "bzip2" else lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY))


def _member(raw: BinaryIO, path: Path) -> Any:
    archive = zipfile.ZipFile(raw)
    names = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
    if any(info.filename == "[Content_Types].xml" for info in names):
        raise StoreError(f"{path} is an office document: save it as CSV. Nothing was imported.")
    if len(names) != 1:
        shown = ", ".join(_printable(info.filename) for info in names[:5]) + (", …" if len(names) > 5 else "")
        raise StoreError(f"{path} is a zip archive of {len(names)} files ({shown}): unpack it and import each. Nothing was imported.")
    if names[0].flag_bits & 1:
        raise StoreError(f"{path} is an encrypted zip archive: unpack it first. Nothing was imported.")
    if names[0].compress_type not in ZIP_METHODS:
        raise StoreError(f"{path} is a zip archive packed by a method that is not read: unpack it first. Nothing was imported.")
    return archive.open(names[0])


def _printable(name: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name[:60])


class _Streams:
    """Reads one or more streams of bzip2 or xz that follow each other, a little at a time."""

    def __init__(self, raw: BinaryIO, make: Any):
        self.raw, self.make, self.decompressor, self.rest = raw, make, make(), b""

    def readinto(self, buffer: Any) -> int:
        while True:
            if self.decompressor.eof:
                self.rest = self.decompressor.unused_data.lstrip(b"\0") or self.raw.read(CHUNK_BYTES).lstrip(b"\0")
                if not self.rest:
                    return 0
                self.decompressor = self.make()
            if self.decompressor.needs_input and not self.rest:
                self.rest = self.raw.read(CHUNK_BYTES)
                if not self.rest:
                    raise EOFError("it ends before its end marker")
            piece = self.decompressor.decompress(self.rest, len(buffer))
            self.rest = b""
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)


class _Bounded(io.RawIOBase):
    """What a reader gives, up to `most` bytes.

    Raises:
        StoreError: there are more.
    """

    def __init__(self, file: Any, most: int, path: Path):
        self.file, self.most, self.path, self.count = file, most, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self.file.readinto(buffer)
        self.count += count
        if self.count > self.most:
            raise StoreError(unpacks_to_too_much(self.path, self.most))
        return count


def unpacks_to_too_much(path: Path, most: int) -> str:
    return (
        f"{path} ({mib(path.stat().st_size)}) unpacks to more than {mib(most)}: unpack it yourself if it is right, or import it "
        "with a larger --max-unpacked-mib. Nothing was imported."
    )
