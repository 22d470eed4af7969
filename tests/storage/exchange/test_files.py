"""Files of every kind as records, broken ones too: what a file is, how it is packed, its encoding and its progress."""

import contextlib
import gzip
import io
import json
import lzma
import os
import random
import threading
import zipfile

import pyarrow as pa
import pytest
from file_rows import GOOD, GOOD_RECORDS, LONGER, packed_as, read
from pyarrow import parquet

from storage.core.database import StoreError
from storage.exchange import encodings, files
from storage.exchange.limits import MIB, Limits


def test_the_other_kinds_of_file_have_the_same_limit_for_a_row(tmp_path):
    end = ", or not JSON; nothing after it was read"
    assert read(tmp_path, '[{"a": 1}, {"b": "' + "x" * (3 * MIB), row_bytes=MIB) == [(1, {"a": 1}), (2, LONGER + end)]
    end = ", or a quotation mark was never closed; nothing after it was read"
    open_quote = 'a,b\n1,2\n3,"' + "4\n5,6\n" * MIB
    assert read(tmp_path, open_quote, "rows.csv", row_bytes=MIB) == [(2, {"a": "1", "b": "2"}), (3, LONGER + end)]
    assert read(tmp_path, "a,b\n" + "," * (2 * MIB), "rows.csv", row_bytes=MIB) == [(2, LONGER + end)]
    parquet.write_table(pa.table({"a": ["x", "x" * (3 * MIB), "y"]}), tmp_path / "a.parquet")
    found = read(tmp_path, (tmp_path / "a.parquet").read_bytes(), "b.parquet", row_bytes=MIB)
    assert found == [(1, {"a": "x"}), (2, LONGER), (3, {"a": "y"})]


def test_parquet(tmp_path):
    rows = [{"a": n, "list": [str(n)], "b": None if n % 2 else "x"} for n in range(600)]
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    found = list(files.records(path))
    assert found[0] == (1, {"a": 0, "list": ["0"], "b": "x"}) and found[599] == (600, {"a": 599, "list": ["599"]})


@pytest.mark.parametrize(
    "content, name, reason",
    [
        (bytes(range(256)) * 20, "rows.jsonl", "is not text"),
        (gzip.compress(GOOD.encode() * 1_000, mtime=0)[:-20], "rows.jsonl.gz", "damaged gzip"),
        (gzip.compress(GOOD.encode() * 1_000, mtime=0)[:60] + b"\xff" * 60, "rows.jsonl.gz", "damaged gzip"),
        (b"PAR1" + b"x" * 100, "rows.parquet", "no Parquet file"),
        (b"PAR1", "rows.parquet", "no Parquet file"),
    ],
)
def test_files_that_cannot_be_read_at_all(tmp_path, content, name, reason):
    with pytest.raises(StoreError, match=reason):
        read(tmp_path, content, name)


@pytest.fixture
def small_parquet(tmp_path):
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "small")
    return (tmp_path / "small").read_bytes()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.CSV", "rows.ndjson", "rows.txt", "rows.jsonl.gz", "rows.gz"])
def test_parquet_under_another_name_is_refused(tmp_path, small_parquet, name):
    with pytest.raises(
        StoreError, match=f"{name} holds Parquet, which its name contradicts: rename it to .parquet if that is right. Nothing"
    ):
        read(tmp_path, small_parquet, name)


