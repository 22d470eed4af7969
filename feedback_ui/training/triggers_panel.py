"""The rounds that begin by themselves, on the Training page: the two triggers, where they stand, and a dry run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component
from markupsafe import Markup

from feedback_ui.server.auth import Auth
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.theme import QUIET, FieldTexts, html, label, unchanged
from feedback_ui.training import triggers_view
from feedback_ui.training.form import RoundForm
from rlhf.config import DEFAULT_PRESET, PRESETS, ConfigError
from rlhf.runs import dry_run, triggers
from storage.core.database import Database, StoreError
from storage.project import settings


class TriggersPanel:
    """The fields take the settings `retrain_after_judgments` and `retrain_schedule`; rounds have the options of the form above, as they are
    when the settings are saved."""

    def __init__(self, store: Database, auth: Auth, form: RoundForm, refusal: Callable[[Translator, Exception], str]):
        self.store, self.auth, self.form, self.refusal = store, auth, form, refusal
        with gr.Accordion(label("triggers.title"), open=False, elem_id="triggers"):
            self.after = gr.Number(0, precision=0, minimum=0, **_field("retrain_after_judgments"))
            self.schedule = gr.Textbox("", max_lines=1, placeholder="0 3 * * *", **_field("retrain_schedule"))
            with gr.Row(elem_classes="rl-buttons"):
                self.save = gr.Button(label("triggers.save"), elem_id="save-triggers", scale=0, min_width=120)
                self.try_it = gr.Button(label("triggers.dry_run"), elem_id="dry-run-triggers", scale=0, min_width=120)
            self.state = html(elem_id="triggers-state", elem_classes="rl-optional")
            self.message = html(elem_id="triggers-message", elem_classes="rl-optional")
        self.shown_state = gr.State(None)
        self.followed: list[Block] = [self.state, self.message, self.shown_state]

    def wire(self, tab: gr.Tab, timer: gr.Timer) -> None:
        tab.select(self.open, None, [self.after, self.schedule, *self.followed], **QUIET)
        timer.tick(self.follow, self.shown_state, self.followed, **QUIET)
        self.save.click(self.change, {self.after, self.schedule, *self.form.components}, [self.schedule, *self.followed], **QUIET)
        self.try_it.click(self.try_out, None, self.followed, **QUIET)

    def open(self, request: gr.Request) -> dict[Block, Any]:
        self.auth.reads(request, "researcher")
        now = settings.current(self.store)
        fields: dict[Block, Any] = {self.after: now.retrain_after_judgments, self.schedule: now.retrain_schedule}
        return fields | self.show(translator_for(request))

    def follow(self, shown: tuple[object, ...] | None, request: gr.Request) -> dict[Block, Any]:
        """Handles the timer's tick; nothing is sent again while the store is as it was."""
        self.auth.reads(request, "researcher")
        return unchanged() if shown == triggers.revision(self.store) else self.show(translator_for(request))

    def change(self, values: dict[Component, Any], request: gr.Request) -> dict[Block, Any]:
        visitor, translate = self.auth.acts(request, "researcher"), translator_for(request)
        preset = values[self.form.preset]
        try:
            chosen = triggers.options_of(preset if preset in PRESETS else DEFAULT_PRESET, self.form.read(translate, values))
            triggers.choose(
                self.store,
                visitor.annotator.id,
                after=int(values[self.after] or 0),
                expression=values[self.schedule] or "",
                chosen=chosen,
            )
        except (ConfigError, StoreError) as error:
            return {self.message: presenters.notice(self.refusal(translate, error), "bad")}
        saved = settings.current(self.store)
        return self.show(translate, presenters.notice(translate("triggers.saved"))) | {self.schedule: saved.retrain_schedule}

    def try_out(self, request: gr.Request) -> dict[Block, Any]:
        """Says what a round would do now; starts nothing."""
        self.auth.reads(request, "researcher")
        translate = translator_for(request)
        try:
            would = dry_run.of(self.store, triggers.config_of(settings.current(self.store).retrain_options))
        except ConfigError as error:
            return {self.message: presenters.notice(self.refusal(translate, error), "bad")}
        hindrance = None if would.hindrance is None else self.refusal(translate, ConfigError(would.hindrance))
        return self.show(translate, triggers_view.dry_run(translate, would, hindrance))

    def show(self, translate: Translator, message: Markup = EMPTY) -> dict[Block, Any]:
        """Where the triggers stand, and the message about what was just done, which is gone after the next change."""
        seen = triggers.revision(self.store)
        found = triggers.state(self.store, datetime.now(UTC))
        shown = triggers_view.section(translate, found, settings.current(self.store).retrain_options)
        return {self.state: shown, self.message: message, self.shown_state: seen}


def _field(setting: str) -> FieldTexts:
    key = f"lead.settings.{setting}"
    return {"label": label(f"{key}.label"), "info": label(f"{key}.help"), "elem_id": f"setting-{setting.replace('_', '-')}"}
