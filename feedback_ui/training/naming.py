"""The name and the note of the shown run, on the Training page, where a researcher writes them."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.events import Dependency

from feedback_ui.server.auth import Auth
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import translator_for
from feedback_ui.shared.theme import QUIET, html, label
from storage.core.database import Database, StoreError
from storage.project import runs


class NamePanel:
    def __init__(self, store: Database, auth: Auth):
        self.store, self.auth = store, auth
        with gr.Accordion(label("naming.title"), open=False, visible=False, elem_id="run-naming") as self.fold:
            self.name = gr.Textbox(
                label=label("naming.name"), info=label("naming.name_help"), max_lines=1, max_length=runs.MAX_NAME_CHARS, elem_id="run-name"
            )
            self.note = gr.Textbox(
                label=label("naming.note"), info=label("naming.note_help"), lines=3, max_length=runs.MAX_NOTE_CHARS, elem_id="run-note"
            )
            self.save = gr.Button(label("naming.save"), scale=0, min_width=120, elem_id="save-run-name")
            self.message = html(elem_id="run-name-message", elem_classes="rl-optional")

    def wire(self, picker: gr.Dropdown) -> Dependency:
        """Fills the fields whenever the picker names another run, so that what is typed about one is kept while it trains.

        Returns:
            The event of a name that was saved.
        """
        picker.change(self.load, picker, [self.fold, self.name, self.note, self.message], **QUIET)
        return self.save.click(self.write, [picker, self.name, self.note], [self.name, self.note, self.message], **QUIET)

    def load(self, run_id: str | None, request: gr.Request) -> dict[Block, Any]:
        self.auth.reads(request, "researcher")
        run = next((run for run in runs.all_runs(self.store) if run.id == run_id), None)
        if run is None:
            return {self.fold: gr.Accordion(visible=False)}
        return {self.fold: gr.Accordion(visible=True), self.name: run.name, self.note: run.note, self.message: EMPTY}

    def write(self, run_id: str | None, name: str | None, note: str | None, request: gr.Request) -> dict[Block, Any]:
        visitor = self.auth.acts(request, "researcher")
        try:
            run = runs.describe(self.store, run_id or "", name=name or "", note=note or "", by=visitor.annotator.id)
        except StoreError as error:
            return {self.message: presenters.notice(presenters.sentence(error), "bad")}
        message = presenters.notice(translator_for(request)("naming.saved"))
        return {self.name: run.name, self.note: run.note, self.message: message}