def test_what_a_file_is_its_first_bytes_say(tmp_path, small_parquet):
    assert read(tmp_path, small_parquet, "rows") == read(tmp_path, small_parquet, "a.parquet", "parquet") == [(1, {"a": 1})]
    for content, name, container, reason in [
        (small_parquet, "rows", "json", "holds Parquet, not json: say --format parquet"),
        (gzip.compress(small_parquet), "rows.parquet.gz", None, "holds Parquet inside gzip: unpack it first"),
        (GOOD.encode(), "rows.parquet", None, "is no Parquet file: it does not begin as one"),
        (GOOD.encode(), "rows.jsonl", "parquet", "is no Parquet file: it does not begin as one"),
        (GOOD.encode(), "rows.jsonl.gz", None, "is not packed by gzip, although its name says so: remove .gz from its name"),
        (gzip.compress(GOOD.encode()), "rows.jsonl", None, "is packed by gzip, which its name contradicts: rename it to rows.jsonl.gz"),
        (gzip.compress(gzip.compress(GOOD.encode())), "rows.jsonl.gz", None, "is packed by gzip twice: unpack it first"),
        (b"PK\x03\x04\x14\0", "rows.csv", None, "is packed by zip, which its name contradicts: rename it to rows.csv.zip"),
        (b"PK\x03\x04\x14\0", "rows.zip", "json", "is a damaged zip file"),
        (packed_as(".xz", GOOD.encode()), "rows.jsonl.gz", None, "is packed by xz, which its name contradicts: rename it to rows.jsonl.xz"),
        (gzip.compress(b"SQLite format 3\0"), "rows.gz", None, "is an SQLite database"),
        (b"BZh91AY&SY\0", "rows.csv", None, "is packed by bzip2"),
        (b"\x80\x04\x95\0\0", "rows.jsonl", None, "is a pickle, which is never read"),
        (b"PARE\0\0\0\0", "rows.parquet.enc", None, "is encrypted Parquet"),
    ]:
        with pytest.raises(StoreError, match=reason):
            read(tmp_path, content, name, container)
    assert read(tmp_path, "BZh,b\n1,2\n", "rows.csv") == [(2, {"BZh": "1", "b": "2"})]


def test_parquet_that_is_no_text_or_has_no_end(tmp_path, small_parquet):
    with pytest.raises(StoreError, match=r"can be read \(it does not end as Parquet does: it was cut off, or is something else\)"):
        read(tmp_path, small_parquet[:-1], "rows.parquet")
    when = pa.array([1_700_000_000_123], pa.timestamp("ms"))
    parquet.write_table(pa.table({"a": [float("nan")], "b": [b"x"], "c": when, "d": [[{"e": None}]]}), tmp_path / "odd.parquet")
    row = {"b": {"bytes": 1}, "c": "2023-11-14T22:13:20.123000", "d": [{"e": None}]}
    assert list(files.records(tmp_path / "odd.parquet")) == [(1, row)]


@pytest.mark.slow
def test_a_packed_file_has_a_limit_that_can_be_raised(tmp_path):
    content = gzip.compress(GOOD.encode() * 100_000)
    with pytest.raises(StoreError, match=r"unpacks to more than 1 MiB: unpack it yourself if it is right, or .*--max-unpacked-mib"):
        read(tmp_path, content, "rows.gz", unpacked_bytes=MIB)
    assert len(read(tmp_path, content, "rows.gz", unpacked_bytes=3 * MIB)) == 200_000
    parquet.write_table(pa.table({"a": ["x" * 1_000] * 2_000}), tmp_path / "a.parquet")
    with pytest.raises(StoreError, match=r"unpacks to more than 1 MiB: .*--max-unpacked-mib"):
        list(files.records(tmp_path / "a.parquet", limits=Limits(unpacked_bytes=MIB)))


@pytest.mark.parametrize(("size", "most"), [(1, 64), (MIB, 200), (10 * MIB, 2_000), (1 << 40, 4_096)])
def test_what_a_packed_file_may_unpack_to(size, most):
    assert Limits().unpacked(size) == most * MIB


