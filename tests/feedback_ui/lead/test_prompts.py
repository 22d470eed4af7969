"""Prompts come from files and from the keyboard."""

import json
import threading
import time

import pytest
from lead_page import EN, HERE, pressed, sign_in

from feedback_ui.lead import imports_view
from feedback_ui.server.auth import AccessRefused
from storage.content import comparisons, completions, policies, prompts, refusals
from storage.exchange import import_records, maps
from storage.judging import judgments, queue
from storage.people import accounts


def test_a_file_of_prompts_is_imported_and_its_wrong_rows_are_named(store, part, tmp_path):
    section = part.prompts
    assert section.open(HERE)[section.message] == ""
    file = tmp_path / "some.jsonl"
    other = {"messages": [{"role": "user", "content": "Q2"}], "split": "heldout"}
    rows = [{"prompt": "Q1", "kind": "story", "split": "train"}, {"prompt": ""}, other]
    file.write_text("\n".join(map(json.dumps, rows)) + '\n{"prompt": "<b>', encoding="utf-8")
    shown = section.import_file(str(file), "recognised", "", "", False, HERE)
    assert "2 prompts added" in shown[section.message] and "2 rows were left out" in shown[section.message]
    assert "Line 2: a message is empty" in shown[section.message] and "Line 4: not JSON" in shown[section.message]
    assert prompts.by_kind(store) == [("imported", "heldout", 1), ("story", "train", 1)]
    assert "some.jsonl" in shown[section.imports] and "2 wrong rows left out" in shown[section.imports]
    assert "imported before" in section.import_file(str(file), "recognised", "", "", False, HERE)[section.message]
    assert "choose it again" in section.import_file(None, "recognised", "", "", False, HERE)[section.message]


def test_a_file_of_judgments_is_recognised_and_what_is_not_kept_is_named(store, part, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "Q", "chosen": "a", "rejected": "b", "<b>x</b>": 1}\n', encoding="utf-8")
    shown = part.prompts.import_file(str(file), "recognised", "", "", False, HERE)[part.prompts.message]
    assert "Recognised as trl, by its fields prompt, chosen, rejected, in 1 of 1 rows." in shown and "1 judgment" in shown
    assert "Not kept: &lt;b&gt;x&lt;/b&gt; (1)." in shown
    assert store.value("SELECT count(*) FROM judgments") == 1
    file.write_text('{"question": "Q", "good": "a", "bad": "b"}\n', encoding="utf-8")
    shown = part.prompts.import_file(str(file), "recognised", "", "", False, HERE)[part.prompts.message]
    assert "The format of this file was not recognised. Its fields: question, good, bad. The nearest formats: " in shown
    assert "Choose its format above, or give a field map" in shown and "--" not in shown
    file.write_text("", encoding="utf-8")
    shown = part.prompts.import_file(str(file), "recognised", "", "", False, HERE)[part.prompts.message]
    assert "No row of this file can be read: the file is empty." in shown and "--" not in shown


def test_a_format_that_was_chosen_is_read_as_such(store, part, tmp_path):
    section = part.prompts
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "Q", "chosen": "a", "rejected": "b"}\n', encoding="utf-8")
    assert section.open(HERE)[section.format].choices[0] == ("recognised", "recognised")
    assert "Read as prompts." in section.import_file(str(file), "prompts", "", "", True, HERE)[section.message]
    shown = section.import_file(str(file), "prompts", "", "", False, HERE)[section.message]
    assert "1 prompt added. Not kept: chosen (1), rejected (1)." in shown
    assert store.value("SELECT count(*) FROM judgments") == 0
    both = section.import_file(str(file), "trl", "prompt=q,chosen=good,rejected=bad", "", False, HERE)
    assert "not both" in both[section.message]
    assert "Native cannot be imported" in section.import_file(str(file), "native", "", "", False, HERE)[section.message]


