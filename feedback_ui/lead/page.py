"""The Lead page: its sections as sub-tabs, and the links between them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gradio as gr
from gradio.components import Component

from feedback_ui.lead.accounts import AccountsSection
from feedback_ui.lead.audit import AuditSection
from feedback_ui.lead.comparisons import BatchesSection
from feedback_ui.lead.exclusions import ExclusionsSection
from feedback_ui.lead.export import ExportSection
from feedback_ui.lead.gold import GoldSection
from feedback_ui.lead.guidelines import GuidelinesSection
from feedback_ui.lead.prompt_browser import PromptBrowserSection
from feedback_ui.lead.prompts import PromptsSection
from feedback_ui.lead.quality import QualitySection
from feedback_ui.lead.section import SectionContext, chosen, ordering
from feedback_ui.lead.settings import SettingsSection
from feedback_ui.server.auth import Auth
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import translator_for
from feedback_ui.shared.scripts import in_browser
from feedback_ui.shared.theme import QUIET, html, label, unchanged
from rlhf.serving.client import PolicyClient
from storage.core.database import Database, StoreError

SECTIONS: dict[str, tuple[Callable[[SectionContext], Any], ...]] = {
    "quality": (QualitySection,),
    "exclusions": (ExclusionsSection,),
    "prompts": (PromptsSection, PromptBrowserSection),
    "comparisons": (BatchesSection, GoldSection),
    "export": (ExportSection,),
    "guidelines": (GuidelinesSection,),
    "settings": (SettingsSection,),
    "accounts": (AccountsSection,),
    "audit": (AuditSection,),
}
"""The sections of each sub-tab, from top to bottom."""


class LeadPage:
    def __init__(self, store: Database, client: PolicyClient, auth: Auth):
        self.auth = auth
        context = SectionContext(store, client, auth)
        self.reading = html(elem_id="lead-reading", elem_classes="rl-optional")
        self.linked_item = ordering(elem_id="lead-linked", elem_classes="rl-optional")
        self.sections: dict[str, list[Any]] = {}
        self.section_tabs: dict[str, gr.Tab] = {}
        with gr.Tabs(elem_id="lead-sections") as self.tabs:
            for name, parts in SECTIONS.items():
                with gr.Tab(label(f"lead.tab.{name}"), id=name, elem_id=f"lead-{name}") as self.section_tabs[name]:
                    self.sections[name] = [part(context) for part in parts]
        self.where = gr.Textbox(visible=False)
        self.linked = gr.Number(None, visible=False)
        self.follow = gr.Button(visible="hidden", elem_id="lead-follow")

    def wire(self, tab: gr.Tab) -> None:
        everything = [part for parts in self.sections.values() for section in parts for part in section.shown]
        shown = [self.reading, self.linked_item, *everything]
        # `follow` is pressed when the address changes while the page is open, by Back or by a link.
        for event in (tab.select, self.follow.click):
            entered = event(self.enter, [self.where, self.linked], shown, js=in_browser("leadPlace"), trigger_mode="always_last", **QUIET)
            entered.then(None, js=in_browser("showLinkedComparison"))
        for section_tab in self.section_tabs.values():
            section_tab.select(None, js=in_browser("rememberSection"))
        for name, parts in self.sections.items():
            for section in parts:
                section.wire(self.section_tabs[name])
        adding, browser = self.sections["prompts"]
        for change in adding.changes:
            change.then(browser.refresh, {*browser.fields}, [*browser.fields, *browser.changed], **QUIET)
        quality, exclusions = self.sections["quality"][0], self.sections["exclusions"][0]
        for table in (quality.item, self.linked_item):
            table.click(self.exclude_from, None, [self.tabs, *exclusions.shown], **QUIET)
        audit = self.sections["audit"][0]
        for table in (quality.people, quality.annotators):
            chosen_person = table.click(self.from_person, None, [self.tabs, audit.who, *exclusions.shown], **QUIET)
            filtered = chosen_person.then(audit.filter, [audit.who, audit.did], audit.page, **QUIET)
            filtered.then(None, [audit.who, audit.did], js=in_browser("openedAudit"))
        self.linked_item.click(quality.order_item, None, self.linked_item, **QUIET)

    def enter(self, where: str, linked: int | None, request: gr.Request) -> dict[Component, Any]:
        """Opens the page: updates the sub-tab that is open, by default the first.

        A comparison that the address names is shown above the sub-tabs.
        """
        visitor = self.auth.reads(request, "lead")
        name, _, rest = (where or "").partition("/")
        parts, audit = self.sections.get(name, self.sections["quality"]), self.sections["audit"][0]
        note = EMPTY if visitor.may_act("lead") else presenters.notice(translator_for(request)("lead.read_only"))
        opened: dict[Component, Any] = {self.reading: note}
        for section in parts:
            opened |= section.open_at(rest, request) if section is audit else section.open(request)
        quality = self.sections["quality"][0]
        return opened | {self.linked_item: EMPTY if linked is None else quality.comparison(int(linked), request)}

    def exclude_from(self, event: gr.EventData, request: gr.Request) -> Any:
        """Opens the exclusion form, filled from an annotator or from one of their judgments."""
        self.auth.acts(request, "lead")
        with suppress(StoreError):
            if chosen(event)[0] not in ("exclude", "exclude-one"):
                return unchanged()
        return {self.tabs: gr.Tabs(selected="exclusions"), **self.sections["exclusions"][0].begin(event, request)}

    def from_person(self, event: gr.EventData, request: gr.Request) -> Any:
        """Shows what an annotator did, in the audit, or opens the exclusion form for their votes."""
        self.auth.reads(request, "lead")
        try:
            act, annotator_id = chosen(event)
        except StoreError:
            return unchanged()
        if act == "judgments":
            return {self.tabs: gr.Tabs(selected="audit"), **self.sections["audit"][0].choose(annotator_id, request)}
        return self.exclude_from(event, request)
