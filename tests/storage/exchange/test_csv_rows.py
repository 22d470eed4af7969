"""CSV and TSV as records, whole and broken."""

import gzip
import json

import pytest
from file_rows import read

from storage.core.database import StoreError
from storage.exchange import files


def test_a_column_stands_once(tmp_path):
    with pytest.raises(StoreError, match="has the column 'b' 2 times: rename all but one"):
        read(tmp_path, "a,b,b\n1,2,3\n", "rows.csv")
    with pytest.raises(StoreError, match="has 10,001 columns, the limit is 10,000"):
        read(tmp_path, ",".join(map(str, range(10_001))) + "\n", "rows.csv")


def test_csv(tmp_path):
    content = 'a, b\n1,"x\ny"\n,"say ""hi"""\n\n1,2,3\n5,6\n'
    assert read(tmp_path, content, "rows.csv") == [
        (2, {"a": "1", "b": "x\ny"}),
        (4, {"b": 'say "hi"'}),
        (6, "! 3 fields under 2 headings"),
        (7, {"a": "5", "b": "6"}),
    ]
    assert read(tmp_path, content, "rows.txt", "csv")[0] == (2, {"a": "1", "b": "x\ny"})
    assert read(tmp_path, gzip.compress(content.encode()), "rows.csv.gz")[0] == (2, {"a": "1", "b": "x\ny"})
    assert read(tmp_path, 'a,b\n1,"x"y\n3,4\n', "rows.csv") == [(2, "! not CSV: ',' expected after '\"'"), (3, {"a": "3", "b": "4"})]


def test_csv_cells_that_hold_messages_are_messages(tmp_path):
    messages = [{"role": "user", "content": "Hi; [x]"}]
    cell = '"' + json.dumps(messages).replace('"', '""') + '"'
    assert read(tmp_path, f"a,b\n{cell},[1]\n", "rows.csv") == [(2, {"a": messages, "b": "[1]"})]
    said = "! a holds messages as Python prints them, not as JSON: write the file with JSON in its cells"
    assert read(tmp_path, f'a,b\n"{messages}",x\n1,2\n', "rows.csv") == [(2, said), (3, {"a": "1", "b": "2"})]
    assert read(tmp_path, 'a\n"[{""role"": 1"\n', "rows.csv") == [(2, {"a": '[{"role": 1'})]


def test_csv_cells_may_be_large(tmp_path):
    assert len(read(tmp_path, "a\n" + "x" * 500_000 + "\n", "rows.csv")[0][1]["a"]) == 500_000


@pytest.mark.parametrize(
    ("content", "name"),
    [("a\tb\n1\tx, y\n", "rows.tsv"), ("a\tb\n1\tx, y\n", "rows"), ('a;b\n1;"x, y"\n', "rows.csv"), ('a,b\n1,"x, y"\n', "rows.txt")],
)
def test_tables_by_tabs_semicolons_and_commas(tmp_path, content, name):
    assert read(tmp_path, content, name) == [(2, {"a": "1", "b": "x, y"})]


def test_headings_in_another_encoding_name_the_option_and_nothing_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("größe,prompt\n1,Why?\n".encode("cp1252"))
    ((line, row),) = files.records(path)
    assert line == 1 and "--encoding" in str(row)
