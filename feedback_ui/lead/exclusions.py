"""The Exclusions section: excludes judgments from the votes, with a rule and a reason that the annotator sees."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from feedback_ui.lead import exclusions_view, lead_view
from feedback_ui.lead.section import SectionContext, chosen, listing, names, refusal
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.theme import QUIET, html, label, static_text
from storage.core.database import StoreError
from storage.core.records import Exclusion
from storage.judging import exclusions, gold
from storage.people import annotators


class ExclusionsSection:
    def __init__(self, context: SectionContext):
        self.store, self.auth = context.store, context.auth
        with gr.Column(elem_classes="rl-action-form rl-panel") as self.excluding:
            html(static_text("lead.exclusions.add_title"), elem_classes="rl-subheading")
            with gr.Row(equal_height=False):
                self.annotator = gr.Dropdown(
                    [], label=label("lead.exclusions.annotator"), info=label("lead.exclusions.annotator_help"), min_width=220,
                    elem_id="exclude-annotator",
                )  # fmt: skip
                self.since = gr.Textbox(
                    label=label("lead.exclusions.since"), info=label("lead.exclusions.since_help"), max_lines=1, min_width=160,
                    elem_id="exclude-since",
                )  # fmt: skip
                self.judgment = gr.Textbox(
                    label=label("lead.exclusions.judgment"), info=label("lead.exclusions.judgment_help"), max_lines=1, min_width=160,
                    elem_id="exclude-judgment",
                )  # fmt: skip
            with gr.Row(equal_height=False):
                self.rule = gr.Dropdown(
                    list(exclusions_view.EXCLUSION_RULES), label=label("lead.exclusions.rule"), info=label("lead.exclusions.rule_help"),
                    allow_custom_value=True, value=exclusions_view.EXCLUSION_RULES[0], min_width=220, elem_id="exclude-rule",
                )  # fmt: skip
                self.reason = gr.Textbox(
                    label=label("lead.exclusions.reason"), info=label("lead.exclusions.reason_help"), scale=2, min_width=280,
                    max_lines=4, elem_id="exclude-reason",
                )  # fmt: skip
            self.effect = html(elem_id="exclude-effect", elem_classes="rl-optional")
            with gr.Row(elem_classes="rl-buttons"):
                self.exclude_button = gr.Button(
                    label("lead.exclusions.exclude"), variant="primary", elem_id="exclude", scale=0, min_width=160
                )
                self.failure_button = gr.Button(
                    label("lead.exclusions.since_failure"), elem_id="exclude-since-failure", scale=0, min_width=160
                )
        self.message = html(elem_id="exclusions-message", elem_classes="rl-optional")
        self.lifted = gr.State(None)
        with gr.Column(visible=False, elem_classes="rl-action-form rl-panel", elem_id="exclusion-lift") as self.lifting:
            self.which = html(elem_id="lift-which")
            self.lift_reason = gr.Textbox(label=label("lead.exclusions.lift_reason"), max_lines=3, elem_id="lift-reason")
            self.lift_button = gr.Button(label("lead.exclusions.lift"), variant="primary", elem_id="lift", scale=0, min_width=160)
        self.list = listing(elem_id="exclusions-list")
        self.lift_fields = [self.lifted, self.lifting, self.which, self.lift_reason]
        self.form = [self.annotator, self.since, self.judgment, self.rule, self.reason]
        self.shown = [self.excluding, *self.form, self.effect, self.message, *self.lift_fields, self.list]

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, None, self.shown, **QUIET)
        named = [self.annotator, self.since, self.judgment]
        gr.on(
            [self.annotator.change, self.since.change, self.judgment.change],
            self.foresee,
            named,
            self.effect,
            trigger_mode="always_last",
            **QUIET,
        )
        self.exclude_button.click(self.exclude, self.form, [self.since, self.judgment, self.reason, self.message, self.list], **QUIET)
        self.failure_button.click(self.fill_since, self.annotator, [self.since, self.rule, self.message], **QUIET)
        self.list.click(self.choose, None, [self.message, *self.lift_fields], **QUIET)
        self.lift_button.click(self.lift, [self.lifted, self.lift_reason], [self.message, self.list, *self.lift_fields], **QUIET)

    def open(self, request: gr.Request) -> dict[Component, Any]:
        """Shows the section. Typed values stay, because `begin` may have filled the form in."""
        visitor, translate = self.auth.reads(request, "lead"), translator_for(request)
        everybody = [(a.name, a.id) for a in annotators.all_annotators(self.store)]
        return {
            self.excluding: gr.Column(visible=visitor.may_act("lead")),
            self.annotator: gr.Dropdown(everybody),
            self.rule: gr.Dropdown([(exclusions_view.rule(translate, r), r) for r in exclusions_view.EXCLUSION_RULES]),
            self.message: EMPTY,
            **self._closed(),
            self.list: self._list(translate, acts=visitor.may_act("lead")),
        }

    def begin(self, event: gr.EventData, request: gr.Request) -> dict[Component, Any]:
        """Shows the form, filled in from the row of another table."""
        self.auth.acts(request, "lead")
        opened = self.open(request)
        try:
            act, row = chosen(event)
        except StoreError as error:
            return opened | {self.message: refusal(error)}
        everybody = [(a.name, a.id) for a in annotators.all_annotators(self.store)]
        return opened | {
            self.annotator: gr.Dropdown(everybody, value=row if act == "exclude" else None),
            self.judgment: str(row) if act == "exclude-one" else "",
            self.since: "",
        }

    def foresee(self, annotator_id: int | None, since: str, judgment: str, request: gr.Request) -> Markup:
        """Says what would stop counting, before it does."""
        self.auth.reads(request, "lead")
        translate = translator_for(request)
        try:
            ids = self._named(translate, annotator_id, since, judgment)
        except (ValueError, StoreError):
            # The form is not filled in yet; what is wrong with it is said when it is used.
            return EMPTY
        return exclusions_view.effect(translate, exclusions.effect(self.store, ids))

    def _named(self, translate: Translator, annotator_id: int | None, since: str, judgment: str) -> list[int]:
        """The judgments that the form names: by their numbers, or else all counting ones of the chosen annotator."""
        if (judgment or "").strip():
            return _numbers(translate, judgment)
        if annotator_id is None:
            raise ValueError(translate("lead.exclusions.nothing_chosen"))
        return exclusions.ids_of_annotator(self.store, annotator_id, _day(translate, since))

    def fill_since(self, annotator_id: int | None, request: gr.Request) -> dict[Component, Any]:
        """Fills in the time of the annotator's first wrong judgment of a gold comparison."""
        self.auth.acts(request, "lead")
        translate = translator_for(request)
        if annotator_id is None:
            return {self.message: presenters.notice(translate("lead.exclusions.nothing_chosen"), "bad")}
        failed_at = gold.first_failure(self.store, annotator_id)
        if failed_at is None:
            return {self.message: presenters.notice(translate("lead.exclusions.no_failure"))}
        return {self.since: failed_at, self.rule: "gold accuracy", self.message: EMPTY}

    def exclude(
        self, annotator_id: int | None, since: str, judgment: str, rule: str, reason: str, request: gr.Request
    ) -> dict[Component, Any]:
        """Excludes the judgments whose numbers are given, or else all counting judgments of the chosen annotator."""
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        rule, reason, by = rule or "", reason or "", visitor.annotator.id
        try:
            ids = self._named(translate, annotator_id, since, judgment)
            made = exclusions.exclude(self.store, ids, rule=rule, reason=reason, by=by)
        except (ValueError, StoreError) as error:
            return {self.message: refusal(error)}
        return {
            **dict.fromkeys((self.since, self.judgment, self.reason), ""),
            self.message: presenters.notice(translate("lead.exclusions.excluded", count=made.judgments)),
            self.list: self._list(translate, acts=True),
        }

    def choose(self, event: gr.EventData, request: gr.Request) -> dict[Component, Any]:
        """Opens the form that asks for the reason for lifting an exclusion."""
        self.auth.acts(request, "lead")
        translate = translator_for(request)
        try:
            exclusion = exclusions.get(self.store, chosen(event)[1])
        except StoreError as error:
            return {self.message: refusal(error)}
        return {
            self.lifted: exclusion.id,
            self.lifting: gr.Column(visible=True),
            self.which: lead_view.heading(self._title(translate, exclusion)),
            self.lift_reason: "",
            self.message: EMPTY,
        }

    def lift(self, exclusion_id: int | None, reason: str, request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        try:
            if exclusion_id is None:
                raise ValueError(translate("lead.exclusions.nothing_to_lift"))
            exclusions.lift(self.store, exclusion_id, reason=reason or "", by=visitor.annotator.id)
        except (ValueError, StoreError) as error:
            return {self.message: refusal(error)}
        return {
            **self._closed(),
            self.message: presenters.notice(translate("lead.exclusions.was_lifted", number=exclusion_id)),
            self.list: self._list(translate, acts=True),
        }

    def _title(self, translate: Translator, exclusion: Exclusion) -> str:
        return translate("lead.exclusions.lift_title", number=exclusion.id, rule=exclusions_view.rule(translate, exclusion.rule))

    def _list(self, translate: Translator, *, acts: bool) -> Markup:
        return exclusions_view.exclusion_list(translate, exclusions.all_exclusions(self.store), names(self.store), acts=acts)

    def _closed(self) -> dict[Component, Any]:
        return {self.lifted: None, self.lifting: gr.Column(visible=False), self.lift_reason: ""}


def _numbers(translate: Translator, typed: str) -> list[int]:
    """Judgment ids from text such as `12` or `12, 15`."""
    parts = [part.strip().removeprefix("#") for part in typed.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(translate("lead.exclusions.no_number", found=typed.strip()))
    return [int(part) for part in parts]


def _day(translate: Translator, typed: str) -> str:
    """Checks that the text is a day or a time in ISO 8601 (UTC), or empty."""
    typed = (typed or "").strip()
    try:
        datetime.fromisoformat(typed or "2000-01-01")
        return typed
    except ValueError:
        raise ValueError(translate("lead.exclusions.no_day", found=typed)) from None
