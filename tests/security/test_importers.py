"""Files of strangers: whatever is in them, an import ends, takes little memory, and brings rows or says why not.

Each bomb is imported by a process of its own, whose peak of memory is read afterwards.
"""

import gzip
import json
import subprocess
import sys
from itertools import repeat

import pyarrow as pa
import pytest
from pyarrow import parquet

from storage import imports
from storage.database import StoreError
from storage.exchange.limits import MIB, Limits

OWN_MIB = 450
"""What an import may take: Python itself and its libraries some 60, a row of 16 MiB several times."""
DECODER_MIB = 1_300
"""What the process that decodes Parquet may take: 1 GiB beside pyarrow."""

IMPORT = """
import resource, sys
from storage import imports
from storage.database import Database, StoreError
store = Database(sys.argv[1])
try:
    import_id, report = imports.import_file(store, sys.argv[2], sys.argv[3])
    print(f"{report.good} good, {report.wrong} wrong: {report.wrong_rows[:3]}")
except StoreError as error:
    print(f"refused: {error}")
print(store.value("SELECT count(*) FROM prompts"), store.value("SELECT count(*) FROM imports"))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(int(peak) // 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def import_apart(store, path, format):
    """What an import of the file said, what it left in the store, and the peaks of its memory in MiB: its own, its decoder's."""
    command = [sys.executable, "-c", IMPORT, str(store.path), str(path), format]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-2_000:]
    said, left, peaks = ended.stdout.splitlines()
    own, decoder = map(int, peaks.split())
    return said, left, own, decoder


def zipped(path, parts):
    with gzip.open(path, "wb", compresslevel=1) as file:
        for part in parts:
            file.write(part)
    return path


def list_bomb(path, count=50_000_000):
    """One row, whose list holds so many nulls: under a kilobyte."""
    offsets = pa.array([0, count], pa.int32())
    parquet.write_table(pa.table({"prompt": pa.ListArray.from_arrays(offsets, pa.nulls(count, pa.int8()))}), path, compression="zstd")
    return path


def dictionary_bomb(path, length, rows):
    """So many rows with the same long text, which is in the file once, packed."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * length]))
    parquet.write_table(pa.table({"prompt": texts}), path, compression="zstd", store_schema=False, dictionary_pagesize_limit=1 << 30)
    return path


def varint(number, width=0):
    """A number as Thrift's compact protocol writes it, with empty digits up to a width."""
    number, found = number << 1, []
    while number > 127 or len(found) < width - 1:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def lying_list_bomb(path, count=50_000_000):
    """As `list_bomb`, but its footer says that there is one value."""
    content = list_bomb(path, count).read_bytes()
    said = varint(count)
    assert said in content
    # The page's own header comes first, and must stay: pages are what is decoded.
    footer = content.rindex(b"PAR1") - 4
    start = footer - int.from_bytes(content[footer : footer + 4], "little")
    path.write_bytes(content[:start] + content[start:].replace(said, varint(1, len(said))))
    assert parquet.read_metadata(path).row_group(0).column(0).num_values == 1
    return path


