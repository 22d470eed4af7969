"""Labels of single completions: imported, counted, exported, rolled back and undone."""

import json

import pytest

from storage.analytics import stats
from storage.content import prompts
from storage.core import unfinished_imports
from storage.core.database import Database, StoreError
from storage.exchange import imports, kto, native, trl, undos
from storage.judging import completion_labels, judgments
from storage.people import annotators


def row(n, label, **more):
    return {"prompt": f"Question {n}?", "completion": f"Answer {n}", "label": label, **more}


ROWS = [
    row(1, True, model="m", annotator="Ann", created_at="2025-01-02T03:04:05Z", kind="science", split="train"),
    row(1, False, annotator="Bob", rationale="too short"),
    row(2, False),
    row(3, True, annotator="judge", annotator_kind="simulated", annotator_rule="length"),
]


def look(store, **options):
    with store.snapshot():
        return list(completion_labels.active(store, **options))


def everything(store):
    return {table: [tuple(r) for r in store.rows(f'SELECT * FROM "{table}"')] for table in sorted(store.connection.table_names())}


def test_labels_are_stored_with_annotator_and_time(store):
    _, report = imports.import_rows(store, ROWS, "kto", source="some.jsonl")
    assert (report.labels, report.judgments, report.comparisons, report.prompts, report.left) == (4, 0, 0, 3, {})
    assert completion_labels.counts(store) == {"good": 2, "bad": 2}
    first, second, third = look(store, names=True)
    assert json.loads(first.messages) == [{"role": "user", "content": "Question 1?"}]
    assert first[1:] == ("science", "train", "Answer 1", "m", True, "Ann", "human", None, "", "2025-01-02T03:04:05.000+00:00")
    assert (second.good, second.annotator, second.rationale, second.model) == (False, "Bob", "too short", "imported")
    assert third.annotator == "kto"
    assert [(one.annotator, one.rule) for one in look(store, simulated=True, names=True)][3:] == [("judge", "length")]
    assert "Ann" not in {one.annotator for one in look(store)}
    # They are no votes: nothing that trains or compares reads them.
    assert judgments.active(store, kinds=("human", "simulated")) == []
    assert [person.judged for person in annotators.all_annotators(store)] == [0, 0, 0, 0]
    counts = stats.stats(store)
    assert counts["labels_not_used_in_training"] == {"good": 2, "bad": 2} and counts["completions"] == 4


def test_a_row_of_an_annotator_of_another_kind_is_wrong_and_the_others_are_kept(store):
    annotators.ensure(store, "Ann")
    _, report = imports.import_rows(store, [row(1, True, annotator="Ann", annotator_kind="simulated"), row(2, True)], "kto")
    assert (report.labels, report.wrong_rows) == (1, [(1, "Ann is a person in this store: the row needs another annotator's name")])


def test_half_an_import_is_invisible_and_leaves_nothing(store, monkeypatch):
    imports.import_rows(store, ROWS[:2], "kto")
    before, seen = everything(store), (look(store), stats.stats(store), prompts.by_kind(store))
    monkeypatch.setattr(unfinished_imports, "MAX_SLICE_ROWS", 20)

    def many():
        for n in range(10, 60):
            yield row(n, n % 2 == 0, annotator=f"ann {n % 3}", model=f"m{n % 3}")
        assert store.value("SELECT count(*) FROM completion_labels") > 2
        assert (look(store), stats.stats(store), prompts.by_kind(store)) == seen
        raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        imports.import_rows(store, many(), "kto")
    assert everything(store) == before


def test_an_undo_takes_labels_out_and_keeps_prompts_that_others_labelled(store):
    first, _ = imports.import_rows(store, ROWS[:3], "kto")
    second, _ = imports.import_rows(store, [row(1, True)], "kto")
    assert undos.undo(store, first) == undos.Undone(0, 0, 1, 3)
    assert completion_labels.counts(store) == {"good": 1, "bad": 0}
    assert [prompt.text for prompt in prompts.of_split(store)] == ["Question 1?"]
    undos.undo(store, second)
    assert (completion_labels.counts(store), prompts.of_split(store)) == ({"good": 0, "bad": 0}, [])
    assert imports.import_rows(store, ROWS[2:3], "kto")[1].prompts == 1
    assert [prompt.text for prompt in prompts.of_split(store)] == ["Question 2?"]


def test_strict_takes_labels(store):
    assert imports.import_rows(store, ROWS, "kto", strict=True)[1].labels == 4
    with pytest.raises(StoreError, match="not kept would be mood"):
        imports.import_rows(store, [row(9, True, mood="x")], "kto", strict=True)


def test_kto_writes_labels_and_each_pair_as_two_rows(store, tmp_path):
    imports.import_rows(store, [ROWS[0]], "kto")
    vote = {"prompt": "Why?", "completions": ["a", "b", "c"], "models": ["x", "y", "z"], "annotator": "Ann", "kind": "k",
            "split": "heldout", "created_at": "2025-01-02T03:04:06Z"}  # fmt: skip
    imports.import_rows(store, [vote | {"tiers": [[1], [0, 2]]}], "plain")
    path = tmp_path / "kto.jsonl"
    assert kto.write(store, path, names=True).written == 5
    # Another format has no place for a label, and names it.
    assert trl.write(store, tmp_path / "trl.jsonl").lost["labels of single answers"] == 1
    first, *others = [json.loads(line) for line in path.read_text().splitlines()]
    assert first == {
        "prompt": [{"role": "user", "content": "Question 1?"}], "completion": [{"role": "assistant", "content": "Answer 1"}],
        "label": True, "model": "m", "annotator": "Ann", "annotator_kind": "human", "created_at": "2025-01-02T03:04:05.000+00:00",
        "kind": "science", "split": "train",
    }  # fmt: skip
    assert [(one["completion"][0]["content"], one["label"], one["model"]) for one in others] == [
        ("b", True, "y"), ("a", False, "x"), ("b", True, "y"), ("c", False, "z"),
    ]  # fmt: skip
    assert {(one["split"], one["created_at"]) for one in others} == {("heldout", "2025-01-02T03:04:06.000+00:00")}


def test_labels_survive_kto_and_the_native_format(store, tmp_path, new_world):
    imports.import_rows(store, ROWS, "kto")
    path = tmp_path / "kto.jsonl"
    kto.write(store, path, include_simulated=True, names=True)
    again = Database(tmp_path / "again.db")
    _, report = imports.import_file(again, path, "kto", strict=True)
    assert report.labels == 4
    assert look(again, simulated=True, names=True) == look(store, simulated=True, names=True)
    again.close()
    native.write(store, tmp_path / "native")
    whole = Database(tmp_path / "whole.db")
    native.read(whole, tmp_path / "native")
    assert look(whole, simulated=True) == look(store, simulated=True)
    whole.close()
