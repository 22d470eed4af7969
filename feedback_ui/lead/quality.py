"""The Quality section: agreement and reliability of the annotators, overall, by annotator and by comparison."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from feedback_ui.lead import quality_view
from feedback_ui.lead.gold import save_order
from feedback_ui.lead.gold_view import BadOrder
from feedback_ui.lead.section import SectionContext, chosen, listing, names, ordering, refusal
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY, fragment
from feedback_ui.shared.i18n import translator_for
from feedback_ui.shared.scripts import in_browser
from feedback_ui.shared.theme import QUIET, html, label, unchanged
from rlhf.analysis import agreement, drift, style, target
from rlhf.data import reliability
from storage.analytics.stats import judgments_by_day, stats
from storage.content import comparisons, policies, prompts
from storage.core.database import StoreError
from storage.judging import gold, history, queue
from storage.project import settings

ITEMS = 20


class QualitySection:
    def __init__(self, context: SectionContext):
        self.store, self.auth = context.store, context.auth
        self.target = html(elem_id="quality-target", elem_classes="rl-optional")
        self.counts = html(elem_id="quality-counts", elem_classes="rl-min-height")
        self.people = listing(elem_id="quality-people", elem_classes="rl-optional")
        self.simulated = gr.Checkbox(False, label=label("lead.quality.include_simulated"), container=False, elem_id="quality-simulated")
        self.overview = html(elem_id="quality-overview", elem_classes="rl-min-height-tall")
        self.annotators = listing(elem_id="quality-annotators", elem_classes="rl-optional")
        self.reliability = listing(elem_id="quality-reliability", elem_classes="rl-optional")
        self.items = listing(elem_id="quality-items", elem_classes="rl-optional")
        self.item = ordering(elem_id="quality-item", elem_classes="rl-optional")
        self.figures = [self.target, self.counts, self.people, self.overview, self.annotators, self.reliability, self.items]
        self.shown = [*self.figures, self.item]

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, None, self.shown, **QUIET)
        self.simulated.input(self.include, self.simulated, self.figures, **QUIET)
        self.items.click(self.open_item, None, self.item, **QUIET).then(None, js=in_browser("showQualityItem"))
        self.item.click(self.order_item, None, self.item, **QUIET)

    def open(self, request: gr.Request) -> dict[Component, Any]:
        return {**self._figures(request, False), self.item: EMPTY}

    def include(self, simulated: bool, request: gr.Request) -> dict[Component, Any]:
        return self._figures(request, bool(simulated))

    def open_item(self, event: gr.EventData, request: gr.Request) -> Markup:
        self.auth.reads(request, "lead")
        try:
            return self.comparison(chosen(event)[1], request)
        except StoreError as error:
            return refusal(error)

    def order_item(self, event: gr.EventData, request: gr.Request) -> Any:
        """Makes the open comparison gold, in the order in which its answers were put."""
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        try:
            if (said := save_order(self.store, translate, event, visitor.annotator.id)) is None:
                return unchanged()
        except (BadOrder, StoreError) as error:
            said = refusal(error)
        return self.comparison(chosen(event)[1], request, said)

    def comparison(self, number: int, request: gr.Request, said: Markup = EMPTY) -> Markup:
        """A comparison with all judgments of it."""
        visitor, translate = self.auth.reads(request, "lead"), translator_for(request)
        try:
            comparison = comparisons.get(self.store, number)
        except StoreError as error:
            return refusal(error)
        versions = {version.id: version for version in policies.all_versions(self.store)}
        judged = history.of_comparison(self.store, comparison.id)
        return quality_view.item(
            translate, comparison, judged, versions, names(self.store), acts=visitor.may_act("lead"),
            known=gold.answer(self.store, comparison.id), said=said,
        )  # fmt: skip

    def _figures(self, request: gr.Request, simulated: bool) -> dict[Component, Any]:
        visitor, translate = self.auth.reads(request, "lead"), translator_for(request)
        report = agreement.report(self.store, include_simulated=simulated)
        left_out = presenters.starters_left_out(translate, prompts.unused_starter_votes(self.store))
        drifts = drift.of_store(self.store, include_simulated=simulated)
        day = datetime.now(UTC).date()
        today = judgments_by_day(self.store, last=day, days=1)[0]
        return {
            self.target: quality_view.target(translate, target.of_store(self.store, day), settings.current(self.store).daily_goal),
            self.counts: quality_view.counts(
                translate,
                comparisons=stats(self.store)["comparisons"],
                waiting=queue.depth(self.store),
                today=today.people + (today.simulated if simulated else 0),
                report=report,
            ),
            self.people: quality_view.people(translate, report.annotators, drifts, acts=visitor.may_act("lead")),
            self.overview: fragment(
                quality_view.overview(translate, report, style.longer_share(self.store, include_simulated=simulated)), left_out
            ),
            self.annotators: quality_view.annotator_table(translate, report.annotators, acts=visitor.may_act("lead")),
            self.reliability: quality_view.reliability_table(
                translate, reliability.of_store(self.store, include_simulated=simulated, report=report), drifts
            ),
            self.items: quality_view.item_table(translate, agreement.items(self.store, ITEMS, include_simulated=simulated))
            if report.judgments
            else EMPTY,
        }
