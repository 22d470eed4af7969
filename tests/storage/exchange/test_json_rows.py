"""JSON as records: lines, lists and documents, whole and broken."""

import gzip
import json

import pytest
from file_rows import GOOD, GOOD_RECORDS, LONGER, read

from storage.exchange import encodings
from storage.exchange.limits import MIB

DEEP = "not JSON: nested too deeply, more than 500 lists and objects"


def test_json_lines_plain_and_gzipped(tmp_path):
    assert read(tmp_path, GOOD) == GOOD_RECORDS
    assert read(tmp_path, gzip.compress(GOOD.encode()), "rows.jsonl.gz") == GOOD_RECORDS
    assert read(tmp_path, gzip.compress(GOOD.encode()), "whatever") == GOOD_RECORDS
    assert read(tmp_path, b"\xef\xbb\xbf" + GOOD.encode()) == GOOD_RECORDS
    # Files that were joined.
    assert read(tmp_path, b'{"a": 1}\n\xef\xbb\xbf{"a": 2}\n') == [(1, {"a": 1}), (2, {"a": 2})]
    assert read(tmp_path, b'[{"a": 1}]\n\xef\xbb\xbf[{"a": 2}]\n') == [(1, {"a": 1}), (2, {"a": 2})]
    assert read(tmp_path, "") == []


def test_a_broken_line_costs_only_itself(tmp_path):
    content = b'{"a": 1}\n{"a": \n[1]\n"x"\n{"a": "caf\xe9"}\n' + b"[" * 100_000 + b'\n{"a": ' + b"1" * 5_000 + b'}\n{"a": "\0"}\n{"b": 2}'
    assert read(tmp_path, b'{"z": 0}\n' + content.replace(b"\0", b"x" * 70_000 + b"\0")) == [
        (1, {"z": 0}),
        (2, {"a": 1}),
        (3, "! not JSON"),
        (4, "! not a JSON object"),
        (5, "! not a JSON object"),
        (6, f"! {encodings.NOT_UTF8}"),
        (7, "! not JSON: nested too deeply, more than 500 lists and objects"),
        (8, "! not JSON"),
        (9, "! not JSON"),
        (10, {"b": 2}),
    ]


def test_a_line_that_is_too_long_costs_only_itself(tmp_path):
    exact = '{"a": "' + "x" * (MIB - 9) + '"}'
    content = json.dumps({"a": "x" * (3 << 20)}) + f'\n{exact}\n{exact[:-1]} }}\n{{"b": 2}}\n'
    found = read(tmp_path, content, row_bytes=MIB)
    assert found == [(1, LONGER), (2, json.loads(exact)), (3, LONGER), (4, {"b": 2})]


def test_a_row_with_too_many_values_is_refused_before_it_is_decoded(tmp_path):
    many, text = '{"a": [' + "[]," * 2_000 + "1]}", json.dumps({"a": "[{," * 2_000 + '\\",['})
    said = "! more than 1,000 values in one row: import with a larger --max-row-mib if it is right"
    assert read(tmp_path, f"{many}\n{text}\n", row_bytes=100_000) == [(1, said), (2, json.loads(text))]
    found = read(tmp_path, f"[{text}, {many}, {text}]", row_bytes=100_000)
    assert found == [(1, json.loads(text)), (2, said), (3, json.loads(text))]
    # Where one is too long to be decoded first, nobody knows where it ends.
    found = read(tmp_path, f"[{text}, {many[:-3]}{'[],' * 50_000}1]}}, {text}]", row_bytes=320_000)
    assert found == [(1, json.loads(text)), (2, f"{said.replace('1,000', '2,000')}; nothing after it was read")]


def test_a_key_stands_once_and_what_is_no_number_is_null(tmp_path):
    content = '{"a": 1, "b": {"c": 1, "c": 2}}\n{"a": NaN, "b": [-Infinity]}\n'
    twice = "! the key 'c' stands twice in one object"
    assert read(tmp_path, content) == [(1, twice), (2, {"a": None, "b": [None]})]
    assert read(tmp_path, "[" + content.strip().replace("\n", ",") + ', {"b": 1}]') == [
        (1, twice), (2, {"a": None, "b": [None]}), (3, {"b": 1}),
    ]  # fmt: skip


def test_json_lists_are_read_one_element_at_a_time(tmp_path):
    rows = [{"n": n, "text": "x" * 3_000, "list": [[n], {"}": "]"}]} for n in range(200)]
    assert read(tmp_path, json.dumps(rows)) == list(enumerate(rows, start=1))
    assert read(tmp_path, json.dumps(rows, indent=2), "rows.json") == list(enumerate(rows, start=1))
    assert read(tmp_path, " [ ] ") == []
    assert read(tmp_path, '[{"a": 1}, 2, {"b": 3}]') == [(1, {"a": 1}), (2, "! not a JSON object"), (3, {"b": 3})]


@pytest.mark.parametrize(
    "content, said",
    [
        ('[{"a": 1}, {"b": ]', "! not JSON, nothing after it was read"),
        ('[{"a": 1} {"b": 2}]', "! the list breaks off after the row before this one"),
        ('[{"a": 1}', "! the list breaks off after the row before this one"),
        ('[{"a": 1},' + "[" * 100_000, f"! {DEEP}; nothing after it was read"),
    ],
)
def test_json_lists_that_break_off(tmp_path, content, said):
    assert read(tmp_path, content) == [(1, {"a": 1}), (2, said)]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.txt", "rows"])
@pytest.mark.parametrize(
    "content",
    [
        '{"a": 1}\n{"b": "ß"}',
        '{"a": 1}\r\n{"b": "ß"}\r\n',
        '[{"a": 1}, {"b": "ß"}]',
        '[{"a": 1}]\n[{"b": "ß"}]\n',
        '[]\n[\n{"a": 1}\n]\n{"b": "ß"}',
        '{\n  "a": 1\n}\n{\n  "b": "ß"\n}\n',
        '{"a": 1,\n "c": null}{"b": "ß"}'.replace(',\n "c": null', "\n").replace("1\n}", "1}\n"),
    ],
)
def test_lists_lines_and_documents_whatever_the_ending(tmp_path, name, content):
    assert [record for _, record in read(tmp_path, content, name)] == [{"a": 1}, {"b": "ß"}]


def test_what_follows_a_list_is_not_passed_over(tmp_path):
    assert read(tmp_path, '[{"a": 1}] x [{"b": 2}]') == [(1, {"a": 1}), (2, "! not JSON; nothing after it was read")]
