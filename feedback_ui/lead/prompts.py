"""The Prompts section: counts by kind and split, imports from a file or from typed lines, and undoing an import."""

from __future__ import annotations

from typing import Any, cast

import gradio as gr
from gradio.components import Component

from feedback_ui.lead import lead_view
from feedback_ui.lead.section import SectionContext, chosen, listing, names, refusal
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.theme import QUIET, html, label, static_text
from storage.content import prompts
from storage.core.database import StoreError
from storage.exchange import detect, encodings, imports, maps
from storage.exchange.limits import Limits

SPLITS = ("auto", "train", "heldout")
FILE_TYPES = [".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".gz", ".bz2", ".xz", ".zst", ".zip"]


class PromptsSection:
    def __init__(self, context: SectionContext):
        self.store, self.auth = context.store, context.auth
        with gr.Column(elem_classes="rl-action-form rl-panel") as self.adding:
            html(static_text("lead.prompts.add_title"), elem_classes="rl-subheading")
            with gr.Row(equal_height=False):
                with gr.Column(min_width=280):
                    self.file = gr.UploadButton(
                        # Gradio takes a text by language here too, and does not say so.
                        cast(str, label("lead.prompts.choose_file")),
                        file_types=FILE_TYPES,
                        file_count="single",
                        elem_id="prompts-file",
                    )
                    html(static_text("lead.prompts.file_help"), elem_classes="rl-muted rl-small")
                    self.map = gr.Textbox(
                        label=label("lead.prompts.map"), info=label("lead.prompts.map_help"), max_lines=1, elem_id="prompts-map"
                    )
                    with gr.Row(equal_height=False):
                        self.encoding = gr.Textbox(
                            label=label("lead.prompts.encoding"), info=label("lead.prompts.encoding_help"), max_lines=1, min_width=120,
                            elem_id="prompts-encoding",
                        )  # fmt: skip
                        self.look = gr.Checkbox(
                            label=label("lead.prompts.look"), info=label("lead.prompts.look_help"), min_width=120, elem_id="prompts-look"
                        )
                with gr.Column(min_width=280):
                    self.lines = gr.Textbox(
                        label=label("lead.prompts.lines"), info=label("lead.prompts.lines_help"), lines=4, max_lines=16,
                        elem_id="prompts-lines",
                    )  # fmt: skip
                    with gr.Row(equal_height=False):
                        self.kind = gr.Textbox(
                            "imported", label=label("lead.prompts.kind"), max_lines=1, min_width=120, elem_id="prompts-kind"
                        )
                        self.split = gr.Dropdown(
                            list(SPLITS), value="auto", label=label("lead.prompts.split"), filterable=False, min_width=120,
                            elem_id="prompts-split",
                        )  # fmt: skip
                    self.add_button = gr.Button(label("lead.prompts.add"), variant="primary", elem_id="prompts-add", scale=0, min_width=160)
        self.message = html(elem_id="prompts-said", elem_classes="rl-optional")
        self.counts = html(elem_id="prompt-counts")
        self.imports = listing(elem_id="prompt-imports", elem_classes="rl-optional")
        self.shown = [self.counts, self.adding, self.message, self.split, self.imports]
        self.changed = [self.message, self.counts, self.imports]

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, None, self.shown, **QUIET)
        self.imports.click(self.undo, None, self.changed, **QUIET)
        self.file.upload(self.import_file, [self.file, self.map, self.encoding, self.look], self.changed, **QUIET)
        self.add_button.click(self.add_lines, [self.lines, self.kind, self.split], [self.lines, *self.changed], **QUIET)

    def open(self, request: gr.Request) -> dict[Component, Any]:
        visitor, words = self.auth.reads(request, "lead"), translator_for(request)
        acts = visitor.may_act("lead")
        return {
            self.adding: gr.Column(visible=acts),
            self.split: gr.Dropdown([(words(f"lead.prompts.split_{split}"), split) for split in SPLITS]),
            self.message: EMPTY,
            **self._now(words, acts=acts),
        }

    def import_file(self, path: str | None, map: str, encoding: str, look: bool, request: gr.Request) -> dict[Component, Any]:
        """Imports the valid rows of a file; each invalid row is reported with its reason.

        The format is recognised, unless a map says which field is what. With `look` the file is only read, and nothing imported.
        """
        visitor, words = self.auth.acts(request, "lead"), translator_for(request)
        if not path:
            return {self.message: presenters.notice(words("lead.prompts.no_file"), "bad")}
        try:
            limits = Limits(encoding=encodings.check_encoding(encoding.strip()) if encoding and encoding.strip() else None)
            # Only a saved map, or the entries of one: a path would let the page read any file.
            mapping = maps.given(map.strip(), self.store.path.parent) if map and map.strip() else None
            recognised = None if mapping else detect.recognise_file(path, limits)
            format = recognised.format if recognised else "map"
            if look:
                report = imports.look(self.store, path, format, mapping=mapping, limits=limits)
                return {self.message: lead_view.preview(words, report, recognised)}
            _, report = imports.import_file(self.store, path, format, mapping=mapping, by=visitor.annotator.id, limits=limits)
        except StoreError as error:
            return {self.message: refusal(error)}
        return {self.message: lead_view.import_report(words, report, recognised, format), **self._now(words, acts=True)}

    def add_lines(self, lines: str, kind: str, split: str, request: gr.Request) -> dict[Component, Any]:
        """Imports typed text, one prompt per line."""
        visitor, words = self.auth.acts(request, "lead"), translator_for(request)
        typed = [line.strip() for line in (lines or "").splitlines() if line.strip()]
        if not typed:
            return {self.message: presenters.notice(words("lead.prompts.no_lines"), "bad")}
        of_all = {"kind": (kind or "").strip() or "imported", "split": split if split in ("train", "heldout") else None}
        try:
            rows = [{"prompt": line, **of_all} for line in typed]
            _, report = imports.import_rows(self.store, rows, "prompts", source="typed", by=visitor.annotator.id)
        except StoreError as error:
            return {self.message: refusal(error)}
        return {self.lines: "", self.message: lead_view.import_report(words, report), **self._now(words, acts=True)}

    def undo(self, event: gr.EventData, request: gr.Request) -> dict[Component, Any]:
        visitor, words = self.auth.acts(request, "lead"), translator_for(request)
        try:
            _, import_id = chosen(event)
            imports.undo(self.store, import_id, by=visitor.annotator.id)
        except StoreError as error:
            return {self.message: refusal(error)}
        undone = presenters.notice(words("lead.prompts.was_undone", number=import_id))
        return {self.message: undone, **self._now(words, acts=True)}

    def _now(self, words: Translator, *, acts: bool) -> dict[Component, Any]:
        return {
            self.counts: lead_view.prompt_counts(words, prompts.by_kind(self.store)),
            self.imports: lead_view.import_list(words, imports.all_imports(self.store), names(self.store), acts=acts),
        }
