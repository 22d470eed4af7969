"""Rows inside one object: where they are found, what stands beside them, and what is left alone."""

import gzip
import json

import pytest

from storage.core.database import StoreError
from storage.exchange import detect, files, imports
from storage.exchange.limits import CHUNK_BYTES, Limits
from storage.exchange.rows import BadRow, Left, ReadAs

PAIR = {"prompt": "Name a fruit", "chosen": "Pear", "rejected": "Plum"}
OTHER = {"prompt": "Name a tree", "chosen": "Oak", "rejected": "Rose"}
AS_ROWS = ReadAs("data", "rows")


def read(tmp_path, content, name="x.json", **limits):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return [row for _, row in files.records(path, is_row=detect.is_row, limits=Limits(**limits))]


def records(tmp_path, content, name="x.json"):
    return [row for row in read(tmp_path, content, name) if isinstance(row, dict)]


TWO = [PAIR, OTHER]
CELLS = [list(PAIR.values()), list(OTHER.values())]


@pytest.mark.parametrize("content", [
    {"data": TWO},
    {"version": 3, "rows": TWO, "made_by": {"name": "x"}},
    {"rows": [{"row_idx": n, "row": row, "truncated_cells": []} for n, row in enumerate(TWO)]},
    {"features": [{"name": "prompt"}], "rows": [{"row_idx": n, "row": row, "truncated_cells": []} for n, row in enumerate(TWO)],
     "num_rows_total": 2, "partial": False},
    *({name: TWO} for name in ("items", "examples", "instances", "results", "records", "Samples", "our_pairs")),
    {"result": {"data": TWO}},
    {"hits": {"total": {"value": 2}, "hits": [{"_index": "a", "_id": "1", "_source": row} for row in TWO]}},
    {"records": [{"id": "rec1", "createdTime": "2026-01-01", "fields": row} for row in TWO]},
    [{"row": row} for row in TWO],
    {"7": PAIR, "8": OTHER},
    {"columns": list(PAIR), "index": [0, 1], "data": CELLS},
    {"columns": list(PAIR), "rows": CELLS},
    {name: [PAIR[name], OTHER[name]] for name in PAIR},
    {name: {"0": PAIR[name], "1": OTHER[name]} for name in PAIR},
    {"schema": {"fields": [{"name": "prompt"}], "primaryKey": ["index"]}, "data": TWO},
])  # fmt: skip
def test_rows_are_found_in_an_object(tmp_path, content):
    for text in (json.dumps(content), json.dumps(content, indent=2), "\ufeff" + json.dumps(content)):
        assert records(tmp_path, text) == TWO
    with gzip.open(tmp_path / "x.json.gz", "wt", encoding="utf-8") as file:
        json.dump(content, file)
    assert [row for _, row in files.records(tmp_path / "x.json.gz", is_row=detect.is_row) if isinstance(row, dict)] == TWO
    assert detect.recognise_file(tmp_path / "x.json").format == "trl"


def test_columns_of_messages(tmp_path):
    turns = {name: [[{"role": "assistant", "content": row[name]}] for row in TWO] for name in ("chosen", "rejected")}
    columns = {"prompt": [row["prompt"] for row in TWO]} | turns
    assert records(tmp_path, columns) == [{name: columns[name][at] for name in columns} for at in (0, 1)]


def test_lists_of_splits_are_the_splits_of_their_rows(tmp_path):
    found = read(tmp_path, {"train": [PAIR], "test": [OTHER], "features": {"a": 1}})
    assert found == [
        ReadAs("train", "rows"), ReadAs("test", "rows"), PAIR | {"split": "train"}, OTHER | {"split": "heldout"},
        Left("features beside the rows", 1, harmless=True),
    ]  # fmt: skip
    # A split of the row's own holds.
    assert records(tmp_path, {"validation": [PAIR | {"split": "train"}]}) == [PAIR | {"split": "train"}]
    assert records(tmp_path, {"dataset": {"train": [PAIR], "dev": [OTHER]}}) == [PAIR | {"split": "train"}, OTHER | {"split": "heldout"}]
    assert records(tmp_path, {"train": ["One?", "Two?"], "test": ["Three?", "Four?"]})[::3] == [
        {"prompt": "One?", "split": "train"}, {"prompt": "Four?", "split": "heldout"},
    ]  # fmt: skip


