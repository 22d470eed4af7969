"""Messages that stand in a field as JSON text are messages, in every kind of file."""

import json

import pyarrow as pa
import pytest
from file_rows import read
from pyarrow import parquet

from storage.exchange import detect, files, imports
from storage.exchange.rows import ReadAs

MESSAGES = [{"role": "user", "content": "Hi; [x]"}]
TOLD = ReadAs("a", "messages, from their JSON text")


def test_in_json_and_parquet_and_csv(tmp_path):
    rows = [{"a": json.dumps(MESSAGES), "b": "[1]"}, {"a": json.dumps(MESSAGES), "b": '[{"name": 1}]'}]
    expected = [(1, TOLD), (1, {"a": MESSAGES, "b": "[1]"}), (2, {"a": MESSAGES, "b": '[{"name": 1}]'})]
    assert read(tmp_path, "\n".join(map(json.dumps, rows))) == expected
    assert read(tmp_path, json.dumps(rows), "rows.json") == expected
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert list(files.records(tmp_path / "rows.parquet")) == expected
    cell = '"' + json.dumps(MESSAGES).replace('"', '""') + '"'
    assert read(tmp_path, f"a,b\n{cell},[1]\n", "rows.csv") == [(2, TOLD), (2, {"a": MESSAGES, "b": "[1]"})]
    assert read(tmp_path, 'a\n"[{""role"": 1"\n', "rows.csv") == [(2, {"a": '[{"role": 1'})]


@pytest.mark.parametrize(("content", "name"), [(f'a,b\n"{MESSAGES}",x\n', "rows.csv"), (json.dumps({"a": str(MESSAGES)}), "rows.jsonl")])
def test_as_python_prints_them_they_are_wrong_rows(tmp_path, content, name):
    ((_, row),) = read(tmp_path, content, name)
    assert row == "! a holds messages as Python prints them, not as JSON: write the file with JSON in its cells"


def test_a_pair_of_such_columns_is_a_pair_of_answers(store, tmp_path):
    answers = {
        name: json.dumps([*MESSAGES, {"role": "assistant", "content": text}]) for name, text in (("chosen", "Yes"), ("rejected", "No"))
    }
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "Hi; [x]"} | answers), encoding="utf-8")
    assert detect.recognise_file(path).format == "trl"
    for _, report in (imports.import_file(store, path, "trl"), imports.import_rows(store, [{"prompt": "Hi; [x]"} | answers], "trl")):
        assert (report.judgments, report.wrong, report.read_as) == (1, 0, {"chosen": TOLD.what, "rejected": TOLD.what})
    assert sorted(text for (text,) in store.rows("SELECT text FROM completions")) == ["No", "Yes"]
    battle = {f"conversation_{side}": text for side, text in zip("ab", answers.values(), strict=True)}
    _, report = imports.import_rows(store, [battle | {"winner": "model_b"}], "arena")
    assert (report.judgments, report.wrong) == (1, 0)
