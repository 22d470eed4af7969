"""Limits for reading files: the unpacked size, the size of a row and of a text, and blank lines."""

from __future__ import annotations

from dataclasses import dataclass

from storage.core.database import StoreError
from storage.exchange.rows import BadRow

MIB = 1 << 20

CHUNK_BYTES = 64 * 1024
"""Bytes that are read from a file at a time."""

MIN_UNPACKED_BYTES, MAX_UNPACKED_BYTES = 64 * MIB, 4096 * MIB
MAX_COMPRESSION_FACTOR = 200
"""Largest compression factor by default. Text compresses 20-fold, repetitive text 100-fold, a decompression bomb 1000-fold or more."""

MAX_JSON_DEPTH = 500
"""Deepest nesting of lists and objects. A tree of replies takes two levels per turn."""

MAX_BLANK_LINES = 1_000_000
"""Maximum number of blank lines: they take time, and a compressed file may contain billions."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one import. The pages use the defaults; the command line can raise them."""

    row_bytes: int = 16 * MIB
    """Largest row in bytes, unpacked: `--max-row-mib`."""
    unpacked_bytes: int | None = None
    """Bytes that a gzip or Parquet file unpacks to: `--max-unpacked-mib`. None: 200 times what the file has, from 64 MiB to 4 GiB."""
    text_chars: int | None = None
    """Characters of a prompt, a completion or a rationale: `--max-text-chars`. None: what the project's settings say."""
    encoding: str | None = None
    """The encoding of a text file, as Python names it: `--encoding`. None: UTF-8, or what a byte order mark says."""
    raw_cells: bool = False
    """CSV cells are taken as they are; otherwise the apostrophe before what a spreadsheet would take for a formula is taken off."""

    @property
    def values(self) -> int:
        """Values in one row: one takes up to 240 bytes of memory, however few it has in the file."""
        return max(1_000, self.row_bytes // 160)

    @property
    def parquet_memory(self) -> int:
        """Bytes that the process which decodes Parquet may take beside its own code: a batch of full rows, twice over."""
        return 64 * self.row_bytes

    def unpacked(self, size: int) -> int:
        """Bytes that a packed file of that size may unpack to."""
        if self.unpacked_bytes is not None:
            return self.unpacked_bytes
        return min(MAX_UNPACKED_BYTES, max(MIN_UNPACKED_BYTES, MAX_COMPRESSION_FACTOR * size))


def mib(count: int) -> str:
    return f"{count / MIB:,.0f} MiB" if count >= MIB else f"{count:,} bytes"


def too_long(limits: Limits) -> BadRow:
    """The error for a row that is larger than `row_bytes`."""
    return BadRow(f"longer than {mib(limits.row_bytes)}: import with a larger --max-row-mib if it is right")


def check_blank(count: int) -> None:
    """Raises StoreError if a file has more than `MAX_BLANK_LINES` blank lines."""
    if count > MAX_BLANK_LINES:
        raise StoreError(f"More than {MAX_BLANK_LINES:,} blank lines: remove them. Nothing was imported.")
