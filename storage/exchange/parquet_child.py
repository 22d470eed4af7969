"""Decodes Parquet and Arrow in a separate process with limited memory: `python -I parquet_child.py FILE VALUES MEMORY`.

A few hundred bytes of Parquet can decode to gigabytes (runs of one value, long dictionary entries, lists of millions), and a
file's metadata may be false. The metadata is checked first, and the system limits the memory of this process. Each row is
written to stdout as a line of JSON; a reason to refuse the file is written to stderr, with exit status 2.

Imports nothing of the project: it runs as a script, isolated.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

# Set before pyarrow is imported: its own allocators reserve address space in advance, which counts towards the limit.
os.environ |= {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}

BATCH_ROWS = 16
BUFFER = 1 << 20
FOOTER_BYTES = 16 << 20
"""Longest text in the footer, in bytes."""
FOOTER_VALUES = 1 << 20


class Refused(Exception):
    """The message says what is wrong with the file."""


def main(path: str, max_values: int, memory: int) -> int:
    import pyarrow
    from pyarrow import parquet

    _bound_memory(memory)
    try:
        with open(path, "rb") as file:
            is_parquet = file.read(4) == b"PAR1"
            if is_parquet:
                _check_ends(file)
        if not is_parquet:
            _write(_arrow_rows(path, max_values))
            return 0
        with parquet.ParquetFile(
            path, buffer_size=BUFFER, pre_buffer=False,
            thrift_string_size_limit=FOOTER_BYTES, thrift_container_size_limit=FOOTER_VALUES,
        ) as file:  # fmt: skip
            _check_metadata(file.metadata, max_values)
            _write(_rows(file))
    except Refused as refused:
        return _say(str(refused))
    except MemoryError:
        return _say(f"a batch of {BATCH_ROWS} rows takes more than {memory >> 20:,} MiB of memory to decode")
    except BrokenPipeError:
        return 1
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        return _say((str(error).strip() or type(error).__name__).splitlines()[0][:300])
    return 0


def _rows(file: Any) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
        yield from batch.to_pylist()


def _arrow_rows(path: str, max_values: int) -> Iterator[dict[str, Any]]:
    """Rows of an Arrow file with a footer, or of a stream."""
    import pyarrow
    from pyarrow import ipc

    with pyarrow.OSFile(path) as file:
        try:
            reader = ipc.open_file(file)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        except pyarrow.ArrowInvalid:
            file.seek(0)
            reader = ipc.open_stream(file)
            batches = iter(reader)
        if len(reader.schema) > max_values:
            raise Refused(f"{len(reader.schema):,} columns, at most {max_values:,} are read")
        for batch in batches:
            batch.validate(full=True)
            for at in range(0, batch.num_rows, BATCH_ROWS):
                yield from batch.slice(at, BATCH_ROWS).to_pylist()


def _write(rows: Iterator[dict[str, Any]]) -> None:
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain).encode
    for row in rows:
        sys.stdout.buffer.write(encode(row).encode() + b"\n")
    sys.stdout.buffer.flush()


def _check_ends(file: Any) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 4))
    if size < 12 or file.read(4) != b"PAR1":
        raise Refused("it does not end as Parquet does: it was cut off, or is something else")


def _check_metadata(metadata: Any, max_values: int) -> None:
    if metadata.num_columns > max_values:
        raise Refused(f"{metadata.num_columns:,} columns, at most {max_values:,} are read")
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group)
        for column in range(found.num_columns):
            chunk = found.column(column)
            # Nested columns have several values for a row.
            if chunk.num_values > max_values * max(1, found.num_rows):
                raise Refused(
                    f"{chunk.num_values:,} values of {chunk.path_in_schema[:80]!r} in {found.num_rows:,} rows, at most "
                    f"{max_values:,} in each row are read"
                )


def _plain(value: Any) -> Any:
    """Converts values that JSON has no type for: times to text, bytes to an object that readers refuse as text."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"bytes": len(value)}
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _bound_memory(most: int) -> None:
    """Limits the memory of this process. Linux enforces the limit; macOS and Windows do not."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (taken + most, taken + most))
    except (ImportError, OSError, ValueError):
        pass


def _say(reason: str) -> int:
    sys.stderr.write(reason.encode("ascii", "backslashreplace").decode())
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