@pytest.mark.parametrize("row", [
    {"prompt": "Q", "answers": [{"answer": "a", "rank": 1, "model": "m"}, {"answer": "b", "rank": 2, "model": "n"}]},
    {"instruction": "Q", "completions": [{"response": "a"}, {"response": "b"}], "models": ["m", "n"]},
    {"messages": [{"role": "user", "content": "Q"}]},
    {"conversations": [{"from": "human", "value": "Q"}], "chosen": {"from": "gpt", "value": "a"},
     "rejected": {"from": "gpt", "value": "b"}},
    {"chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "a"}],
     "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "b"}]},
    {"conversation_history": [{"turn": 0, "role": "user", "content": "Q"}], "conversation_id": "c1"},
    {"conversationId": "c", "exportAt": "x", "messages": [{"messageId": "1", "text": "Q"}]},
    {"id": 1, "data": {"prompt": "Q", "left": "a", "right": "b"}, "annotations": [{"id": 2, "result": []}]},
    {"prompt": "Q", "responses": ["a", "b"], "scores": [1, 2]},
    {"question_id": 1, "turns": ["a", "b"], "category": "math"},
    # Unknown rows with lists of answers are no files of rows.
    {"ask": "Q", "outputs": [{"text": "a"}, {"text": "b"}]},
    {"query": "Q", "candidates": [{"text": "a", "score": 1}]},
    {"question": "Q", "steps": [{"text": "a"}]},
    {"question_id": 81, "model_id": "m", "choices": [{"index": 0, "turns": ["an answer", "another"]}]},
])  # fmt: skip
def test_a_row_stays_a_row(tmp_path, row):
    assert read(tmp_path, row) == [row]
    assert read(tmp_path, f"{json.dumps(row)}\n{json.dumps(row)}\n", "x.jsonl") == [row, row]


def test_several_lists_of_rows_are_refused_by_name(tmp_path):
    for content in ({"data": [PAIR], "results": [OTHER]}, {"train": [PAIR], "data": [OTHER]}, {"math": [PAIR], "code": [OTHER]}):
        with pytest.raises(StoreError, match=r"holds several lists of rows \((data, results|train, data|math, code)\): write each"):
            read(tmp_path, content)


def test_what_stands_beside_the_rows_is_counted_by_name(store, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"total": 1, "licence": "mine", "tags": ["a", "b"], "data": [PAIR], "empty": []}), encoding="utf-8")
    _, report = imports.import_file(store, path, "trl")
    assert (report.judgments, report.left) == (1, {"licence beside the rows": 1, "tags beside the rows": 1})
    assert report.numbering == {"total beside the rows": 1} and report.read_as == {"data": "rows"}
    path.write_text(json.dumps({"licence": "mine", "data": [OTHER]}), encoding="utf-8")
    with pytest.raises(StoreError, match=r"not kept would be licence beside the rows \(1\)"):
        imports.import_file(store, path, "trl", strict=True)


def test_a_list_of_texts_is_a_list_of_prompts(store, tmp_path):
    for content in (["One?", "Two?"], {"prompts": ["One?", "Two?"]}, '"One?"\n"Two?"\n'):
        assert records(tmp_path, content) == [{"prompt": "One?"}, {"prompt": "Two?"}]
    assert detect.recognise_file(tmp_path / "x.json").format == "prompts"
    # Between other rows it is none.
    for content in ([{"prompt": "Q"}, "[DONE]"], {"data": [{"prompt": "Q"}, "[DONE]"]}):
        (tmp_path / "y.json").write_text(json.dumps(content), encoding="utf-8")
        _, report = imports.import_file(store, tmp_path / "y.json", "prompts")
        assert report.wrong_rows == [(2, "not a JSON object")]


def test_pages_that_follow_each_other(tmp_path):
    pages = "\n".join(json.dumps({"page": n, "data": [row]}) for n, row in enumerate(TWO))
    assert read(tmp_path, pages, "x.jsonl") == [AS_ROWS, PAIR, OTHER, Left("page beside the rows", 2, harmless=True)]
    broken = pages + '\n{"error": "no more"}\n' + json.dumps({"data": [PAIR]})
    found = read(tmp_path, broken, "x.jsonl")
    assert str(found[3]) == "has no list data, as the document before it has" and found[4] == PAIR
    # An unknown name is one list of rows only if the file ends there.
    once = {"ours": [PAIR]}
    assert records(tmp_path, once) == [PAIR]
    assert records(tmp_path, f"{json.dumps(once)}\n{json.dumps(once)}") == [once, once]


def test_cells_that_were_shortened_are_wrong_rows(tmp_path):
    (_, _, whole, cut) = read(tmp_path, {"rows": [{"row": PAIR, "truncated_cells": []}, {"row": OTHER, "truncated_cells": ["chosen"]}]})
    assert whole == PAIR
    assert str(cut) == "its cells were shortened where it comes from: chosen; download the file itself"


def test_only_a_row_is_in_memory_and_no_longer_than_allowed(tmp_path):
    rows = [PAIR | {"chosen": f"{n} " * 200} for n in range(2 * CHUNK_BYTES // 400)]
    content = {"n": 12345.5, "data": [*rows, PAIR | {"chosen": "x" * 5 * CHUNK_BYTES}]}
    found = read(tmp_path, content, row_bytes=2_000)
    assert found[1:-2] == rows and isinstance(found[-2], BadRow) and "longer than 2,000 bytes" in str(found[-2])
    # Numbers at the end of what was read so far are whole.
    for pad in range(CHUNK_BYTES - 30, CHUNK_BYTES + 10):
        text = '{"a": "%s", "n": 1234567.25, "data": [{"prompt": "Q"}]}' % ("x" * pad)
        assert read(tmp_path, text)[1:2] == [{"prompt": "Q"}], pad


def test_json_that_breaks_off_is_named(tmp_path):
    text = json.dumps({"data": TWO})
    for end in (-1, -2, 30):
        found = read(tmp_path, text[:end])
        assert isinstance(found[-1], BadRow), end
    twice = '{"data": [{"prompt": "Q"}], "data": [{"prompt": "R"}]}'
    assert isinstance(read(tmp_path, twice)[-1], BadRow)


def test_a_map_says_what_a_row_is(store, tmp_path):
    from storage.exchange import maps

    path = tmp_path / "x.json"
    path.write_text(json.dumps({"entries": [{"frage": "Q", "gut": "a", "schlecht": "b"}]}), encoding="utf-8")
    mapping = maps.parse("prompt=Frage,chosen=gut,rejected=schlecht")
    _, report = imports.import_file(store, path, "map", mapping=mapping)
    assert (report.judgments, report.read_as) == (1, {"entries": "rows", "frage": "Frage"})