def test_a_field_map_and_an_encoding_read_an_unrecognised_file(store, part, tmp_path):
    section = part.prompts
    file = tmp_path / "ours.csv"
    file.write_bytes("frage,gut,schlecht,note\nWie heißt es?,Käse,Brot,1\n".encode("cp1252"))
    mapping = "prompt=frage,chosen=gut,rejected=schlecht"
    assert "name the encoding of the file" in section.import_file(str(file), "recognised", "", "", False, HERE)[section.message]
    assert "not UTF-8 text: name the encoding" in section.import_file(str(file), "recognised", mapping, "", False, HERE)[section.message]
    shown = section.import_file(str(file), "recognised", mapping, "cp1252", False, HERE)
    assert "Read with the given field map. 1 prompt added." in shown[section.message] and "Not kept: note (1)." in shown[section.message]
    assert store.value("SELECT text FROM completions ORDER BY id DESC LIMIT 1") in ("Käse", "Brot")
    assert (
        "There is no encoding &#39;klingon&#39;"
        in section.import_file(str(file), "recognised", "", "klingon", False, HERE)[section.message]
    )
    assert "is not NAME=FIELD" in section.import_file(str(file), "recognised", "prompt=frage,x", "", False, HERE)[section.message]


def test_a_saved_map_is_found_by_name_and_a_path_is_refused(store, part, tmp_path):
    section = part.prompts
    file = tmp_path / "rows.jsonl"
    file.write_text('{"q": "Q", "good": "a", "bad": "b"}\n', encoding="utf-8")
    maps.save("prompt=q,chosen=good,rejected=bad", store.path.parent, "ours")
    secret = tmp_path / "secret.toml"
    secret.write_text('prompt = "q"\nchosen = "good"\nrejected = "bad"\n', encoding="utf-8")
    for path in (str(secret), "../secret", "secret.toml"):
        shown = section.import_file(str(file), "recognised", path, "", True, HERE)[section.message]
        assert "cannot be a map" in shown or "There is no map" in shown, path
    assert "1 comparison, 1 judgment" in section.import_file(str(file), "recognised", "ours", "", True, HERE)[section.message]


def test_a_preview_shows_the_contents_of_a_file_and_imports_nothing(store, part, tmp_path):
    section = part.prompts
    file = tmp_path / "kto.jsonl"
    rows = [{"prompt": "Q", "completion": "a", "label": True, "mood": 1}, {"prompt": "Q", "completion": "b", "label": 7}]
    file.write_text("\n".join(map(json.dumps, rows * 5 + rows[:1] * 20)), encoding="utf-8")
    shown = section.import_file(str(file), "recognised", "", "", True, HERE)[section.message]
    assert "Recognised as kto, by its fields prompt, completion, label, in 25 of 30 rows. Nothing was imported." in shown
    assert (
        "The file holds: 25 answers labelled good or bad (stored, not used in training), 5 wrong rows left out. Not kept: mood (25)."
        in shown
    )
    assert "5 × " in shown and shown.count("rl-errors") == 2, "wrong rows are counted by reason"
    assert "The first rows, as they are read" in shown and shown.count("<td") == 5 * 3 and ">good<" in shown
    assert store.value("SELECT count(*) FROM imports") == store.value("SELECT count(*) FROM completion_labels") == 0
    file.write_text('{"prompt": "Q<b>", "chosen": "yes", "rejected": "no"}\n', encoding="utf-8")
    shown = section.import_file(str(file), "recognised", "", "", True, HERE)[section.message]
    assert "Q&lt;b&gt;" in shown and "A: yes" in shown and "A &gt; B" in shown


def kept_files(store):
    return [path for path in (store.path.parent / "uploads").rglob("*") if path.is_file()]


