"""The fields that choose prompts offer what the store has, and make the filter that it reads."""

from lead_page import EN, KO

from feedback_ui.lead.prompt_filter import EVERY, PromptFilterFields
from storage.content import prompts
from storage.core.records import PromptFilter
from storage.exchange import imports, undos


def test_the_fields_offer_what_the_store_has(app, store):
    with app:
        fields = PromptFilterFields("test")
    opened = fields.open(store, EN)
    assert [value for _, value in opened[fields.kind].choices] == [EVERY]
    prompts.add(store, [prompts.NewPrompt(({"role": "user", "content": "Q"},), "explain")], source="test")
    kept, _ = imports.import_rows(store, [{"prompt": "A", "kind": "own_bikes"}], "prompts", source="bikes.csv", by=None)
    gone, _ = imports.import_rows(store, [{"prompt": "B", "kind": "own_bikes"}], "prompts", source="gone.csv", by=None)
    undos.undo(store, gone, by=None)
    opened = fields.open(store, KO)
    assert opened[fields.kind].choices[1:] == [("설명", "explain"), ("own bikes", "own_bikes")]
    assert opened[fields.import_id].choices[1:] == [(f"{kept} · bikes.csv", str(kept))], "undone imports are not offered"
    assert [value for _, value in opened[fields.split].choices] == [EVERY, "train", "heldout"]


def test_the_fields_make_a_filter(app):
    with app:
        fields = PromptFilterFields("test")
    values = {fields.kind: "bikes", fields.import_id: "3", fields.split: "heldout", fields.text: " bell "}
    assert fields.chosen(values) == PromptFilter("bell", "bikes", "heldout", 3)
    assert fields.chosen(dict.fromkeys(fields.fields, EVERY)) == PromptFilter()
    assert fields.chosen(dict.fromkeys(fields.fields)) == PromptFilter()
    assert fields.chosen(values | {fields.split: "all", fields.import_id: "²"}) == PromptFilter("bell", "bikes")
