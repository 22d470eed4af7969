"""Files of strangers: whatever they contain, an import ends, takes little memory, and adds rows or gives the reason.

Each bomb is imported by a process of its own, whose peak of memory is read afterwards.
"""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import count, repeat

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from storage.core.database import Database, StoreError
from storage.exchange import imports, native, plain
from storage.exchange.formats import FORMATS
from storage.exchange.limits import MIB
from storage.judging import judgments
from storage.people import accounts
from storage.project import settings as project

OWN_MIB = 400
"""What an import may take: Python itself and its libraries some 60, a row of 16 MiB several times."""
DECODER_MIB = 1_300
"""What the process that decodes Parquet may take: 1 GiB beside pyarrow."""

IMPORT = """
import resource, sys
from storage.exchange import imports
from storage.core.database import Database, StoreError
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
    """What an import of the file printed, what it left in the store, and the peaks of its memory in MiB: its own, its decoder's."""
    command = [sys.executable, "-c", IMPORT, str(store.path), str(path), format]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-2_000:]
    outcome, left, peaks = ended.stdout.splitlines()
    own, decoder = map(int, peaks.split())
    return outcome, left, own, decoder


def zipped(path, parts):
    with gzip.open(path, "wb", compresslevel=1) as file:
        for part in parts:
            file.write(part)
    return path


def list_bomb(path, count=50_000_000):
    """One row, whose list holds so many nulls: under a kilobyte."""
    offsets = pa.array([0, count], pa.int32())
    table = pa.table({"prompt": pa.ListArray.from_arrays(offsets, pa.nulls(count, pa.int8()))})
    parquet.write_table(table, path, compression="zstd", write_statistics=False)
    return path


