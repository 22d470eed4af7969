"""Metrics as an event file that TensorBoard reads. Neither TensorBoard nor torch is needed to write one.

The file is a TFRecord file: each record is its length, a checksum of that, an `Event` as a protocol buffer, and a checksum of it. An event
holds one step's values. Of the formats' many fields only those of scalars are written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path

from storage.core.records import Metric, Run

VERSION = b"brain.Event:2"
"""The first event of every file."""

POLYNOMIAL = 0x82F63B78
"""Of CRC-32C (Castagnoli), reflected."""

MASK = 0xA282EAD8


def write(folder: Path, run: Run, metrics: Sequence[Metric]) -> Path:
    """Writes the metrics of a run into `folder/RUN/`, so that TensorBoard at `folder` shows a run for each. Returns the file's path.

    All values have the time at which the run was created, because the store has none of their own.
    """
    at = datetime.fromisoformat(run.created_at).timestamp()
    of_run = folder / run.id
    of_run.mkdir(parents=True, exist_ok=True)
    file = of_run / f"events.out.tfevents.{int(at)}.rankloop"
    file.write_bytes(b"".join(records(metrics, at)))
    return file


def records(metrics: Sequence[Metric], at: float) -> Iterable[bytes]:
    """The records of a file: the format's version, and an event for each step, in their order."""
    yield _record(_event(at, 0, _bytes(3, VERSION)))
    for step, of_step in groupby(sorted(metrics, key=lambda m: (m.step, m.name)), key=lambda m: m.step):
        summary = b"".join(_bytes(1, _bytes(1, m.name.encode()) + _key(2, 5) + struct.pack("<f", m.value)) for m in of_step)
        yield _record(_event(at, step, _bytes(5, summary)))


def _event(at: float, step: int, what: bytes) -> bytes:
    return _key(1, 1) + struct.pack("<d", at) + _key(2, 0) + _varint(step) + what


def _record(event: bytes) -> bytes:
    length = struct.pack("<Q", len(event))
    return length + struct.pack("<I", masked_crc(length)) + event + struct.pack("<I", masked_crc(event))


def _key(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    # A negative number is written as its two's complement of 64 bits.
    number &= (1 << 64) - 1
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(_table_entry(byte) for byte in range(256))


def crc32c(content: bytes) -> int:
    """CRC-32C of the bytes."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def masked_crc(content: bytes) -> int:
    """The checksum as TFRecord files have it, so that a checksum of a checksum is not trivial."""
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF
