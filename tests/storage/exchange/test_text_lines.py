"""Plain text as prompts: one for each line, or one for each paragraph."""

import pytest

from storage.core.database import StoreError
from storage.exchange import detect, files, imports
from storage.exchange.limits import Limits
from storage.exchange.rows import BadRow, Left, ReadAs

TEXT = "\ufeffWhy is the sky blue?\r\n\r\n  Name three fruits, please.  \n\nWrite a poem:\nabout rain\n \n"
LINES = ReadAs("each line of text", "a prompt")


def read(path, container=None, **limits):
    return list(files.records(path, container, limits=Limits(**limits)))


def test_each_line_is_a_prompt_and_blank_ones_are_counted(store, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(TEXT, encoding="utf-8", newline="")
    assert read(path) == [
        (1, LINES), (1, {"prompt": "Why is the sky blue?"}),
        (3, {"prompt": "Name three fruits, please."}), (5, {"prompt": "Write a poem:"}),
        (6, {"prompt": "about rain"}), (1, Left("blank lines", 3, harmless=True)),
    ]  # fmt: skip
    assert detect.recognise_file(path).format == "prompts"
    _, report = imports.import_file(store, path, "prompts", recognised=True, strict=True)
    assert (report.prompts, report.numbering, report.read_as) == (4, {"blank lines": 3}, {"each line of text": "a prompt"})


def test_lines_may_end_with_a_carriage_return_alone(tmp_path):
    for name, text in (("mine.txt", "Why?\rWhere?\r"), ("mine.jsonl", '{"prompt": "Why?"}\r{"prompt": "Where?"}\r')):
        (tmp_path / name).write_text(text, newline="")
        found = [row for _, row in read(tmp_path / name) if isinstance(row, dict)]
        assert found == [{"prompt": "Why?"}, {"prompt": "Where?"}]


@pytest.mark.parametrize("heading", ["prompt", " Prompts:", "QUESTION"])
def test_a_heading_is_no_prompt(store, tmp_path, heading):
    path = tmp_path / "mine.txt"
    path.write_text(f"\n{heading}\nWhy, really?\nText\n", encoding="utf-8")
    _, report = imports.import_file(store, path, "prompts")
    assert [row[0] for row in store.rows("SELECT json_extract(messages, '$[0].content') FROM prompts ORDER BY id")] == [
        "Why, really?",
        "Text",
    ]
    assert report.read_as[f"the first line, {heading.strip()},"] == "a heading"


def test_each_paragraph_is_a_prompt(store, tmp_path):
    path = tmp_path / "mine.md"
    path.write_text(TEXT, encoding="utf-8", newline="")
    _, report = imports.import_file(store, path, "paragraphs")
    texts = [row[0] for row in store.rows("SELECT json_extract(messages, '$[0].content') FROM prompts ORDER BY id")]
    assert texts == ["Why is the sky blue?", "  Name three fruits, please.", "Write a poem:\nabout rain"]
    assert report.numbering == {"blank lines": 3}


def test_text_that_nobody_called_text_names_the_ways_to_read_it(tmp_path):
    path = tmp_path / "mine.md"
    path.write_text("# Prompts\n\nWhy?\n", encoding="utf-8")
    with pytest.raises(
        StoreError, match=r"not JSON; a text with a prompt in each line is read with --format lines, .* --format paragraphs"
    ):
        detect.recognise_file(path)


@pytest.mark.parametrize(("text", "format"), [
    ("prompt,kind\nWhy?,a\n", "prompts"),
    ("question\tanswer_a\tanswer_b\twinner\nWhy?\tx\ty\ta\n", "pairwise"),
    ('{"prompt": "Why?", "chosen": "a", "rejected": "b"}\n', "trl"),
    ('[{"prompt": "Why?", "chosen": "a", "rejected": "b"}]', "trl"),
])  # fmt: skip
def test_a_table_and_json_may_be_called_txt(tmp_path, text, format):
    path = tmp_path / "x.txt"
    path.write_text(text, encoding="utf-8")
    assert detect.recognise_file(path).format == format
    assert LINES not in [row for _, row in read(path)]


def test_a_table_of_one_column_without_a_heading_names_the_way_to_read_it(store, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("Why is the sky blue?\nName a fruit\n", encoding="utf-8")
    with pytest.raises(StoreError, match=r"If its first line is a prompt and no heading, say --format lines\."):
        detect.recognise_file(path)
    assert imports.import_file(store, path, "lines")[1].prompts == 2


@pytest.mark.parametrize("text", ["[1] Why?\n[2] How?\n", "[INST] Why? [/INST]\nHow?\n", "Explain tides, please\nWrite, or sing\n"])
def test_text_that_begins_like_something_else_is_text(tmp_path, text):
    path = tmp_path / "x.txt"
    path.write_text(text, encoding="utf-8")
    assert [row["prompt"] for _, row in read(path)[1:]] == text.splitlines()


def test_lines_that_cannot_be_read_are_wrong_rows(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"Why?\nK\xe4se?\n" + b"x" * 300 + b"\nHow?\n")
    for container in ("lines", "paragraphs"):
        found = [row for _, row in read(path, container, row_bytes=100)]
        wrong = [str(row) for row in found if isinstance(row, BadRow)]
        assert any("not UTF-8" in reason for reason in wrong)
    assert [row for row in read(path, row_bytes=100) if isinstance(row[1], dict)] == [(1, {"prompt": "Why?"}), (4, {"prompt": "How?"})]
    path.write_text("Käse?\n", encoding="utf-16")
    assert read(path)[1] == (1, {"prompt": "Käse?"})
    path.write_bytes("Käse?\n".encode("cp1252"))
    assert read(path, encoding="cp1252")[1] == (1, {"prompt": "Käse?"})