ENDINGS = [".gz", ".bz2", ".xz", ".zst", ".zip"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_packing_is_read_and_bounded(tmp_path, ending):
    packed = packed_as(ending, GOOD.encode() * 10_000)
    assert len(read(tmp_path, packed, f"rows.jsonl{ending}")) == 20_000
    assert read(tmp_path, packed_as(ending, b"a,b\n1,2\n"), f"rows.csv{ending}") == [(2, {"a": "1", "b": "2"})]
    with pytest.raises(StoreError, match="unpacks to more than 1 MiB"):
        read(tmp_path, packed_as(ending, b'{"a": "%s"}\n' % (b"x" * 1_000) * 2_000), f"rows.jsonl{ending}", unpacked_bytes=MIB)
    with pytest.raises(StoreError, match="rows.jsonl.* (is a damaged|cannot be read)"):
        read(tmp_path, packed[:-40], f"rows.jsonl{ending}")
    with pytest.raises(StoreError, match="which its name contradicts: rename it"):
        read(tmp_path, packed, "rows.jsonl")
    with pytest.raises(StoreError, match="is not packed by"):
        read(tmp_path, GOOD, f"rows.jsonl{ending}")


@pytest.mark.parametrize("ending", [".bz2", ".xz", ".gz", ".zst"])
def test_packed_streams_that_follow_each_other_are_one_file(tmp_path, ending):
    both = packed_as(ending, GOOD.encode()) + packed_as(ending, GOOD.encode())
    assert [record for _, record in read(tmp_path, both, f"rows.jsonl{ending}")] == [{"a": 1}, {"b": "ß"}] * 2


def test_zip_archives_that_hold_no_single_text(tmp_path):
    def archive(*names, **options):
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", **options) as found:
            for name in names:
                found.writestr(name, GOOD)
        return made.getvalue()

    for content, reason in [
        (archive("a.jsonl", "b.jsonl"), r"zip archive of 2 files \(a.jsonl, b.jsonl\): unpack it and import each"),
        (archive("[Content_Types].xml", "xl/x.xml"), "is an office document: save it as CSV"),
        (archive("a.jsonl", compression=zipfile.ZIP_LZMA), "packed by a method that is not read"),
    ]:
        with pytest.raises(StoreError, match=reason):
            read(tmp_path, content, "rows.zip")


def test_xz_asks_for_no_more_memory_than_is_allowed(tmp_path):
    greedy = lzma.compress(GOOD.encode(), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}])
    with pytest.raises(StoreError, match="is a damaged xz file .Memory usage limit"):
        read(tmp_path, greedy, "rows.jsonl.xz")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, encoding):
    assert read(tmp_path, GOOD.encode(encoding)) == GOOD_RECORDS
    assert read(tmp_path, "a,b\n1,ß\n".encode(encoding), "rows.csv") == [(2, {"a": "1", "b": "ß"})]
    assert read(tmp_path, '[{"b": "ß"}]'.encode(encoding), "rows.json") == [(1, {"b": "ß"})]


def test_other_encodings_are_named_by_the_user(tmp_path):
    assert read(tmp_path, '{"a": "ж"}\n'.encode("cp1251"), encoding="cp1251") == [(1, {"a": "ж"})]
    assert read(tmp_path, "a,b\n1,가\n".encode("euc-kr"), "rows.csv", encoding="euc_kr") == [(2, {"a": "1", "b": "가"})]
    assert read(tmp_path, GOOD.encode("utf-16-le"), encoding="utf-16-le") == GOOD_RECORDS
    with pytest.raises(StoreError, match="looks like UTF-16 without a byte order mark: name it with --encoding utf-16-le"):
        read(tmp_path, GOOD.encode("utf-16-le"))
    with pytest.raises(StoreError, match="is not GB18030 text .*name another encoding with --encoding"):
        read(tmp_path, b'{"a": "\xff\xff"}\n', encoding="gb18030")
    assert encodings.check_encoding("Latin-1") == "iso8859-1"
    for name in ("nonsense", "rot13", "zlib", "\0"):
        with pytest.raises(StoreError, match="encoding"):
            encodings.check_encoding(name)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "only points to the file, .* `git lfs pull`"),
        ("/annex/objects/MD5E-s9--12.jsonl\n", "`git annex get`"),
        ("\n<!DOCTYPE html>\n<html><body>404</body></html>", "is an HTML page and no data: download the file itself"),
        ("<html lang=en>", "is an HTML page"),
        ('<?xml version="1.0"?><x/>', "is XML"),
    ],
)
def test_what_stands_in_the_place_of_a_file(tmp_path, content, reason):
    with pytest.raises(StoreError, match=reason):
        read(tmp_path, content, "rows.json")


@pytest.mark.parametrize("make", [pa.ipc.new_file, pa.ipc.new_stream])
def test_arrow(tmp_path, make):
    table = pa.Table.from_pylist([{"a": n, "list": [{"t": str(n)}], "b": None if n % 2 else "x"} for n in range(50)])
    path = tmp_path / "rows.arrow"
    with make(path, table.schema) as writer:
        writer.write_table(table)
    found = list(files.records(path))
    assert found[0] == (1, {"a": 0, "list": [{"t": "0"}], "b": "x"}) and found[49] == (50, {"a": 49, "list": [{"t": "49"}]})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StoreError, match="is no Arrow file that can be read"):
        list(files.records(path))
    assert path.rename(tmp_path / "rows.json")
    with pytest.raises(StoreError, match="holds Arrow, which its name contradicts"):
        list(files.records(tmp_path / "rows.json"))


