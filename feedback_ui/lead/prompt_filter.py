"""The fields that choose prompts by kind, import, split and text: of a batch, and of the list of prompts."""

from __future__ import annotations

from typing import Any, cast

import gradio as gr
from gradio.components import Component

from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import prompt_kind
from feedback_ui.shared.theme import label
from storage.content import prompt_list
from storage.core.database import Database
from storage.core.records import PromptFilter, Split
from storage.exchange import import_records

EVERY = ""
"""The choice of a field that leaves no prompt out."""

SPLITS = ("train", "heldout")


class PromptFilterFields:
    def __init__(self, prefix: str):
        self.kind = gr.Dropdown([EVERY], value=EVERY, label=label("lead.prompts.kind"), min_width=150, elem_id=f"{prefix}-kind")
        self.import_id = gr.Dropdown(
            [EVERY], value=EVERY, label=label("lead.prompts.from_import"), min_width=150, elem_id=f"{prefix}-import"
        )
        self.split = gr.Dropdown(
            [EVERY, *SPLITS], value=EVERY, label=label("lead.prompts.split"), filterable=False, min_width=150, elem_id=f"{prefix}-split"
        )
        self.text = gr.Textbox(label=label("lead.prompts.search"), max_lines=1, min_width=200, elem_id=f"{prefix}-search")
        self.fields: list[Component] = [self.kind, self.import_id, self.split, self.text]

    def open(self, store: Database, translate: Translator) -> dict[Component, Any]:
        """The choices that the store has now, with none chosen."""
        kinds = [(prompt_kind(translate, kind), kind) for kind in prompt_list.kinds(store)]
        imports = [(f"{i.id} · {i.source}", str(i.id)) for i in import_records.all_imports(store) if not i.undone_at and i.report.prompts]
        splits = [(translate(f"lead.prompts.{split}"), split) for split in SPLITS]
        every = {name: (translate(f"lead.prompts.every_{name}"), EVERY) for name in ("kind", "import", "split")}
        return {
            self.kind: gr.Dropdown([every["kind"], *kinds], value=EVERY),
            self.import_id: gr.Dropdown([every["import"], *imports], value=EVERY),
            self.split: gr.Dropdown([every["split"], *splits], value=EVERY),
            self.text: "",
        }

    def chosen(self, values: dict[Component, Any]) -> PromptFilter:
        """The filter that the fields' values make."""
        number = str(values[self.import_id] or "")
        return PromptFilter(
            text=(values[self.text] or "").strip(),
            kind=values[self.kind] or None,
            split=cast(Split, values[self.split]) if values[self.split] in SPLITS else None,
            import_id=int(number) if number.isascii() and number.isdigit() else None,
        )
