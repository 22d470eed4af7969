"""The Export section: judgments in every format that `rankloop export` writes, as a file to download."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from feedback_ui.lead import export_view
from feedback_ui.lead.controls import by_controls
from feedback_ui.lead.running_exports import RunningExports, Wanted, check
from feedback_ui.lead.section import SectionContext, listing, refusal
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.theme import QUIET, html, label, static_text
from storage.core.database import StoreError
from storage.exchange import formats

USUAL = "trl"
"""The format that `rankloop export` writes if none is named."""

OPTIONS = ("include_simulated", "names", "strict", "packed", "raw_cells")
"""The fields of `Wanted` that a checkbox sets."""

POLL_S = 1.5


class ExportSection:
    def __init__(self, context: SectionContext):
        self.store, self.auth = context.store, context.auth
        self.exports = RunningExports()
        with gr.Column(elem_classes="rl-action-form rl-panel") as self.asking:
            html(static_text("lead.exports.title"), elem_classes="rl-subheading")
            self.format = gr.Dropdown(
                formats.WRITABLE, value=USUAL, label=label("lead.exports.format"), info=label("lead.exports.format_help"),
                elem_id="export-format",
            )  # fmt: skip
            self.holds = html(elem_id="export-holds", elem_classes="rl-optional")
            self.options = gr.CheckboxGroup(list(OPTIONS), label=label("lead.exports.options"), elem_id="export-options")
            self.start_button = gr.Button(label("lead.exports.start"), variant="primary", elem_id="export-start", scale=0, min_width=160)
        self.status = listing(elem_id="export-status", elem_classes="rl-optional")
        self.timer = gr.Timer(POLL_S, active=False)
        self.going = [self.status, self.start_button, self.timer]
        self.shown = [self.asking, self.format, self.holds, self.options, *self.going]

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, None, self.shown, **QUIET)
        self.format.input(self.choose_format, [self.format, self.options], [self.holds, self.options], **QUIET)
        self.start_button.click(self.start, [self.format, self.options], self.going, **QUIET)
        self.status.click(self.stop, None, self.going, **QUIET)
        self.timer.tick(self.follow, self.status, self.going, **QUIET)

    def open(self, request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.reads(request, "lead"), translator_for(request)
        return {
            self.asking: gr.Column(visible=visitor.may_act("lead")),
            self.format: USUAL,
            **self._chosen(translate, USUAL, []),
            **self._now(translate, visitor.annotator.id),
        }

    def choose_format(self, format: str | None, options: list[str], request: gr.Request) -> dict[Component, Any]:
        """Says what the format holds, and offers the options that it has."""
        self.auth.reads(request, "lead")
        return self._chosen(translator_for(request), format or USUAL, options or [])

    def start(self, format: str | None, options: list[str], request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        try:
            wanted = Wanted(format or "", **{name: name in (options or []) for name in OPTIONS})
            self.exports.start(self.store, visitor.annotator.id, wanted)
        except (StoreError, OSError) as error:
            return {self.status: refusal(error, partial(by_controls, translate))}
        return self._now(translate, visitor.annotator.id)

    def stop(self, request: gr.Request) -> dict[Component, Any]:
        visitor = self.auth.acts(request, "lead")
        self.exports.stop(visitor.annotator.id)
        return self._now(translator_for(request), visitor.annotator.id)

    def follow(self, shown: str, request: gr.Request) -> dict[Component, Any]:
        """Handles the timer's tick; an unchanged status is not sent again."""
        visitor = self.auth.reads(request, "lead")
        update = self._now(translator_for(request), visitor.annotator.id)
        if update[self.status] == shown:
            del update[self.status]
        return update

    def _chosen(self, translate: Translator, format: str, options: list[str]) -> dict[Component, Any]:
        fitting = [name for name in OPTIONS if _fits(format, name)]
        return {
            self.holds: export_view.holds(translate, format) if format in formats.WRITABLE else EMPTY,
            self.options: gr.CheckboxGroup(
                [(translate(f"lead.exports.option.{name}"), name) for name in fitting],
                value=[name for name in options if name in fitting], visible=bool(fitting),
            ),
        }  # fmt: skip

    def _now(self, translate: Translator, owner: int) -> dict[Component, Any]:
        running = self.exports.of(owner)
        going = running is not None and not running.is_over
        # The page goes on looking while a file waits, so that it says when it was fetched.
        waits = running is not None and running.is_over and running.path.exists()
        return {
            self.status: export_view.status(translate, running),
            self.start_button: gr.Button(interactive=not going),
            self.timer: gr.Timer(active=going or waits),
        }


def _fits(format: str, option: str) -> bool:
    """Whether an export of this format takes the option."""
    if format == formats.NATIVE:
        return False
    try:
        check(Wanted(format, **{option: True}))
    except StoreError:
        return False
    return True