def test_a_pipe_is_kept_to_be_read_twice(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for limits, reason in ((Limits(), None), (Limits(unpacked_bytes=10), "gave more than 10 bytes")):
        writer = threading.Thread(target=write_quietly, args=(pipe, GOOD))
        writer.start()
        if reason:
            with pytest.raises(StoreError, match=reason), files.regular(pipe, limits):
                pass
        else:
            with files.regular(pipe, limits) as kept:
                assert list(files.records(kept)) == list(files.records(kept)) == GOOD_RECORDS
            assert not kept.exists()
        writer.join()
    (tmp_path / "file").write_text(GOOD)
    with files.regular(tmp_path / "file") as same:
        assert same == tmp_path / "file"


def write_quietly(path, text):
    with contextlib.suppress(BrokenPipeError), open(path, "w", encoding="utf-8") as file:
        file.write(text)


def test_a_file_that_is_not_there_and_a_folder(tmp_path):
    with pytest.raises(StoreError, match=r"nowhere cannot be read \(No such file"):
        list(files.records(tmp_path / "nowhere"))
    with pytest.raises(StoreError, match="cannot be read"):
        list(files.records(tmp_path))
    with pytest.raises(StoreError, match="cannot be read"):
        files.sha256(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_progress_is_told_in_rows_with_an_estimate_of_all(tmp_path, name):
    path = tmp_path / name
    with gzip.open(path, "wt") if name.endswith("gz") else open(path, "w") as file:
        file.writelines(json.dumps({"prompt": f"{n:06} {random.Random(n).random()}"}) + "\n" for n in range(50_000))
    told = []
    list(files.records(path, progress=lambda done, total: told.append((done, total))))
    assert told[-1] == (50_000, 50_000) and len(told) == 1 + 50_000 // 256
    assert [done for done, _ in told[:-1]] == [256 * n for n in range(1, len(told))]
    # What was read ahead counts as read.
    assert all(total == pytest.approx(50_000, rel=0.2) for done, total in told if done > 25_000)


def test_progress_in_parquet_has_no_total_before_the_end(tmp_path):
    parquet.write_table(pa.table({"prompt": [f"Q{n}" for n in range(600)]}), tmp_path / "rows.parquet")
    told = []
    list(files.records(tmp_path / "rows.parquet", progress=lambda done, total: told.append((done, total))))
    assert told == [(256, 0), (512, 0), (600, 600)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "prompt,kind\nWhy?,k\nKäse?,k\n"),
        ("a.json", '[\n{"prompt": "Why?", "kind": "k"},\n{"prompt": "Käse?", "kind": "k"}\n]'),
        ("a.jsonl", '{"prompt": "Why?", "kind": "k"}\n{"prompt": "Käse?", "kind": "k"}\n'),
    ],
)
def test_a_row_in_another_encoding_names_the_option(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode("cp1252"))
    (_, first), (_, second) = files.records(path)
    assert first == {"prompt": "Why?", "kind": "k"}
    assert "not UTF-8 text: name the encoding of the file with --encoding" in str(second)
    rows = [row for _, row in files.records(path, limits=Limits(encoding="cp1252"))]
    assert rows == [{"prompt": "Why?", "kind": "k"}, {"prompt": "Käse?", "kind": "k"}]


@pytest.mark.parametrize(("name", "text", "reason"), [
    ("x.csv", '[{"prompt": "Q", "chosen": "a"}]', "holds JSON, which its name contradicts: rename it to .json"),
    ("x.csv", '{"prompt": "Q", "chosen": "a"}\n', "holds JSON, which its name contradicts"),
    ("x.jsonl", "prompt,chosen,rejected\nQ,a,b\n", "looks like CSV, which its name contradicts: rename it to .csv"),
    ("x.json", "id;prompt\n1;Q\n", "looks like CSV, which its name contradicts"),
])  # fmt: skip
def test_a_text_of_another_kind_than_its_name_says(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match=reason):
        list(files.records(tmp_path / name))
