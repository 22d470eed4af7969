"""The Prompts section: adding prompts from files or typed, imports and undoing one, and prompts that a model refused.

`prompt_browser` lists the prompts.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, cast

import gradio as gr
from gradio.components import Component

from feedback_ui.lead import imports_view, prompts_view
from feedback_ui.lead.running_imports import RunningImports
from feedback_ui.lead.section import SectionContext, chosen, listing, names, refusal
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.theme import QUIET, html, label, static_text
from storage.content import prompts, refusals
from storage.core.database import StoreError
from storage.exchange import detect, encodings, formats, import_records, imports, maps, undos
from storage.exchange.limits import Limits
from storage.exchange.rows import Item

SPLITS = ("auto", "train", "heldout")
RECOGNISED = "recognised"
"""The choice of format that leaves it to the fields of the rows."""
FORMATS = [name for name in formats.READABLE if name != formats.NATIVE]

POLL_S = 2.0
"""Seconds between two updates of a running import."""

FILE_TYPES = [".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt", ".md", ".parquet", ".arrow", ".gz", ".bz2", ".xz", ".zst", ".zip"]


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
                    self.format = gr.Dropdown(
                        [RECOGNISED, *FORMATS], value=RECOGNISED,
                        label=label("lead.prompts.format"), info=label("lead.prompts.format_help"), elem_id="prompts-format",
                    )  # fmt: skip
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
                            "imported", label=label("lead.prompts.kind"), max_lines=1, min_width=150, elem_id="prompts-kind"
                        )
                        self.split = gr.Dropdown(
                            list(SPLITS), value="auto", label=label("lead.prompts.split"), filterable=False, min_width=190,
                            elem_id="prompts-split",
                        )  # fmt: skip
                    self.add_button = gr.Button(label("lead.prompts.add"), variant="primary", elem_id="prompts-add", scale=0, min_width=160)
        self.running_imports = RunningImports()
        self.running = listing(elem_id="imports-running", elem_classes="rl-optional")
        self.timer = gr.Timer(POLL_S, active=False)
        self.message = html(elem_id="prompts-message", elem_classes="rl-optional")
        self.refused = listing(elem_id="prompt-refusals", elem_classes="rl-optional")
        self.imports = listing(elem_id="prompt-imports", elem_classes="rl-optional")
        self.changed = [self.message, self.refused, self.imports]
        self.progress = [self.running, self.timer]
        self.shown = [self.adding, self.format, self.split, *self.changed, *self.progress]
        self.changes: list[Any] = []
        """The events after which other prompts may be there."""

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, None, self.shown, **QUIET)
        # The browser calls the handlers of one event one after the other, and that of an import or an undo returns only when it is
        # done: what lets the page follow it comes first.
        self.imports.click(self.watch, None, self.timer, **QUIET)
        undone = self.imports.click(self.undo, None, [*self.changed, *self.progress], **QUIET)
        self.file.upload(self.watch, None, self.timer, **QUIET)
        imported = self.file.upload(
            self.import_file, [self.file, self.format, self.map, self.encoding, self.look], [*self.changed, *self.progress], **QUIET
        )
        self.timer.tick(self.follow, None, self.progress, **QUIET)
        self.running.click(self.stop, None, self.progress, **QUIET)
        self.refused.click(self.retry, None, self.changed, **QUIET)
        typed = self.add_button.click(self.add_lines, [self.lines, self.kind, self.split], [self.lines, *self.changed], **QUIET)
        self.changes = [undone, imported, typed]

    def open(self, request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.reads(request, "lead"), translator_for(request)
        acts = visitor.may_act("lead")
        return {
            self.adding: gr.Column(visible=acts),
            self.format: gr.Dropdown([(translate("lead.prompts.format_recognised"), RECOGNISED), *((name, name) for name in FORMATS)]),
            self.split: gr.Dropdown([(translate(f"lead.prompts.split_{split}"), split) for split in SPLITS]),
            self.message: EMPTY,
            **self._now(translate, acts=acts),
            **self._progress(translate, acts=acts),
        }

    def retry(self, event: gr.EventData, request: gr.Request) -> dict[Component, Any]:
        """Lets every model be asked again for a prompt."""
        _, translate = self.auth.acts(request, "lead"), translator_for(request)
        try:
            _, prompt_id = chosen(event)
        except StoreError as error:
            return {self.message: refusal(error)}
        refusals.clear(self.store, [prompt_id])
        return {self.message: EMPTY, **self._now(translate, acts=True)}

    def import_file(self, path: str | None, format: str, map: str, encoding: str, look: bool, request: gr.Request) -> dict[Component, Any]:
        """Imports the valid rows of a file; each invalid row is reported with its reason.

        The format is recognised, unless it was chosen or a map says which field is what. With `look` the file is only read.
        """
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        if not path:
            return {self.message: presenters.notice(translate("lead.prompts.no_file"), "bad")}
        try:
            limits = Limits(encoding=encodings.check_encoding(encoding.strip()) if encoding and encoding.strip() else None)
            # Only a saved map, or the entries of one: a path would let the page read any file.
            mapping = maps.given(map.strip(), self.store.path.parent) if map and map.strip() else None
            if mapping and format != RECOGNISED:
                return {self.message: presenters.notice(translate("lead.prompts.format_or_map"), "bad")}
            recognised = detect.recognise_file(path, limits) if not mapping and format == RECOGNISED else None
            format = "map" if mapping else recognised.format if recognised else format
            if look:
                first: list[Item] = []
                reasons: Counter[str] = Counter()

                def keep(item: Item) -> None:
                    if len(first) < imports_view.SHOWN_FIRST_ROWS:
                        first.append(item)

                report = imports.look(
                    self.store, path, format, recognised=recognised is not None, mapping=mapping, limits=limits, item_read=keep,
                    wrong_row=lambda _, reason: reasons.update([reason]),
                )  # fmt: skip
                return {self.message: imports_view.preview(translate, report, recognised, format, first, reasons)}
            with self.running_imports.run(Path(path).name) as running:
                _, report = imports.import_file(
                    self.store, path, format, recognised=recognised is not None, mapping=mapping, by=visitor.annotator.id, limits=limits,
                    progress=running.advance, rolling_back=running.roll_back,
                )  # fmt: skip
        except detect.Unrecognised as error:
            return {self.message: imports_view.unrecognised(translate, error)}
        except StoreError as error:
            return {self.message: imports_view.refused(translate, error), **self._progress(translate, acts=True)}
        message = imports_view.import_report(translate, report, recognised, format)
        return {self.message: message, **self._now(translate, acts=True), **self._progress(translate, acts=True)}

    def watch(self, request: gr.Request) -> gr.Timer:
        """Lets the page follow the import that begins at the same time."""
        self.auth.acts(request, "lead")
        self.running_imports.await_one()
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
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        typed = [line.strip() for line in (lines or "").splitlines() if line.strip()]
        if not typed:
            return {self.message: presenters.notice(translate("lead.prompts.no_lines"), "bad")}
        of_all = {"kind": (kind or "").strip() or "imported", "split": split if split in ("train", "heldout") else None}
        try:
            rows = [{"prompt": line, **of_all} for line in typed]
            _, report = imports.import_rows(self.store, rows, "prompts", source="typed", by=visitor.annotator.id)
        except StoreError as error:
            return {self.message: refusal(error)}
        return {self.lines: "", self.message: imports_view.import_report(translate, report), **self._now(translate, acts=True)}

    def undo(self, event: gr.EventData, request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        try:
            _, import_id = chosen(event)
            with self.running_imports.run(import_records.get(self.store, import_id).source) as running:
                undos.undo(self.store, import_id, by=visitor.annotator.id, progress=running.roll_back)
        except StoreError as error:
            return {self.message: imports_view.refused(translate, error)}
        undone = presenters.notice(translate("lead.prompts.was_undone", number=import_id))
        return {self.message: undone, **self._now(translate, acts=True), **self._progress(translate, acts=True)}

    def _progress(self, translate: Translator, *, acts: bool) -> dict[Component, Any]:
        running = self.running_imports.all()
        return {
            self.running: imports_view.running_imports(translate, running, acts=acts),
            self.timer: gr.Timer(active=bool(running) or self.running_imports.is_awaited),
        }

    def _now(self, translate: Translator, *, acts: bool) -> dict[Component, Any]:
        refused = refusals.all_refusals(self.store)
        asked = prompts.many(self.store, [one.prompt_id for one in refused])
        return {
            self.refused: prompts_view.refused_prompts(translate, refused, asked, acts=acts),
            self.imports: imports_view.import_list(translate, import_records.all_imports(self.store), names(self.store), acts=acts),
        }
