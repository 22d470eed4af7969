"""Prompts come from files and from the keyboard."""

import json
import threading
import time

from lead_page import EN, HERE, pressed

from feedback_ui.lead import lead_view
from storage.content import prompts
from storage.exchange import imports  # fmt: skip


def test_a_file_of_prompts_is_imported_and_its_wrong_rows_are_named(store, part, tmp_path):
    section = part.prompts
    assert "No prompts yet" in section.open(HERE)[section.counts]
    file = tmp_path / "some.jsonl"
    other = {"messages": [{"role": "user", "content": "Q2"}], "split": "heldout"}
    rows = [{"prompt": "Q1", "kind": "story", "split": "train"}, {"prompt": ""}, other]
    file.write_text("\n".join(map(json.dumps, rows)) + '\n{"prompt": "<b>', encoding="utf-8")
    shown = section.import_file(str(file), HERE)
    assert "2 prompts added" in shown[section.message] and "2 rows were left out" in shown[section.message]
    assert "Line 2: a message is empty" in shown[section.message] and "Line 4: not JSON" in shown[section.message]
    assert prompts.by_kind(store) == [("imported", "heldout", 1), ("story", "train", 1)]
    assert "some.jsonl" in shown[section.imports] and "2 wrong rows left out" in shown[section.imports]
    assert "imported before" in section.import_file(str(file), HERE)[section.message]
    assert "choose it again" in section.import_file(None, HERE)[section.message]


def test_a_file_of_judgments_is_recognised_and_what_is_not_kept_is_named(store, part, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "Q", "chosen": "a", "rejected": "b", "<b>x</b>": 1}\n', encoding="utf-8")
    said = part.prompts.import_file(str(file), HERE)[part.prompts.message]
    assert "Recognised as trl, by its fields prompt, chosen, rejected, in 1 of 1 rows." in said and "1 judgment" in said
    assert "Not kept: &lt;b&gt;x&lt;/b&gt; (1)." in said
    assert store.value("SELECT count(*) FROM judgments") == 1
    file.write_text('{"question": "Q", "good": "a", "bad": "b"}\n', encoding="utf-8")
    assert "cannot tell which format this is" in part.prompts.import_file(str(file), HERE)[part.prompts.message]


def test_typed_prompts_are_one_a_line_and_an_import_can_be_undone(store, part, people):
    section = part.prompts
    shown = section.add_lines("One?\n\n  Two?  \nOne?", "chat", "train", HERE)
    assert shown[section.lines] == "" and "2 prompts added. 1 was there already." in shown[section.message]
    assert [(p.text, p.kind, p.split) for p in prompts.of_split(store)] == [("One?", "chat", "train"), ("Two?", "chat", "train")]
    assert imports.all_imports(store)[0].by_id == people.local.id
    shown = section.undo(pressed("undo", 1), HERE)
    assert "Import 1 is undone" in shown[section.message] and prompts.of_split(store) == []
    assert "undone" in shown[section.imports] and "data-act" not in shown[section.imports]
    assert "undone before" in section.undo(pressed("undo", 1), HERE)[section.message]
    assert "at least one" in section.add_lines(" \n", "chat", "auto", HERE)[section.message]


def test_an_import_says_how_far_it_is_and_can_be_stopped(store, part, tmp_path):
    section = part.prompts
    file = tmp_path / "<b>many.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"Question {n}?", "chosen": "yes", "rejected": "no"}) + "\n" for n in range(20_000)))
    assert section.follow(HERE)[section.running] == "" and not section.follow(HERE)[section.timer].active
    assert section.watch(HERE).active
    shown = {}
    importing = threading.Thread(target=lambda: shown.update(section.import_file(str(file), HERE)))
    importing.start()
    deadline = time.monotonic() + 60
    while "rows are imported of about" not in (said := section.follow(HERE)[section.running]):
        assert importing.is_alive() and time.monotonic() < deadline, said
        time.sleep(0.02)
    (running,) = section.running_imports.all()
    assert said.startswith('<p class="rl-muted">&lt;b&gt;many.jsonl: ') and f'data-act="stop" data-row="{running.id}"' in said
    assert " left" in said
    assert section.follow(HERE)[section.timer].active and "<button" not in lead_view.running_imports(
        EN, section.running_imports.all(), acts=False
    )
    section.stop(pressed("stop", running.id + 1), HERE)
    assert "<button" not in section.stop(pressed("stop", running.id), HERE)[section.running]
    importing.join(60)
    assert "many.jsonl was stopped after" in shown[section.message] and "Nothing was imported." in shown[section.message]
    assert shown[section.running] == "" and not shown[section.timer].active
    assert imports.all_imports(store) == [] and store.value("SELECT count(*) FROM comparisons") == 0
