"""CSV and TSV as records, whole and broken."""

import gzip

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


def test_what_spreadsheets_write_beside_the_rows(tmp_path):
    expected = [{"prompt": "1", "chosen": "x, y"}]
    for content in ('sep=;\r\nprompt;chosen\r\n1;"x, y"\r\n', 'prompt,chosen,,\n1,"x, y",,\n,,,\n', 'prompt,chosen\r1,"x, y"\r'):
        assert [row for _, row in read(tmp_path, content, "rows.csv")] == expected


def test_the_separator_parts_the_headings_into_usual_names(tmp_path):
    assert read(tmp_path, "prompt;chosen;note (a, b)\n1;x, y;z\n", "rows.csv") == [
        (2, {"prompt": "1", "chosen": "x, y", "note (a, b)": "z"})
    ]


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
