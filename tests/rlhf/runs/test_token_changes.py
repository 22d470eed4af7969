"""The file with what tuning changed: written whole, read with bounds."""

import json
import os

import pytest

from rlhf.runs import token_changes
from rlhf.runs.token_changes import AnswerChange, SampleChange, TokenChange, TokenChanges

CHANGES = TokenChanges(
    0.7,
    [SampleChange(4, AnswerChange([TokenChange(" Hi", 0.5), TokenChange("", -1.5)]), AnswerChange([TokenChange("안녕", -0.25)]))],
)


def test_it_comes_back_as_it_was_written(tmp_path):
    token_changes.write(tmp_path, CHANGES)
    assert token_changes.read(tmp_path) == CHANGES
    assert [file.name for file in tmp_path.iterdir()] == ["token_changes.json"]


def test_text_and_change_of_an_answer():
    before = CHANGES.samples[0].before
    assert before.text == "Hi" and before.per_token == 1.0
    assert AnswerChange().text == "" and AnswerChange().per_token == 0


def test_a_run_without_one_has_none(tmp_path):
    assert token_changes.read(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"temperature": "warm"}', '{"temperature": 1.0, "samples": [{"prompt_id": 1}]}', '{"temperature": NaN}', "[" * 9_000],
)
def test_a_file_that_no_round_wrote_is_not_read(tmp_path, content, caplog):
    (tmp_path / "token_changes.json").write_text(content)
    assert token_changes.read(tmp_path) is None and "is not read" in caplog.text


def test_a_file_that_is_too_long_is_not_read(tmp_path, monkeypatch, caplog):
    token_changes.write(tmp_path, CHANGES)
    monkeypatch.setattr(token_changes, "MAX_FILE_BYTES", 20)
    assert token_changes.read(tmp_path) is None and "more than the limit of 20" in caplog.text


def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path, caplog):
    (tmp_path / "elsewhere.json").write_text(json.dumps({"temperature": 1.0}))
    run = tmp_path / "run"
    run.mkdir()
    os.symlink(tmp_path / "elsewhere.json", run / "token_changes.json")
    assert token_changes.read(run) is None and "outside of its folder" in caplog.text
