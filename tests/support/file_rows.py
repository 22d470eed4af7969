"""The records of a file, and packed files."""

import bz2
import gzip
import io
import lzma
import zipfile
from functools import partial

import pyarrow as pa

from storage.exchange import files
from storage.exchange.limits import Limits
from storage.exchange.rows import BadRow

LONGER = "! longer than 1 MiB: import with a larger --max-row-mib if it is right"
"""The error of a longer row where the limit is 1 MiB."""


def read(tmp_path, content, name="rows.jsonl", container=None, **limits):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = files.records(path, container, limits=Limits(**limits))
    return [(line, f"! {record}" if isinstance(record, BadRow) else record) for line, record in found]


def packed_as(ending, content):
    if ending == ".zip":
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("folder")
            archive.writestr("folder/rows", content)
            archive.writestr("__MACOSX/rows", b"x")
        return made.getvalue()
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": partial(pa.compress, codec="zstd", asbytes=True)}
    return pack[ending](content)


GOOD = '{"a": 1}\n\n{"b": "ß"}\n'

GOOD_RECORDS = [(1, {"a": 1}), (3, {"b": "ß"})]