def test_what_was_previewed_is_imported_without_being_chosen_again(store, part, people, tmp_path):
    section = part.prompts
    file = tmp_path / "our kites.jsonl"
    file.write_text('{"q": "Why do kites fly?", "good": "Wind.", "bad": "Luck."}\n', encoding="utf-8")
    shown = section.import_file(str(file), "recognised", "", "", True, HERE)
    # The browser's own upload is gone after the call.
    file.unlink()
    assert "press “Preview again”" in shown[section.message] and not shown[section.import_button].interactive
    assert shown[section.deciding].visible and "our kites.jsonl is kept until" in shown[section.kept_name]
    shown = section.look_again(shown[section.kept], "recognised", " prompt=q,chosen=good,rejected=bad ", "", HERE)
    assert "1 comparison, 1 judgment" in shown[section.message] and shown[section.import_button].interactive
    assert store.value("SELECT count(*) FROM imports") == 0 and len(kept_files(store)) == 1
    # As it was previewed, whatever the form says meanwhile.
    shown = section.import_kept(kept := shown[section.kept], HERE)
    assert "Read with the given field map. 1 prompt added." in shown[section.message] and "our kites.jsonl" in shown[section.imports]
    assert shown[section.kept] is None and not shown[section.deciding].visible and kept_files(store) == []
    assert import_records.all_imports(store)[0].by_id == people.local.id
    for again in (lambda: section.import_kept(kept, HERE), lambda: section.look_again(kept, "recognised", "", "", HERE)):
        assert "choose it again" in again()[section.message]
    assert "choose it again" in section.import_kept(None, HERE)[section.message]


def test_a_preview_that_is_cancelled_or_fails_leaves_no_file(store, part, tmp_path):
    section = part.prompts
    file = tmp_path / "kites.jsonl"
    file.write_text('{"prompt": "Why do kites fly?"}\n', encoding="utf-8")
    shown = section.import_file(str(file), "recognised", "", "", True, HERE)
    shown = section.forget(shown[section.kept], HERE)
    assert shown == {section.message: "", section.kept: None, section.deciding: shown[section.deciding]}
    assert not shown[section.deciding].visible and kept_files(store) == [] and section.forget(None, HERE)[section.kept] is None
    # What cannot be imported is not kept either.
    section.import_file(str(file), "recognised", "", "", False, HERE)
    shown = section.import_file(str(file), "recognised", "", "", True, HERE)
    assert len(kept_files(store)) == 1
    assert "imported before" in section.import_kept(shown[section.kept], HERE)[section.message] and kept_files(store) == []


def test_only_leads_decide_about_a_preview(store, part, auth, tmp_path):
    section = part.prompts
    lead, researcher = sign_in(store, auth, "Lea", "lead"), sign_in(store, auth, "Rae", "researcher")
    file = tmp_path / "kites.jsonl"
    file.write_text('{"prompt": "Why do kites fly?"}\n', encoding="utf-8")
    kept = section.import_file(str(file), "recognised", "", "", True, lead)[section.kept]
    for refused in (
        lambda: section.import_kept(kept, researcher),
        lambda: section.look_again(kept, "recognised", "", "", researcher),
        lambda: section.forget(kept, researcher),
    ):
        with pytest.raises(AccessRefused):
            refused()
    assert kept_files(store) == [kept.path] and kept.path.parts[-3] == str(accounts.named(store, "Lea").annotator.id)


