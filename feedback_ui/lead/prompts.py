"""The Prompts section: counts by kind and split, imports from a file or from typed lines, and undoing an import."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import gradio as gr
from gradio.components import Component

from feedback_ui.lead import lead_view
from feedback_ui.lead.running_imports import RunningImports
from feedback_ui.lead.section import SectionContext, chosen, listing, names, refusal
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.theme import QUIET, html, label, static_text
from storage.content import prompts
from storage.core.database import StoreError
from storage.exchange import detect, imports

SPLITS = ("auto", "train", "heldout")
POLL_S = 2.0
"""Seconds between two looks at an import that is under way."""

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
        self.running_imports = RunningImports()
        self.running = listing(elem_id="imports-running", elem_classes="rl-optional")
        self.timer = gr.Timer(POLL_S, active=False)
        self.message = html(elem_id="prompts-said", elem_classes="rl-optional")
        self.counts = html(elem_id="prompt-counts")
        self.imports = listing(elem_id="prompt-imports", elem_classes="rl-optional")
        self.progress = [self.running, self.timer]
        self.shown = [self.counts, self.adding, self.message, self.split, self.imports, *self.progress]
        self.changed = [self.message, self.counts, self.imports]

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, None, self.shown, **QUIET)
        self.imports.click(self.undo, None, self.changed, **QUIET)
        self.file.upload(self.import_file, self.file, [*self.changed, *self.progress], **QUIET)
        # Beside it, because the import answers when it is done.
        self.file.upload(self.watch, None, self.timer, **QUIET)
        self.timer.tick(self.follow, None, self.progress, **QUIET)
        self.running.click(self.stop, None, self.progress, **QUIET)
        self.add_button.click(self.add_lines, [self.lines, self.kind, self.split], [self.lines, *self.changed], **QUIET)

    def open(self, request: gr.Request) -> dict[Component, Any]:
        visitor, words = self.auth.reads(request, "lead"), translator_for(request)
        acts = visitor.may_act("lead")
        return {
            self.adding: gr.Column(visible=acts),
            self.split: gr.Dropdown([(words(f"lead.prompts.split_{split}"), split) for split in SPLITS]),
            self.message: EMPTY,
            **self._now(words, acts=acts),
            **self._progress(words, acts=acts),
        }

    def import_file(self, path: str | None, request: gr.Request) -> dict[Component, Any]:
        """Imports the valid rows of a file, whose format is recognised; each invalid row is reported with its reason."""
        visitor, words = self.auth.acts(request, "lead"), translator_for(request)
        if not path:
            return {self.message: presenters.notice(words("lead.prompts.no_file"), "bad")}
        try:
            with self.running_imports.run(Path(path).name) as running:
                recognised = detect.recognise_file(path)
                _, report = imports.import_file(
                    self.store, path, recognised.format, by=visitor.annotator.id, progress=running.advance, taking_back=running.take_back
                )
        except StoreError as error:
            return {self.message: refusal(error), **self._progress(words, acts=True)}
        said = lead_view.import_report(words, report, recognised)
        return {self.message: said, **self._now(words, acts=True), **self._progress(words, acts=True)}

    def watch(self, request: gr.Request) -> gr.Timer:
        """Lets the page follow the import that begins at the same time."""
        self.auth.acts(request, "lead")
        return gr.Timer(active=True)

    def follow(self, request: gr.Request) -> dict[Component, Any]:
        """Handles the timer's tick."""
        visitor = self.auth.reads(request, "lead")
        return self._progress(translator_for(request), acts=visitor.may_act("lead"))

    def stop(self, event: gr.EventData, request: gr.Request) -> dict[Component, Any]:
        """Stops an import. Its own answer then says that nothing was imported."""
        self.auth.acts(request, "lead")
        try:
            self.running_imports.stop(chosen(event)[1])
        except StoreError as error:
            return {self.running: refusal(error)}
        return self._progress(translator_for(request), acts=True)

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

    def _progress(self, words: Translator, *, acts: bool) -> dict[Component, Any]:
        running = self.running_imports.all()
        return {self.running: lead_view.running_imports(words, running, acts=acts), self.timer: gr.Timer(active=bool(running))}

    def _now(self, words: Translator, *, acts: bool) -> dict[Component, Any]:
        return {
            self.counts: lead_view.prompt_counts(words, prompts.by_kind(self.store)),
            self.imports: lead_view.import_list(words, imports.all_imports(self.store), names(self.store), acts=acts),
        }