BOMBS = {
    "Parquet under another name": (
        lambda folder: list_bomb(folder / "a.jsonl"), "prompts", r"refused: .*a.jsonl holds Parquet, which its name denies: name it .parquet"
    ),
    "a list of fifty million in Parquet": (
        lambda folder: list_bomb(folder / "a.parquet"), "prompts",
        r"refused: .*\(50,000,000 values of 'prompt.list.element' in 1 rows, at most 104,857 in each row are read\)",
    ),
    "a list of fifty million in Parquet that says it has one": (
        lambda folder: lying_list_bomb(folder / "a.parquet", 400_000_000), "prompts", r"refused: .* is no Parquet file that can be read \(.*larger --max-row-mib",
    ),
    "a text of 10 MB in 100,000 rows of Parquet": (
        lambda folder: dictionary_bomb(folder / "a.parquet", 10_000_000, 100_000), "prompts",
        r"refused: .*a.parquet \(7.. bytes\) unpacks to more than 64 MiB: import it with a larger --max-unpacked-mib",
    ),
    "a text of 500 MB in 100,000 rows of Parquet": (
        lambda folder: dictionary_bomb(folder / "a.parquet", 500_000_000, 100_000), "prompts",
        r"refused: .*a batch of 16 rows takes more than 1,024 MiB of memory to decode",
    ),
    "a packed CSV of commas": (
        lambda folder: zipped(folder / "a.csv.gz", [b"prompt,a\n", *repeat(b"," * MIB, 600)]), "csv", r"0 good, 1 wrong: .*longer than 16 MiB"
    ),
    "a packed CSV of headings": (
        lambda folder: zipped(folder / "a.csv.gz", repeat(b"a," * MIB, 7)), "csv", r"refused: .*has 7,340,033 columns, at most 10,000"
    ),
    "a packed CSV with an open quotation mark": (
        lambda folder: zipped(folder / "a.csv.gz", [b'prompt,a\n"', *repeat(b"x\n" * MIB, 300)]), "csv", r"0 good, 1 wrong: .*was never closed"
    ),
    "packed blank lines": (
        lambda folder: zipped(folder / "a.jsonl.gz", repeat(b" \n" * MIB, 200)), "jsonl", r"refused: More than 1,000,000 blank lines"
    ),
    "packed lines that are no rows": (
        lambda folder: zipped(folder / "a.jsonl.gz", repeat(b"1\n" * MIB, 200)), "jsonl", r"refused: More than 1,000,000 wrong rows: check the format"
    ),
    "texts that repeat for ever": (
        lambda folder: zipped(folder / "a.jsonl.gz", repeat(b'{"prompt": "%s"}\n' % (b"x" * MIB), 100)), "prompts",
        r"refused: .* unpacks to more than \d+ MiB: unpack it yourself .* --max-unpacked-mib",
    ),
    "one packed line": (
        lambda folder: zipped(folder / "a.jsonl.gz", [b'{"prompt": "', *repeat(b"x" * MIB, 60), b'"}']), "prompts", r"0 good, 1 wrong: .*longer than 16 MiB"
    ),
    "one element": (
        lambda folder: zipped(folder / "a.json.gz", [b'[{"prompt": "', *repeat(b"x" * MIB, 60)]), "prompts", r"0 good, 1 wrong: .*longer than 16 MiB"
    ),
    "lists in a row": (
        lambda folder: zipped(folder / "a.jsonl.gz", [b'{"prompt": [', *repeat(b"[]," * MIB, 5), b"0]}"]), "prompts",
        r"0 good, 1 wrong: .*more than 104,857 values in one row",
    ),
    "lists in an element": (
        lambda folder: zipped(folder / "a.json.gz", [b"[[", *repeat(b"[]," * MIB, 5), b"0]]"]), "prompts", r"0 good, 1 wrong: .*more than 104,857 values"
    ),
    "nested lists": (
        lambda folder: zipped(folder / "a.json.gz", repeat(b"[" * MIB, 60)), "prompts", r"0 good, 1 wrong: .*nested too deeply"
    ),
    "objects in a list in a CSV cell": (
        lambda folder: zipped(folder / "a.csv.gz", [b'prompt,completions\nQ,"[', *repeat(b"{}," * MIB, 4), b'1]"\n']), "csv",
        r"0 good, 1 wrong: .*more than 104,857 values",
    ),
    "a thousand rows of long texts": (lambda folder: long_rows(folder / "a.jsonl", 1_000), "plain", r"2000 good, 0 wrong"),
    "a tree in which each reply repeats the way to it": (
        lambda folder: zipped(folder / "a.jsonl.gz", [json.dumps({"prompt": deep_tree(60, 50_000)}).encode()]), "oasst", r"3 good, 59 wrong: .*the prompt has",
    ),
}  # fmt: skip


def long_rows(path, count):
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            file.write(json.dumps({"prompt": str(number), "completions": ["x" * 99_000, "y" * 99_000]}) + "\n")
    return path


def deep_tree(turns, length):
    reply = {"role": "prompter", "text": "end"}
    for turn in range(turns):
        text = "x" * length + str(turn)
        one, other = ({"role": "assistant", "text": text + mark, "rank": rank, "replies": []} for rank, mark in enumerate("ab"))
        one["replies"] = [reply]
        reply = {"role": "prompter", "text": text, "replies": [one, other]}
    return reply


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_little_memory_and_is_told(store, tmp_path, name):
    make, format, expected = BOMBS[name]
    said, left, own, decoder = import_apart(store, make(tmp_path), format)
    assert pytest.approx(own, abs=OWN_MIB) == 0 and decoder < DECODER_MIB, (said, own, decoder)
    import re

    assert re.match(expected, said), said
    if said.startswith(("refused", "0 good")):
        assert left == "0 0"