def test_a_file_that_cannot_be_kept_is_named(store, part, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.link", full)
    monkeypatch.setattr("shutil.copyfile", full)
    file = tmp_path / "kites.jsonl"
    file.write_text("{}", encoding="utf-8")
    shown = part.prompts.import_file(str(file), "recognised", "", "", True, HERE)
    assert "kites.jsonl cannot be kept (No space left on device): import it without a preview." in shown[part.prompts.message]


def test_typed_prompts_are_one_a_line_and_an_import_can_be_undone(store, part, people):
    section = part.prompts
    shown = section.add_lines("One?\n\n  Two?  \nOne?", "chat", "train", HERE)
    assert shown[section.lines] == "" and "2 prompts added. 1 was there already." in shown[section.message]
    assert [(p.text, p.kind, p.split) for p in prompts.of_split(store)] == [("One?", "chat", "train"), ("Two?", "chat", "train")]
    assert import_records.all_imports(store)[0].by_id == people.local.id
    shown = section.undo(pressed("undo", 1), HERE)
    assert "Import 1 is undone" in shown[section.message] and prompts.of_split(store) == []
    assert "undone" in shown[section.imports] and "data-act" not in shown[section.imports]
    assert "undone before" in section.undo(pressed("undo", 1), HERE)[section.message]
    assert "at least one" in section.add_lines(" \n", "chat", "auto", HERE)[section.message]


def test_refused_prompts_are_tried_again(store, part):
    prompts.load_starter(store)
    section = part.prompts
    refusals.add(store, 1, policies.ensure_base(store, "m"), "<i>no</i> system role")
    assert "&lt;i&gt;no&lt;/i&gt; system role" in section.open(HERE)[section.refused]
    assert section.retry(pressed("retry", 1), HERE)[section.refused] == ""
    assert refusals.all_refusals(store) == []


def test_an_import_shows_its_progress_and_can_be_stopped(store, part, tmp_path):
    section = part.prompts
    file = tmp_path / "<b>many.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"Question {n}?", "chosen": "yes", "rejected": "no"}) + "\n" for n in range(20_000)))
    assert section.follow(HERE)[section.running] == "" and not section.follow(HERE)[section.timer].active
    assert section.watch(HERE).active
    # A tick may come before the import has begun, while its format is recognised: the page must go on following.
    assert section.follow(HERE)[section.timer].active
    shown = {}
    importing = threading.Thread(target=lambda: shown.update(section.import_file(str(file), "recognised", "", "", False, HERE)))
    importing.start()
    deadline = time.monotonic() + 60
    while "rows are imported of about" not in (progress := section.follow(HERE)[section.running]):
        assert importing.is_alive() and time.monotonic() < deadline, progress
        time.sleep(0.02)
    (running,) = section.running_imports.all()
    assert progress.startswith('<p class="rl-muted">&lt;b&gt;many.jsonl: ') and f'data-act="stop" data-row="{running.id}"' in progress
    assert " left" in progress
    assert section.follow(HERE)[section.timer].active and "<button" not in imports_view.running_imports(
        EN, section.running_imports.all(), acts=False
    )
    section.stop(pressed("stop", running.id + 1), HERE)
    assert "<button" not in section.stop(pressed("stop", running.id), HERE)[section.running]
    importing.join(60)
    assert "many.jsonl was stopped after" in shown[section.message] and "Nothing was imported." in shown[section.message]
    assert shown[section.running] == "" and not shown[section.timer].active
    assert import_records.all_imports(store) == [] and store.value("SELECT count(*) FROM comparisons") == 0


def test_the_page_begins_to_follow_before_what_it_follows(app, part):
    """The browser calls the handlers of one event one after the other, and the import's returns only when it is done."""
    section = part.prompts
    for component, event, acts in (
        (section.file, "upload", ["forget", "watch", "import_file"]),
        (section.import_button, "click", ["watch", "import_kept"]),
        (section.imports, "click", ["watch", "undo"]),
    ):
        called = [fn.fn.__name__ for fn in app.fns.values() if (component._id, event) in fn.targets]
        assert called == acts


def test_votes_on_starter_prompts_that_an_import_takes_out_of_use_are_counted_before_and_after(store, part, people, tmp_path):
    section, file = part.prompts, tmp_path / "own.jsonl"
    file.write_text('{"prompt": "Mine?"}\n', encoding="utf-8")
    prompts.load_starter(store)
    assert "starter" not in section.import_file(str(file), "recognised", "", "", True, HERE)[section.message], "no vote is lost"
    prompt = prompts.of_split(store)[0]
    base = policies.ensure_base(store, "m")
    made = [
        completions.add(
            store, prompt_id=prompt.id, policy_version_id=base.id, text=text, sampling={}, seed=0, finish_reason="stop", latency_s=0.1
        )
        for text in "ab"
    ]
    comparison = comparisons.add(store, prompt.id, made, purpose="collect")
    shown = queue.next_presentation(store, people.ann.id)[1]
    judgments.save(store, shown.id, people.ann.id, verdict="rank", tiers=[[made[0]], [made[1]]])
    assert shown.comparison_id == comparison
    before = section.import_file(str(file), "recognised", "", "", True, HERE)[section.message]
    assert "take the starter prompts out of use: 1 vote on them will be left out" in before
    after = section.import_file(str(file), "recognised", "", "", False, HERE)[section.message]
    assert "1 prompt added" in after and "1 vote on a starter prompt is left out" in after
