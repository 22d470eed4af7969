"""Columns that are spelt otherwise than a format spells them."""

import json

import pytest

from storage.core.database import StoreError
from storage.exchange import detect, imports
from storage.exchange.columns import Respelling, fold
from storage.exchange.formats import FORMATS
from storage.exchange.rows import BadRow


@pytest.mark.parametrize("name", ["chosen_response", "Chosen Response", "chosenResponse", "CHOSEN-RESPONSE ", "\ufeffchosen.response"])
def test_letters_and_digits_are_the_name(name):
    assert fold(name) == "chosenresponse"


def test_what_the_format_spells_is_never_renamed():
    known = Respelling(["response_1", "response1", "prompt"])
    row = {"response_1": "a", "response1": "b", "Response 1": "c", "PROMPT": "d", "Note": "e"}
    # `Response 1` may be either, so that it is neither.
    assert known.respelt(row) == {"response_1": "a", "response1": "b", "Response 1": "c", "prompt": "d", "Note": "e"}


def test_two_spellings_of_one_name_are_refused_by_name():
    known = Respelling(["prompt", "id"], ignored=["id"])
    for row in ({"Prompt": "a", "prompt": "b"}, {"Prompt": "a", "PROMPT": "b"}):
        for _ in range(2):
            with pytest.raises(BadRow, match=f"{' and '.join(row)} may each be prompt: rename or leave out all but one"):
                known.respelt(row)
    assert known.respelt({"ID": 1, "id": 2, "Prompt": "a"}) == {"ID": 1, "id": 2, "prompt": "a"}


FILES = [
    ("trl", "Prompt,Chosen,REJECTED \nName a fruit,Pear,Plum\n", {"Prompt": "prompt", "Chosen": "chosen", "REJECTED": "rejected"}),
    ("trl", "\ufeff prompt ;chosenResponse;rejected-response\nName a fruit;Pear;Plum\n",
     {"chosenResponse": "chosen_response", "rejected-response": "rejected_response"}),
    ("pairwise", "Question,Response A,Response B,Winner\nName a fruit,Pear,Plum,A\n",
     {"Question": "question", "Response A": "response_a", "Response B": "response_b", "Winner": "winner"}),
    ("hh-rlhf", [{"Chosen": "\n\nHuman: Name a fruit\n\nAssistant: Pear", "Rejected": "\n\nHuman: Name a fruit\n\nAssistant: Plum"}],
     {"Chosen": "chosen", "Rejected": "rejected"}),
    ("plain", [{"Prompt": "Name a fruit", "Completions": ["Pear", "Plum"], "Tiers": [[0], [1]]}],
     {"Prompt": "prompt", "Completions": "completions", "Tiers": "tiers"}),
]  # fmt: skip


@pytest.mark.parametrize(("format", "content", "read_as"), FILES)
def test_a_file_is_recognised_and_read_whatever_the_spelling(store, tmp_path, format, content, read_as):
    path = tmp_path / ("x.csv" if isinstance(content, str) else "x.json")
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    assert detect.recognise_file(path).format == format
    _, report = imports.import_file(store, path, format, recognised=True)
    assert (report.judgments, report.wrong, report.left, report.read_as) == (1, 0, {}, read_as)
    assert store.value("SELECT json_extract(messages, '$[0].content') FROM prompts") == "Name a fruit"
    best = "SELECT k.text FROM judgments j JOIN completions k ON k.id = json_extract(j.tiers, '$[0][0]')"
    assert store.value(best) == "Pear"


def test_rows_of_one_prompt_stay_together(store):
    rows = [{"Prompt": "Q", "Response": text, "Helpfulness": n, "correctness": n} for n, text in enumerate(("a", "b"))]
    assert detect.recognise(rows, "x").format == "helpsteer2"
    assert imports.import_rows(store, rows, "helpsteer2")[1].judgments == 1


def test_a_system_message_in_a_column_of_another_spelling_is_kept(store):
    imports.import_rows(store, [{"prompt": "Q", "chosen": "a", "rejected": "b", "System_Prompt": "Be kind."}], "trl")
    assert store.value("SELECT json_extract(messages, '$[0].content') FROM prompts") == "Be kind."


def test_a_file_with_a_name_twice_is_refused(store, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"Prompt": "a", "PROMPT": "b", "Chosen": "c", "Rejected": "d"}\n', encoding="utf-8")
    with pytest.raises(StoreError, match=r"x\.jsonl: Prompt and PROMPT may each be prompt: rename"):
        detect.recognise_file(path)
    _, report = imports.import_rows(store, [{"prompt": "a", "Prompt": "b", "chosen": "c", "rejected": "d"}], "trl")
    assert report.wrong_rows == [(1, "prompt and Prompt may each be prompt: rename or leave out all but one")]


def test_every_format_names_its_columns():
    """A column that a reader takes and no name tells would be left behind under another spelling."""
    assert {"system", "history", "annotator"} <= FORMATS["trl"].names
    assert {"prompt", "response", "helpfulness"} <= FORMATS["helpsteer2"].names
    assert {"messages", "tiers", "ideal"} <= FORMATS["csv"].names
    assert {"kind", "system_prompt"} <= FORMATS["prompts"].names
