"""Reads the rows of a Parquet or Arrow file as lines of JSON. A child process (`parquet_child`) decodes them.

A malicious file can make the child run out of memory or crash without affecting this process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from storage.core.database import StoreError
from storage.exchange import parquet_child
from storage.exchange.limits import Limits, mib


def lines(path: Path, limits: Limits) -> Iterator[bytes]:
    """Yields each row as JSON; a row longer than `limits.row_bytes` is cut to one byte more than that.

    Raises:
        StoreError: the file is damaged, or takes more to decode than the limits allow.
    """
    most = limits.unpacked(path.stat().st_size)
    # stderr goes to a file, because nobody would empty a pipe while the rows are read.
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, "-I", parquet_child.__file__, os.path.abspath(path), str(limits.values), str(limits.parquet_memory)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        # Popen's type does not know that PIPE was passed.
        stdout = cast(IO[bytes], child.stdout)
        try:
            count = 0
            while line := stdout.readline(limits.row_bytes + 1):
                count += len(line)
                yield line
                while not line.endswith(b"\n"):
                    if not (line := stdout.readline(1 << 16)):
                        break
                    count += len(line)
                if count > most:
                    raise StoreError(_too_much(path, most))
            if status := child.wait():
                errors.seek(0)
                reason = errors.read(2_000).decode("ascii", "replace").strip()
                raise StoreError(_refused(path, status, reason, limits))
        finally:
            child.kill()
            stdout.close()
            child.wait()


def _too_much(path: Path, most: int) -> str:
    return (
        f"{path} ({mib(path.stat().st_size)}) unpacks to more than {mib(most)}: import it with a larger --max-unpacked-mib if it "
        "is right. Nothing was imported."
    )


def _kind(path: Path) -> str:
    with open(path, "rb") as file:
        return "Parquet" if file.read(4) == b"PAR1" else "Arrow"


def _refused(path: Path, status: int, reason: str, limits: Limits) -> str:
    if status != 2:
        # The system ended the process, or the decoder failed; its last output is a traceback.
        last = reason.splitlines()[-1][:200] if reason else f"status {status}"
        reason = f"the process that decodes it, with {mib(limits.parquet_memory)} of memory, ended: {last}"
    return (
        f"{path} is no {_kind(path)} file that can be read ({reason}): fetch it again, or import it with a larger --max-row-mib if it is "
        "right. Nothing was imported."
    )
