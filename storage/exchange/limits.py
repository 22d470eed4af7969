"""Limits for reading files: the unpacked size, and the size of a row and of a text."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20

LEAST_UNPACKED, MOST_UNPACKED = 64 * MIB, 4096 * MIB
MOST_TIMES = 200
"""Largest compression factor by default. Text compresses 20-fold, repetitive text 100-fold, a decompression bomb 1000-fold or more."""

DEEPEST = 500
"""Deepest nesting of lists and objects. A tree of replies takes two levels per turn."""


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
        return min(MOST_UNPACKED, max(LEAST_UNPACKED, MOST_TIMES * size))


def mib(count: int) -> str:
    return f"{count / MIB:,.0f} MiB" if count >= MIB else f"{count:,} bytes"
