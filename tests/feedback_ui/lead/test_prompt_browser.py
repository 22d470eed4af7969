"""Prompts are found, read, edited, retired and brought back."""

import pytest
from lead_page import HERE, pressed, sign_in

from feedback_ui.server.auth import AccessRefused
from storage.content import prompts


def add(store, *texts, kind="chat", split="train"):
    prompts.add(store, [prompts.NewPrompt(({"role": "user", "content": text},), kind, split) for text in texts], source="f")


def fields(section, **changes):
    """The values of the filter's fields."""
    names = {"kind": section.filter.kind, "split": section.filter.split, "text": section.filter.text, "state": section.state}
    return dict.fromkeys(section.fields, "") | {names[name]: value for name, value in changes.items()}


def test_prompts_are_listed_searched_retired_and_brought_back(store, part):
    section = part.promptbrowser
    assert "No prompts yet" in section.open(HERE)[section.counts]
    add(store, "<b>Tree</b>?", "Fruit?")
    listed = section.open(HERE)[section.list]
    assert "&lt;b&gt;Tree&lt;/b&gt;?" in listed and "Fruit?" in listed and "<b>" not in listed
    found = section.search(fields(section, text="tree"), HERE)
    assert "Tree" in found and "Fruit?" not in found
    assert "No prompt is like this" in section.search(fields(section, text="nothing"), HERE)
    after = section.press(fields(section), pressed("retire", 1), HERE)
    assert "retired" in after[section.list] and [p.text for p in prompts.of_split(store)] == ["Fruit?"]
    section.press(fields(section), pressed("restore", 1), HERE)
    assert len(prompts.of_split(store)) == 2
    assert "no prompt 9" in section.press(fields(section), pressed("retire", 9), HERE)[section.message]
    assert "This table has no such row" in section.press(fields(section), pressed("delete", 1), HERE)[section.message]


def test_the_list_is_filtered_by_kind_split_and_state_and_stays_so(store, part):
    section = part.promptbrowser
    add(store, "Bell?", "Tyre?", kind="bikes")
    add(store, "Lock?", kind="bikes", split="heldout")
    add(store, "Nave?", kind="churches")
    bikes = fields(section, kind="bikes", split="train")
    listed = section.search(bikes, HERE)
    assert all(text in listed for text in ("Bell?", "Tyre?")) and not any(text in listed for text in ("Lock?", "Nave?"))
    shown = section.press(bikes, pressed("retire", 1), HERE)
    assert "Tyre?" in shown[section.list] and "Nave?" not in shown[section.list], "the filter stays"
    listed = section.search(bikes | fields(section, kind="bikes", state="retired"), HERE)
    assert "Bell?" in listed and "Tyre?" not in listed
    refreshed = section.refresh(bikes, HERE)
    assert refreshed[section.filter.kind].value == "bikes" and "Nave?" not in refreshed[section.list]


def test_a_prompt_is_opened_and_saved_as_a_new_version(store, part, people):
    section = part.promptbrowser
    add(store, "Which bel?")
    shown = section.press(fields(section), pressed("open", 1), HERE)
    assert shown[section.opening].visible and "Prompt 1 · chat" in shown[section.preview]
    assert (shown[section.opened], shown[section.text].value) == (1, "Which bel?")
    shown = section.edit(fields(section) | {section.opened: 1, section.text: "Which <i>bell</i>?"}, HERE)
    assert "Prompt 2 replaces prompt 1" in shown[section.message]
    assert shown[section.opened] == 2 and "replaces prompt 1" in shown[section.preview] and "replaced by prompt 2" in shown[section.list]
    assert [p.text for p in prompts.of_split(store)] == ["Which <i>bell</i>?"]
    again = section.edit(fields(section) | {section.opened: 2, section.text: "Which <i>bell</i>?"}, HERE)
    assert "has this text already: change it" in again[section.message] and section.opened not in again, "what was typed stays"
    assert "No prompt is open" in section.edit(fields(section) | {section.opened: None, section.text: "x"}, HERE)[section.message]
    assert section.close(HERE)[section.opening].visible is False


def test_the_starters_are_switched(store, part):
    prompts.load_starter(store)
    section = part.promptbrowser
    opened = section.open(HERE)
    assert "240 starter prompts are in use" in opened[section.starters_now] and "140 more prompts are not shown" in opened[section.list]
    off = fields(section) | {section.starters: "off"}
    assert "240 starter prompts are not in use" in section.choose_starters(off, HERE)[section.starters_now]
    assert prompts.of_split(store) == []
    assert "auto, on or off" in section.choose_starters(off | {section.starters: "maybe"}, HERE)[section.message]


def test_a_reader_opens_prompts_and_changes_none(store, part, auth):
    add(store, "Q?")
    sign_in(store, auth, "Lea", "lead")
    researcher = sign_in(store, auth, "Res", "researcher")
    section = part.promptbrowser
    shown = section.press(fields(section), pressed("open", 1), researcher)
    assert "Prompt 1" in shown[section.preview] and shown[section.text].visible is False and shown[section.save].visible is False
    for act in ("retire", "restore", "x"):
        with pytest.raises(AccessRefused, match="role"):
            section.press(fields(section), pressed(act, 1), researcher)
    assert len(prompts.of_split(store)) == 1
