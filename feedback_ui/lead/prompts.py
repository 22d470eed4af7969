"""The Prompts section: adding prompts from files or typed, imports and undoing one, and prompts that a model refused.

`prompt_browser` lists the prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from feedback_ui.lead import imports_view, prompts_view
from feedback_ui.lead.running_imports import RunningImports
from feedback_ui.lead.section import SectionContext, chosen, listing, names, refusal
from feedback_ui.server import uploads
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.theme import QUIET, html, label, static_text
from storage.content import prompts, refusals
from storage.core.database import StoreError
from storage.exchange import detect, encodings, formats, import_records, imports, maps, undos
from storage.exchange.field_maps import FieldMap
from storage.exchange.limits import Limits
from storage.exchange.rows import Item
from storage.project import settings

SPLITS = ("auto", "train", "heldout")
RECOGNISED = "recognised"
"""The choice of format that leaves it to the fields of the rows."""
FORMATS = [name for name in formats.READABLE if name != formats.NATIVE]

POLL_S = 2.0
"""Seconds between two updates of a running import."""

FILE_TYPES = [".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt", ".md", ".parquet", ".arrow", ".gz", ".bz2", ".xz", ".zst", ".zip"]


@dataclass(frozen=True, slots=True)
class Upload:
    """A file, and how it is to be read: what the fields of the form say."""

    path: Path
    format: str
    map: str
    encoding: str


def drop(kept: Upload | None) -> None:
    """Deletes the file of a preview. Also called when the page's session ends."""
    if kept is not None:
        uploads.drop(kept.path)


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
        self.kept = gr.State(None, delete_callback=drop)
        with gr.Column(visible=False, elem_id="prompts-kept") as self.deciding:
            self.kept_name = html(elem_id="prompts-kept-name", elem_classes="rl-muted rl-small")
            with gr.Row(elem_classes="rl-buttons"):
                self.import_button = gr.Button(
                    label("lead.prompts.import_kept"), variant="primary", elem_id="prompts-import-kept", scale=0, min_width=160
                )
                self.look_again_button = gr.Button(label("lead.prompts.look_again"), elem_id="prompts-look-again", scale=0, min_width=160)
                self.cancel_button = gr.Button(label("lead.prompts.cancel_kept"), elem_id="prompts-cancel-kept", scale=0, min_width=120)
        self.refused = listing(elem_id="prompt-refusals", elem_classes="rl-optional")
        self.imports = listing(elem_id="prompt-imports", elem_classes="rl-optional")
        self.changed = [self.message, self.refused, self.imports]
        self.progress = [self.running, self.timer]
        self.decision = [self.kept, self.deciding, self.kept_name, self.import_button]
        self.shown = [self.adding, self.format, self.split, *self.changed, *self.progress]
        self.changes: list[Any] = []
        """The events after which other prompts may be there."""

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, None, self.shown, **QUIET)
        # The browser calls the handlers of one event one after the other, and that of an import or an undo returns only when it is
        # done: what lets the page follow it comes first.
        self.imports.click(self.watch, None, self.timer, **QUIET)
        undone = self.imports.click(self.undo, None, [*self.changed, *self.progress], **QUIET)
        self.file.upload(self.forget, self.kept, [self.message, *self.decision], **QUIET)
        self.file.upload(self.watch, None, self.timer, **QUIET)
        how = [self.format, self.map, self.encoding]
        outcome = [*self.changed, *self.progress, *self.decision]
        imported = self.file.upload(self.import_file, [self.file, *how, self.look], outcome, **QUIET)
        self.import_button.click(self.watch, None, self.timer, **QUIET)
        decided = self.import_button.click(self.import_kept, self.kept, outcome, **QUIET)
        self.look_again_button.click(self.look_again, [self.kept, *how], [self.message, *self.decision], **QUIET)
        self.cancel_button.click(self.forget, self.kept, [self.message, *self.decision], **QUIET)
        self.timer.tick(self.follow, None, self.progress, **QUIET)
        self.running.click(self.stop, None, self.progress, **QUIET)
        self.refused.click(self.retry, None, self.changed, **QUIET)
        typed = self.add_button.click(self.add_lines, [self.lines, self.kind, self.split], [self.lines, *self.changed], **QUIET)
        self.changes = [undone, imported, decided, typed]

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

        The format is recognised, unless it was chosen or a map says which field is what. With `look` the file is only read, and kept
        so that it can be imported without being uploaded again.
        """
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        if not path:
            return {self.message: presenters.notice(translate("lead.prompts.no_file"), "bad")}
        upload = Upload(Path(path), format, (map or "").strip(), (encoding or "").strip())
        if not look:
            return self._import(translate, upload, visitor.annotator.id)
        try:
            kept = uploads.keep(self.store, visitor.annotator.id, upload.path)
        except StoreError as error:
            return {self.message: refusal(error)}
        return self._look(translate, replace(upload, path=kept))

    def look_again(self, kept: Upload | None, format: str, map: str, encoding: str, request: gr.Request) -> dict[Component, Any]:
        """Reads the file of the preview as the fields say now."""
        self.auth.acts(request, "lead")
        translate = translator_for(request)
        if kept is None or not kept.path.is_file():
            return self._gone(translate)
        return self._look(translate, Upload(kept.path, format, (map or "").strip(), (encoding or "").strip()))

    def import_kept(self, kept: Upload | None, request: gr.Request) -> dict[Component, Any]:
        """Imports the file of the preview, as it was read there, and deletes it."""
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        if kept is None or not kept.path.is_file():
            return self._gone(translate)
        try:
            return {**self._import(translate, kept, visitor.annotator.id), **self._undecided()}
        finally:
            drop(kept)

    def forget(self, kept: Upload | None, request: gr.Request) -> dict[Component, Any]:
        """Deletes the file of the preview."""
        self.auth.acts(request, "lead")
        drop(kept)
        return {self.message: EMPTY, **self._undecided()}

    def _import(self, translate: Translator, upload: Upload, by: int) -> dict[Component, Any]:
        def read() -> Markup:
            mapping, recognised, format, limits = self._recognised(translate, upload)
            with self.running_imports.run(upload.path.name) as running:
                _, report = imports.import_file(
                    self.store, upload.path, format, recognised=recognised is not None, mapping=mapping, by=by, limits=limits,
                    progress=running.advance, rolling_back=running.roll_back,
                )  # fmt: skip
            left_out = presenters.starters_left_out(translate, prompts.unused_starter_votes(self.store))
            return imports_view.import_report(translate, report, recognised, format) + left_out

        message, done = self._said(translate, read)
        return {self.message: message, **(self._now(translate, acts=True) if done else {}), **self._progress(translate, acts=True)}

    def _look(self, translate: Translator, upload: Upload) -> dict[Component, Any]:
        first: list[Item] = []
        reasons: Counter[str] = Counter()

        def keep(item: Item) -> None:
            if len(first) < imports_view.SHOWN_FIRST_ROWS:
                first.append(item)

        def read() -> Markup:
            mapping, recognised, format, limits = self._recognised(translate, upload)
            report = imports.look(
                self.store, upload.path, format, recognised=recognised is not None, mapping=mapping, limits=limits, item_read=keep,
                wrong_row=lambda _, reason: reasons.update([reason]),
            )  # fmt: skip
            choice = settings.current(self.store).starters
            ending = imports_view.starters_would_end(translate, prompts.starters(self.store), choice)
            return imports_view.preview(translate, report, recognised, format, first, reasons) + ending

        message, done = self._said(translate, read, kept=True)
        return {
            self.message: message,
            self.kept: upload,
            self.deciding: gr.Column(visible=True),
            self.kept_name: imports_view.kept(translate, upload.path.name),
            self.import_button: gr.Button(interactive=done),
        }

    def _recognised(self, translate: Translator, upload: Upload) -> tuple[FieldMap | None, detect.Recognised | None, str, Limits]:
        """How a file is read: a map or a format, recognised or given, and its limits.

        Raises:
            StoreError: both were given, or neither can be found.
        """
        limits = Limits(encoding=encodings.check_encoding(upload.encoding) if upload.encoding else None)
        # Only a saved map, or the entries of one: a path would let the page read any file.
        mapping = maps.given(upload.map, self.store.path.parent) if upload.map else None
        if mapping and upload.format != RECOGNISED:
            raise StoreError(translate("lead.prompts.format_or_map"))
        if mapping or upload.format != RECOGNISED:
            return mapping, None, "map" if mapping else upload.format, limits
        recognised = detect.recognise_file(upload.path, limits)
        return None, recognised, recognised.format, limits

    def _said(self, translate: Translator, read: Callable[[], Markup], *, kept: bool = False) -> tuple[Markup, bool]:
        """What came of reading a file, and whether it was read."""
        try:
            return read(), True
        except detect.Unrecognised as error:
            return imports_view.unrecognised(translate, error, kept=kept), False
        except StoreError as error:
            return imports_view.refused(translate, error), False

    def _undecided(self) -> dict[Component, Any]:
        return {self.kept: None, self.deciding: gr.Column(visible=False)}

    def _gone(self, translate: Translator) -> dict[Component, Any]:
        return {self.message: presenters.notice(translate("lead.prompts.kept_gone"), "bad"), **self._undecided()}

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
        left_out = presenters.starters_left_out(translate, prompts.unused_starter_votes(self.store))
        message = imports_view.import_report(translate, report) + left_out
        return {self.lines: "", self.message: message, **self._now(translate, acts=True)}

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
