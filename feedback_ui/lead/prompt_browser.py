"""The list of prompts in the Prompts section: search and filters, a preview, editing as a new version, retiring, the starter prompts."""

from __future__ import annotations

from typing import Any, cast

import gradio as gr
from gradio.components import Component

from feedback_ui.lead import prompts_view
from feedback_ui.lead.prompt_filter import EVERY, PromptFilterFields
from feedback_ui.lead.section import SectionContext, chosen, listing, refusal
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.theme import QUIET, html, label, static_text
from storage.content import prompt_list, prompts
from storage.core.database import StoreError
from storage.core.records import PromptFilter
from storage.judging import prompt_use
from storage.project import settings

STARTERS = ("auto", "on", "off")
STATES = ("in_use", "retired", "unused_starter")


class PromptBrowserSection:
    def __init__(self, context: SectionContext):
        self.store, self.auth = context.store, context.auth
        html(static_text("lead.prompts.list"), elem_classes="rl-subheading")
        self.counts = html(elem_id="prompt-counts")
        self.starters = gr.Dropdown(
            list(STARTERS), value="auto", label=label("lead.settings.starters.label"), info=label("lead.settings.starters.help"),
            filterable=False, elem_id="prompts-starters",
        )  # fmt: skip
        self.starters_now = html(elem_id="prompts-starters-now")
        with gr.Row(equal_height=False):
            self.filter = PromptFilterFields("prompts-list")
            self.state = gr.Dropdown(
                [EVERY, *STATES], value=EVERY, label=label("lead.prompts.import_state"), filterable=False, min_width=150,
                elem_id="prompts-list-state",
            )  # fmt: skip
        self.message = html(elem_id="prompt-message", elem_classes="rl-optional")
        self.opened = gr.State(None)
        with gr.Column(visible=False, elem_classes="rl-action-form rl-panel", elem_id="prompt-opened") as self.opening:
            self.preview = html(elem_id="prompt-preview")
            self.text = gr.Textbox(
                label=label("lead.prompts.edit_text"), info=label("lead.prompts.edit_help"), lines=3, max_lines=20, elem_id="prompt-text"
            )
            with gr.Row(elem_classes="rl-buttons"):
                self.save = gr.Button(label("lead.prompts.save_version"), variant="primary", elem_id="prompt-save", scale=0, min_width=160)
                self.close_button = gr.Button(label("lead.prompts.close"), elem_id="prompt-close", scale=0, min_width=120)
        self.list = listing(elem_id="prompt-list")
        self.fields = [*self.filter.fields, self.state]
        self.changed = [self.message, self.counts, self.starters_now, self.list]
        self.open_fields = [self.opened, self.opening, self.preview, self.text, self.save]
        self.shown = [self.starters, *self.fields, *self.changed, *self.open_fields]

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, None, self.shown, **QUIET)
        chooses = [
            self.filter.kind.input, self.filter.import_id.input, self.filter.split.input, self.filter.text.change, self.state.input,
        ]  # fmt: skip
        gr.on(chooses, self.search, {*self.fields}, self.list, trigger_mode="always_last", **QUIET)
        self.starters.input(self.choose_starters, {self.starters, *self.fields}, self.changed, **QUIET)
        self.list.click(self.press, {*self.fields}, [*self.changed, *self.open_fields], **QUIET)
        self.save.click(self.edit, {self.opened, self.text, *self.fields}, [*self.changed, *self.open_fields], **QUIET)
        self.close_button.click(self.close, None, self.open_fields, **QUIET)

    def open(self, request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.reads(request, "lead"), translator_for(request)
        acts = visitor.may_act("lead")
        states = [(translate(f"lead.prompts.state_{state}"), state) for state in STATES]
        return {
            self.starters: gr.Dropdown(
                [(translate(f"lead.settings.starters.{choice}"), choice) for choice in STARTERS],
                value=settings.current(self.store).starters,
                interactive=acts,
            ),
            **self.filter.open(self.store, translate),
            self.state: gr.Dropdown([(translate("lead.prompts.every_state"), EVERY), *states], value=EVERY),
            self.message: EMPTY,
            **self._closed(),
            **self._now(translate, {}, acts=acts),
        }

    def refresh(self, values: dict[Component, Any], request: gr.Request) -> dict[Component, Any]:
        """Shows the prompts as they are now, after an import for instance."""
        visitor, translate = self.auth.reads(request, "lead"), translator_for(request)
        kept = {field: value for field, value in self.filter.open(self.store, translate).items() if field is not self.filter.text}
        # The choices are new; what was chosen stays.
        choices = {field: gr.Dropdown(update.choices, value=values[field]) for field, update in kept.items()}
        return {**choices, **self._now(translate, values, acts=visitor.may_act("lead"))}

    def search(self, values: dict[Component, Any], request: gr.Request) -> str:
        """Lists the chosen prompts."""
        visitor = self.auth.reads(request, "lead")
        return self._listed(translator_for(request), values, acts=visitor.may_act("lead"))

    def press(self, values: dict[Component, Any], event: gr.EventData, request: gr.Request) -> dict[Component, Any]:
        """Opens a prompt, retires it or brings it back."""
        visitor, translate = self.auth.reads(request, "lead"), translator_for(request)
        try:
            act, prompt_id = chosen(event)
            if act == "open":
                return {self.message: EMPTY, **self._opened(translate, prompt_id, acts=visitor.may_act("lead"))}
            visitor = self.auth.acts(request, "lead")
            if act not in ("retire", "restore"):
                raise StoreError("This table has no such row: reload the page.")
            (prompt_use.retire if act == "retire" else prompt_use.restore)(self.store, [prompt_id], visitor.annotator.id)
        except StoreError as error:
            return {self.message: refusal(error)}
        return {self.message: EMPTY, **self._closed(), **self._now(translate, values, acts=True)}

    def edit(self, values: dict[Component, Any], request: gr.Request) -> dict[Component, Any]:
        """Replaces the open prompt by one with the typed text."""
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        prompt_id = values.get(self.opened)
        try:
            if prompt_id is None:
                raise StoreError(translate("lead.prompts.nothing_open"))
            new = prompt_use.edit(self.store, prompt_id, values[self.text] or "", visitor.annotator.id)
        except StoreError as error:
            return {self.message: refusal(error)}
        said = presenters.notice(translate("lead.prompts.edited", old=prompt_id, new=new.id))
        return {**self._now(translate, values, acts=True), self.message: said, **self._opened(translate, new.id, acts=True)}

    def close(self, request: gr.Request) -> dict[Component, Any]:
        self.auth.reads(request, "lead")
        return self._closed()

    def choose_starters(self, values: dict[Component, Any], request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        try:
            prompt_use.use_starters(self.store, cast(Any, values[self.starters]), visitor.annotator.id)
        except StoreError as error:
            return {self.message: refusal(error)}
        return {self.message: EMPTY, **self._now(translate, values, acts=True)}

    def _opened(self, translate: Translator, prompt_id: int, *, acts: bool) -> dict[Component, Any]:
        found = prompt_list.get(self.store, prompt_id)
        judged = prompt_list.count_judgments(self.store, prompt_id)
        return {
            self.opened: found.prompt.id,
            self.opening: gr.Column(visible=True),
            self.preview: prompts_view.prompt_opened(translate, found, judged),
            self.text: gr.Textbox(found.prompt.text, visible=acts),
            self.save: gr.Button(visible=acts),
        }

    def _closed(self) -> dict[Component, Any]:
        return {self.opened: None, self.opening: gr.Column(visible=False)}

    def _listed(self, translate: Translator, values: dict[Component, Any], *, acts: bool) -> str:
        state = values.get(self.state) if values.get(self.state) in STATES else None
        wanted = self.filter.chosen(values) if values else PromptFilter()
        found = prompt_list.search(self.store, wanted, state=state, limit=prompts_view.SHOWN_PROMPTS)
        return prompts_view.prompts_listed(translate, found, prompt_list.count(self.store, wanted, state=state), acts=acts)

    def _now(self, translate: Translator, values: dict[Component, Any], *, acts: bool) -> dict[Component, Any]:
        return {
            self.counts: prompts_view.prompt_counts(translate, prompts.by_kind(self.store)),
            self.starters_now: prompts_view.starters_now(translate, prompts.starters(self.store)),
            self.list: self._listed(translate, values, acts=acts),
        }
