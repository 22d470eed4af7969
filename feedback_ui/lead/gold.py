"""The gold comparisons of the Comparisons section. Their right order is known and annotators cannot recognise them, so that the
share of right judgments measures care."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from feedback_ui.lead import gold_view, lead_view
from feedback_ui.lead.section import SectionContext, chosen, listing, ordered, ordering, refusal
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.theme import QUIET, html, label, static_text
from storage.content import comparisons, policies
from storage.core.database import Database, StoreError
from storage.judging import gold


class GoldSection:
    def __init__(self, context: SectionContext):
        self.store, self.auth = context.store, context.auth
        with gr.Column(elem_classes="rl-action-form rl-panel") as self.setting:
            html(static_text("lead.gold.title"), elem_classes="rl-subheading")
            with gr.Row(equal_height=False, elem_classes="rl-one-line"):
                self.number = gr.Number(None, label=label("lead.gold.comparison"), precision=0, min_width=160, elem_id="gold-comparison")
                self.show_button = gr.Button(label("lead.gold.show"), elem_id="gold-show", scale=0, min_width=120)
            self.opened = ordering(elem_id="gold-opened", elem_classes="rl-optional")
            self.note = gr.Textbox(
                label=label("lead.gold.note"), info=label("lead.gold.note_help"), max_lines=2, visible=False, elem_id="gold-note"
            )
        self.message = html(elem_id="gold-message", elem_classes="rl-optional")
        self.list = listing(elem_id="gold-list")
        self.asked = [self.opened, self.note, self.message]
        self.shown = [self.setting, self.number, *self.asked, self.list]

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, None, self.shown, **QUIET)
        gr.on([self.show_button.click, self.number.submit], self.show, self.number, self.asked, **QUIET)
        self.opened.click(self.set_answer, self.note, [self.message, self.list], **QUIET)
        self.list.click(self.choose, None, [self.number, *self.asked], **QUIET)

    def open(self, request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.reads(request, "lead"), translator_for(request)
        return {
            self.setting: gr.Column(visible=visitor.may_act("lead")),
            self.number: None,
            **dict.fromkeys((self.opened, self.message), EMPTY),
            self.note: gr.Textbox("", visible=False),
            self.list: self._list(translate, acts=visitor.may_act("lead")),
        }

    def show(self, number: int | None, request: gr.Request) -> dict[Component, Any]:
        self.auth.acts(request, "lead")
        translate = translator_for(request)
        try:
            if number is None:
                raise StoreError(translate("lead.gold.no_number"))
            comparison = comparisons.get(self.store, int(number))
        except StoreError as error:
            return {self.opened: EMPTY, self.note: gr.Textbox("", visible=False), self.message: refusal(error)}
        known = gold.answer(self.store, comparison.id)
        versions = {version.id: version for version in policies.all_versions(self.store)}
        return {
            self.opened: gold_view.ordering(translate, comparison, versions, known),
            self.note: gr.Textbox("", visible=True),
            self.message: EMPTY,
        }

    def choose(self, event: gr.EventData, request: gr.Request) -> dict[Component, Any]:
        self.auth.acts(request, "lead")
        try:
            _, number = chosen(event)
        except StoreError as error:
            return {self.message: refusal(error)}
        return {self.number: number, **self.show(number, request)}

    def set_answer(self, note: str, event: gr.EventData, request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        try:
            saved = save_order(self.store, translate, event, visitor.annotator.id, note or "")
        except (gold_view.BadOrder, StoreError) as error:
            return {self.message: refusal(error)}
        return {self.message: saved or EMPTY, self.list: self._list(translate, acts=True)}

    def _list(self, translate: Translator, *, acts: bool) -> Markup:
        known = gold.answers(self.store)
        gold_comparisons = comparisons.many(self.store, list(known))
        return gold_view.gold_list(translate, gold_comparisons, known, gold.results(self.store), acts=acts)


def save_order(store: Database, translate: Translator, event: gr.EventData, by: int, note: str = "") -> Markup | None:
    """Makes the comparison that was ordered in place gold, and says so; None if the click was another one.

    Raises:
        BadOrder: an answer has no place.
        StoreError: the order ties all answers, or there is no such comparison.
    """
    if (found := ordered(event)) is None:
        return None
    comparison = comparisons.get(store, found[0])
    tiers = gold_view.tiers_of(translate, found[1], comparison)
    gold.set_answer(store, comparison.id, tiers, by, note)
    return presenters.notice(translate("lead.gold.saved", number=comparison.id, order=lead_view.letters(comparison, tiers)))