def dictionary_bomb(path, length, rows):
    """So many rows with the same long text, which is in the file once, packed."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * length]))
    # Statistics would compare the text with itself for every row.
    options = {"store_schema": False, "dictionary_pagesize_limit": 1 << 30, "write_statistics": False}
    parquet.write_table(pa.table({"prompt": texts}), path, compression="zstd", **options)
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
    declared = varint(count)
    assert declared in content
    # The page's own header comes first, and must stay: pages are what is decoded.
    footer = content.rindex(b"PAR1") - 4
    start = footer - int.from_bytes(content[footer : footer + 4], "little")
    path.write_bytes(content[:start] + content[start:].replace(declared, varint(1, len(declared))))
    assert parquet.read_metadata(path).row_group(0).column(0).num_values == 1
    return path


BOMBS = {
    "Parquet under another name": (
        lambda folder: list_bomb(folder / "a.jsonl"),
        "prompts", r"refused: .*a.jsonl holds Parquet, which its name contradicts: rename it to .parquet",
    ),
    "a list of fifty million in Parquet": (
        lambda folder: list_bomb(folder / "a.parquet"), "prompts",
        r"refused: .*\(50,000,000 values of 'prompt.list.element' in 1 rows, at most 104,857 in each row are read\)",
    ),
    "a list of fifty million in Parquet that says it has one": (
        lambda folder: lying_list_bomb(folder / "a.parquet", 400_000_000),
        "prompts", r"refused: .* is no Parquet file that can be read \(.*larger --max-row-mib",
    ),
    "a text of 10 MB in 100,000 rows of Parquet": (
        lambda folder: dictionary_bomb(folder / "a.parquet", 10_000_000, 100_000), "prompts",
        r"refused: .*a.parquet \(7.. bytes\) unpacks to more than 64 MiB: import it with a larger --max-unpacked-mib",
    ),
    "a text of 150 MB in 100,000 rows of Parquet": (
        lambda folder: dictionary_bomb(folder / "a.parquet", 150_000_000, 100_000), "prompts",
        r"refused: .*a batch of 16 rows takes more than 1,024 MiB of memory to decode",
    ),
    "a packed CSV of commas": (
        lambda folder: zipped(folder / "a.csv.gz", [b"prompt,a\n", *repeat(b"," * MIB, 600)]),
        "csv", r"0 good, 1 wrong: .*longer than 16 MiB",
    ),
    "a packed CSV of headings": (
        lambda folder: zipped(folder / "a.csv.gz", repeat(b"a," * MIB, 7)),
        "csv", r"refused: .*has 7,340,033 columns, the limit is 10,000",
    ),
    "a packed CSV with an open quotation mark": (
        lambda folder: zipped(folder / "a.csv.gz", [b'prompt,a\n"', *repeat(b"x\n" * MIB, 300)]),
        "csv", r"0 good, 1 wrong: .*was never closed",
    ),
    "packed blank lines": (
        lambda folder: zipped(folder / "a.jsonl.gz", repeat(b" \n" * MIB, 200)),
        "jsonl", r"refused: More than 1,000,000 blank lines",
    ),
    "packed lines that are no rows": (
        lambda folder: zipped(folder / "a.jsonl.gz", repeat(b"1\n" * MIB, 200)),
        "jsonl", r"refused: More than 1,000,000 wrong rows: check the format",
    ),
    "texts that repeat for ever": (
        lambda folder: zipped(folder / "a.jsonl.gz", repeat(b'{"prompt": "%s"}\n' % (b"x" * MIB), 100)), "prompts",
        r"refused: .* unpacks to more than \d+ MiB: unpack it yourself .* --max-unpacked-mib",
    ),
    "one packed line": (
        lambda folder: zipped(folder / "a.jsonl.gz", [b'{"prompt": "', *repeat(b"x" * MIB, 60), b'"}']),
        "prompts", r"0 good, 1 wrong: .*longer than 16 MiB",
    ),
    "one element": (
        lambda folder: zipped(folder / "a.json.gz", [b'[{"prompt": "', *repeat(b"x" * MIB, 60)]),
        "prompts", r"0 good, 1 wrong: .*longer than 16 MiB",
    ),
    "lists in a row": (
        lambda folder: zipped(folder / "a.jsonl.gz", [b'{"prompt": [', *repeat(b"[]," * MIB, 5), b"0]}"]), "prompts",
        r"0 good, 1 wrong: .*more than 104,857 values in one row",
    ),
    "lists in an element": (
        lambda folder: zipped(folder / "a.json.gz", [b"[[", *repeat(b"[]," * MIB, 5), b"0]]"]),
        "prompts", r"0 good, 1 wrong: .*more than 104,857 values",
    ),
    "nested lists": (
        lambda folder: zipped(folder / "a.json.gz", repeat(b"[" * MIB, 60)),
        "prompts", r"0 good, 1 wrong: .*nested too deeply",
    ),
    "objects in a list in a CSV cell": (
        lambda folder: zipped(folder / "a.csv.gz", [b'prompt,completions\nQ,"[', *repeat(b"{}," * MIB, 4), b'1]"\n']), "csv",
        r"0 good, 1 wrong: .*more than 104,857 values",
    ),
    "a thousand rows of long texts": (lambda folder: long_rows(folder / "a.jsonl", 1_000), "plain", r"2000 good, 0 wrong"),
    "a tree in which each reply repeats the way to it": (
        lambda folder: zipped(folder / "a.jsonl.gz", [json.dumps({"prompt": deep_tree(60, 50_000)}).encode()]),
        "oasst", r"3 good, 59 wrong: .*the prompt has",
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
def test_a_decompression_bomb_takes_little_memory_and_is_reported(store, tmp_path, name):
    make, format, expected = BOMBS[name]
    outcome, left, own, decoder = import_apart(store, make(tmp_path), format)
    assert own < OWN_MIB and decoder < DECODER_MIB, (outcome, own, decoder)

    assert re.match(expected, outcome), outcome
    if outcome.startswith(("refused", "0 good")):
        assert left == "0 0"


# ---- anything at all

ROW = {
    "prompt": "Why is the sky blue?", "completions": ["Air scatters blue light.", "It mirrors the sea; =1"], "models": ["m1", "m2"],
    "tiers": [[0], [1]], "shown": [1, 0], "annotator": "Ann", "created_at": "2026-11-23T09:30:00Z", "strength": "better",
    "rationale": "'=a \U0001f600", "aspects": [{"honest": 5}, {"honest": 2}], "ideal": "Air.", "active_ms": 8200, "kind": "science",
    "split": "train",
}  # fmt: skip
WRITTEN_FORMATS = [name for name, format in FORMATS.items() if format.read and format.write and name != "parquet"]
TEXT_FORMATS = [name for name, format in FORMATS.items() if format.read and name != "parquet"]
NUMBERS = count()

SPLICES = [
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1f\x8b", b"PAR1", b"null", b"NaN", b"-1", b"1e999", b"9223372036854775808", b"true",
    b"[]", b"{}", b"[[", b"}", b'"', b"\\ud83d", b"\\u0000", b",", b"\r", b"\n", b"\n\n", b'"a":1,', b"'", b"=", b";",
    b"file:///etc/passwd", b"http://127.0.0.1:1/", b"\x1b[2J", b"<script>", b"\xed\xa0\x80", b"\xf0\x9f",
]  # fmt: skip


@pytest.fixture(scope="module")
def seeds(tmp_path_factory, empty_store):
    """A small real file of each format, as rankloop writes it, by name."""
    folder = tmp_path_factory.mktemp("seeds")
    store = Database(shutil.copyfile(empty_store, folder / "seeds.db"))
    imports.import_rows(store, [ROW, ROW | {"prompt": "And?", "tiers": [[1, 0]], "annotator": "Bob", "strength": None}], "plain")
    for name, format in FORMATS.items():
        if format.write and name != "plain":
            format.write(store, folder / name)
    plain.write_jsonl(store, folder / "plain")
    native.write(store, folder / "native")
    store.close()
    return folder


edits = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 12), st.sampled_from(SPLICES) | st.binary(max_size=6)), max_size=4)


def edited(content, changes, kept):
    """The content with pieces replaced, and cut off at the end."""
    for at, length, piece in changes:
        at %= len(content) + 1
        content = content[:at] + piece + content[at + length :]
    return content[: len(content) - kept % (len(content) + 1)] if kept else content


def tables(store):
    names = [row[0] for row in store.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {name: store.value(f'SELECT count(*) FROM "{name}"') for name in names}


def assert_rows_or_a_message(folder, empty_store, content, format, name="file"):
    """Imports the content into a new store: rows that can be read and written again, or a message and nothing."""
    own = folder / str(next(NUMBERS))
    own.mkdir()
    store = Database(shutil.copyfile(empty_store, own / "rankloop.db"))
    try:
        (own / name).write_bytes(content)
        before = tables(store)
        try:
            import_id, report = imports.import_file(store, own / name, format)
        except StoreError as error:
            assert str(error) and "\n" not in str(error)
            import_id = None
        else:
            assert (import_id is None) == (report.good == 0)
            assert all(reason and reason.isprintable() for _, reason in report.wrong_rows)
        if import_id is None:
            assert tables(store) == before
            return
        assert len(judgments.active(store)) <= report.judgments
        assert plain.write(store, own / "out.jsonl", include_simulated=True).written == report.judgments
        assert store.row("PRAGMA foreign_key_check") is None
    finally:
        store.close()
        shutil.rmtree(own)


ANYTHING = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.mark.slow
@ANYTHING
@given(content=st.binary(max_size=400) | st.text(max_size=200).map(str.encode), format=st.sampled_from(TEXT_FORMATS), packed=st.booleans())
@example(content=b"", format="csv", packed=True)
@example(content=b"\x1f\x8b", format="prompts", packed=False)
def test_any_bytes_are_rows_or_a_message(tmp_path, empty_store, content, format, packed):
    assert_rows_or_a_message(tmp_path, empty_store, gzip.compress(content, mtime=0) if packed else content, format)


@pytest.mark.slow
@ANYTHING
@given(st.sampled_from(WRITTEN_FORMATS), edits, st.just(0) | st.integers(0, 500), st.sampled_from(["no", "inside", "outside"]))
def test_a_file_that_was_changed_anywhere_is_rows_or_a_message(tmp_path, empty_store, seeds, format, changes, cut, packed):
    content = (seeds / format).read_bytes()
    # Changed within the packed file, or in its packing.
    content = edited(gzip.compress(content, mtime=0) if packed == "outside" else content, changes, cut)
    assert_rows_or_a_message(tmp_path, empty_store, gzip.compress(content, mtime=0) if packed == "inside" else content, format)


@pytest.mark.slow
@settings(ANYTHING, max_examples=40)
@given(changes=edits, cut=st.just(0) | st.integers(0, 500), at_end=st.booleans())
@example(changes=[], cut=0, at_end=False)
def test_parquet_that_was_changed_anywhere_is_rows_or_a_message(tmp_path, empty_store, seeds, changes, cut, at_end):
    content = (seeds / "parquet").read_bytes()
    if at_end:
        # Where the footer is: most of what can be wrong is there.
        footer = int.from_bytes(content[-8:-4], "little")
        changes = [(len(content) - 8 - at % footer, length, piece) for at, length, piece in changes]
    assert_rows_or_a_message(tmp_path, empty_store, edited(content, changes, cut), "parquet")


@pytest.mark.slow
@ANYTHING
@given(changes=edits, cut=st.just(0) | st.integers(0, 500), part=st.sampled_from([native.ROWS, native.HASHES, native.MANIFEST]))
def test_a_native_export_that_was_changed_anywhere_is_refused_or_read(tmp_path, empty_store, seeds, changes, cut, part):
    own = tmp_path / str(next(NUMBERS))
    shutil.copytree(seeds / "native", own)
    (own / part).write_bytes(edited((own / part).read_bytes(), changes, cut))
    if part == native.ROWS:
        # As somebody would who can reckon hashes too.
        lines = (own / part).read_bytes().splitlines(keepends=True)
        (own / native.HASHES).write_bytes(b"".join(map(native._hash, lines)))
        manifest = json.loads((own / native.MANIFEST).read_text())
        sums = {name: hashlib.sha256((own / name).read_bytes()).hexdigest() for name in (native.ROWS, native.HASHES)}
        (own / native.MANIFEST).write_text(json.dumps(manifest | {"files": sums}))
    store = Database(shutil.copyfile(empty_store, own / "rankloop.db"))
    before = tables(store)
    try:
        native.read(store, own)
    except StoreError:
        assert tables(store) == before
    finally:
        store.close()
        shutil.rmtree(own)


# ---- fields that name something


def test_what_looks_like_a_path_or_an_address_is_text(store, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("an import asks nobody on the net")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    texts = ["file:///etc/passwd", "http://127.0.0.1:1/x", "/etc/passwd", "../../x", "hub/dataset", "data:text/html,x", "!!python/object:x"]
    rows = [{"prompt": text, "completions": [text, "b"], "models": [text, "m"], "choice": 0, "annotator": text} for text in texts]
    imports.import_rows(store, rows, "plain")
    assert [json.loads(row[0])[0]["content"] for row in store.rows("SELECT messages FROM prompts ORDER BY id")] == texts
    assert store.value("SELECT count(*) FROM policy_versions WHERE adapter_path IS NOT NULL OR kind != 'external'") == 0


@pytest.mark.slow
def test_an_importer_needs_no_datasets_library():
    code = "import sys; from storage.exchange import imports, native; print('datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"models": ["\x1b[2J", "m"]}, "a model has a name with a control character in it"),
        ({"models": ["a\u202eb", "m"]}, "a model has a name with a control character in it"),
        ({"annotator": "Ann\n"}, None),
        ({"annotator": "Ann\nBob"}, "the annotator has a name with a control character in it"),
        ({"kind": "a\rb"}, "kind has a name with a control character in it"),
        ({"kind": "k" * 201}, "kind has a name of 201 characters, at most 200 are kept"),
        ({"aspects": [{"a\tb": 1}, {}]}, "an aspect has a name with a control character in it"),
        ({"annotator_kind": "simulated", "annotator_rule": "\x9b2J"}, "the rule has a name with a control character in it"),
        ({"models": ["<b>m</b>", "m"]}, None),
        ({"models": ["가\u200d\u3000나", "m"]}, None),
        ({"active_ms": -1}, "active_ms must be milliseconds, not -1"),
        ({"server_ms": 1 << 63}, "server_ms must be milliseconds"),
        ({"created_at": -1}, "not a time"),
        ({"created_at": 1e300}, "not a time"),
        ({"completions": ["a\0", "b"]}, "a completion holds a NUL character"),
        ({"completions": ["\ud83d", "b"]}, "half a surrogate pair"),
        ({"completions": ["\x1b[2J\x07", "b"]}, None),
        ({"shown": [0, "1"]}, "shown must name each"),
        ({"shown": [[], {}]}, "shown must name each"),
        ({"shown": [0, True]}, "shown must name each"),
        ({"shown": [1 << 63, 0]}, "shown must name each"),
        ({"tiers": [[1 << 63], [0]]}, "tiers must hold indexes"),
        ({"annotator": "x" * 5_000}, "at most 200 are kept"),
        ({"split": "x" * 5_000}, "split must be train or heldout, not 'xxx"),
    ],
)
def test_what_a_row_may_hold(store, change, reason):
    row = {"prompt": "Q", "completions": ["a", "b"], "tiers": [[0], [1]]} | change
    _, report = imports.import_rows(store, [row], "plain")
    if reason is None:
        assert report.wrong_rows == [] and report.judgments == 1
    else:
        ((_, message),) = report.wrong_rows
        assert reason in message and len(message) <= imports.MAX_ROW_ERROR_CHARS and message.isprintable()


@pytest.mark.parametrize("field", ["prompt", "completions", "rationale", "ideal"])
def test_a_text_has_a_length_that_a_lead_can_raise(store, field):
    long = "x" * 5_001
    row = {"prompt": "Q", "completions": ["a", "b"], "choice": 0, field: [long, "b"] if field == "completions" else long}
    project.change(store, replace(project.current(store), text_max_chars=5_000), None)
    _, report = imports.import_rows(store, [row], "plain")
    assert report.wrong_rows[0][1].endswith(
        "5,001 characters, at most 5,000 are taken: a lead can raise that in Settings, and --max-text-chars for one import"
    )
    project.change(store, replace(project.current(store), text_max_chars=5_001), None)
    assert imports.import_rows(store, [row], "plain")[1].wrong == 0


def test_an_imported_account_name_gets_judgments_and_no_permission(store):
    lead = accounts.create(store, "Lea", "a long password", ["lead"])
    mina = accounts.create(store, "mina", "another password", ["annotator"], by=lead.annotator.id)
    rows = [{"prompt": f"Q{n}", "completions": ["a", "b"], "choice": 0, "annotator": name, "roles": ["lead"], "is_admin": True}
            for n, name in enumerate(["mina", mina.annotator.pseudonym, "Lea", "lea", "new"])]  # fmt: skip
    before = [(account.name, account.roles, account.disabled) for account in accounts.all_accounts(store)]
    hashes = [row[0] for row in store.rows("SELECT password_hash FROM accounts")]
    imports.import_rows(store, rows, "plain")
    assert [(account.name, account.roles, account.disabled) for account in accounts.all_accounts(store)] == before
    assert [row[0] for row in store.rows("SELECT password_hash FROM accounts")] == hashes
    assert store.value("SELECT count(*) FROM judgments WHERE annotator_id = ?", [mina.annotator.id]) == 2


def test_a_native_export_has_no_accounts(store, tmp_path):
    folder = tmp_path / "out"
    native.write(store, folder)
    row = {"id": 1, "annotator_id": 1, "password_hash": "x", "roles": '["lead"]', "created_at": "2026-01-01", "disabled_at": None}
    line = json.dumps({"table": "accounts", "row": row}).encode() + b"\n"
    (folder / native.ROWS).write_bytes(line)
    (folder / native.HASHES).write_bytes(native._hash(line))
    with pytest.raises(StoreError, match="there is no table 'accounts'"):
        native.read(store, folder)
