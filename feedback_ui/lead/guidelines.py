"""The Guidelines section: write, preview and publish the annotators' guidelines; every version stays readable."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from feedback_ui.lead import guidelines_view
from feedback_ui.lead.section import SectionContext, chosen, listing, names, refusal
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.scripts import in_browser
from feedback_ui.shared.theme import QUIET, html, label, static_text
from storage.core.database import StoreError
from storage.project import guidelines


class GuidelinesSection:
    def __init__(self, context: SectionContext):
        self.store, self.auth = context.store, context.auth
        with gr.Column(elem_classes="rl-action-form") as self.editing:
            with gr.Row(equal_height=True):
                with gr.Column(min_width=300):
                    self.editor = gr.Textbox(
                        label=label("lead.guidelines.text"), info=label("lead.guidelines.text_help"),
                        lines=16, max_lines=40, elem_id="guidelines-text",
                    )  # fmt: skip
                with gr.Column(min_width=300, elem_classes="rl-panel"):
                    html(static_text("lead.guidelines.preview"), elem_classes="rl-subheading")
                    self.preview = html(static_text("lead.guidelines.preview_empty"), elem_id="guidelines-preview")
            self.publish_button = gr.Button(
                label("lead.guidelines.publish"), variant="primary", elem_id="guidelines-publish", scale=0, min_width=160
            )
            self.message = html(elem_id="guidelines-message", elem_classes="rl-optional")
        # What was in the editor when it was loaded, and what is to be in it: the browser compares, because text may be typed meanwhile.
        self.sent, self.loaded = gr.Textbox(visible=False), gr.Textbox(visible=False)
        self.versions = listing(elem_id="guidelines-versions")
        self.viewed = html(elem_id="guidelines-viewed", elem_classes="rl-optional")
        self.shown = [self.editing, self.message, self.versions, self.viewed]

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, None, self.shown, **QUIET)
        loaded = tab.select(self.load, self.editor, [self.sent, self.loaded], **QUIET)
        loaded.then(None, [self.editor, self.sent, self.loaded], self.editor, js=in_browser("keepTyped"))
        # Gradio's `input` comes only with a key press that types a character: not with a paste, a cut, Delete or Backspace.
        self.editor.change(self.show_preview, self.editor, self.preview, trigger_mode="always_last", **QUIET)
        self.publish_button.click(self.publish, self.editor, [self.message, self.versions], **QUIET)
        self.versions.click(self.view, None, self.viewed, **QUIET)

    def open(self, request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.reads(request, "lead"), translator_for(request)
        return {
            self.editing: gr.Column(visible=visitor.may_act("lead")),
            self.message: EMPTY,
            self.versions: self._versions(translate),
            self.viewed: EMPTY,
        }

    def load(self, draft: str, request: gr.Request) -> dict[Component, Any]:
        """The current guidelines for the editor, unless it holds an unpublished draft."""
        self.auth.reads(request, "lead")
        draft, versions = draft or "", guidelines.versions(self.store)
        is_own = draft.strip() not in ("", *(version.text for version in versions))
        return {self.sent: draft, self.loaded: draft if is_own or not versions else versions[0].text}

    def show_preview(self, draft: str, request: gr.Request) -> Markup:
        self.auth.reads(request, "lead")
        return guidelines_view.guideline_preview(translator_for(request), draft or "")

    def publish(self, draft: str, request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        before = guidelines.current(self.store)
        try:
            now = guidelines.publish(self.store, draft or "", visitor.annotator.id)
        except StoreError as error:
            return {self.message: refusal(error)}
        key = "lead.guidelines.unchanged" if before and before.id == now.id else "lead.guidelines.published"
        return {self.message: presenters.notice(translate(key)), self.versions: self._versions(translate)}

    def view(self, event: gr.EventData, request: gr.Request) -> Markup:
        self.auth.reads(request, "lead")
        translate = translator_for(request)
        try:
            _, guidelines_id = chosen(event)
        except StoreError as error:
            return refusal(error)
        every = guidelines.versions(self.store)
        numbered = next(((len(every) - i, g) for i, g in enumerate(every) if g.id == guidelines_id), None)
        return guidelines_view.guideline_version(translate, *numbered) if numbered else EMPTY

    def _versions(self, translate: Translator) -> Markup:
        return guidelines_view.guideline_list(translate, guidelines.versions(self.store), names(self.store))
