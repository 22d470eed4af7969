"""The Audit section: who did what and when, newest first, one page at a time."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from feedback_ui.lead import audit_view
from feedback_ui.lead.section import SectionContext, names
from feedback_ui.shared import presenters
from feedback_ui.shared.i18n import translator_for
from feedback_ui.shared.scripts import in_browser
from feedback_ui.shared.theme import QUIET, html, label
from storage.people import audit

PAGE_ROWS = 50
EVERY = ""
"""The choice of a field that leaves no act out."""


class AuditSection:
    def __init__(self, context: SectionContext):
        self.store, self.auth = context.store, context.auth
        self.skipped = gr.State(0)
        self.place = gr.Textbox(visible=False)
        with gr.Row(equal_height=False):
            self.who = gr.Dropdown([EVERY], value=EVERY, label=label("lead.audit.who"), min_width=200, elem_id="audit-who")
            self.did = gr.Dropdown([EVERY], value=EVERY, label=label("lead.audit.did"), min_width=200, elem_id="audit-did")
        self.entries = html(elem_id="audit-entries")
        with gr.Row(elem_classes="rl-buttons"):
            self.newer = gr.Button(label("lead.audit.newer"), elem_id="audit-newer", scale=0, min_width=120, interactive=False)
            self.older = gr.Button(label("lead.audit.older"), elem_id="audit-older", scale=0, min_width=120, interactive=False)
        self.page = [self.skipped, self.entries, self.newer, self.older]
        self.shown = [self.who, self.did, *self.page]

    def wire(self, tab: gr.Tab) -> None:
        chosen = [self.who, self.did]
        tab.select(self.enter, [self.place, *chosen], self.shown, js=in_browser("auditPlace"), **QUIET)
        gr.on([self.who.input, self.did.input], None, chosen, js=in_browser("rememberAudit"))
        gr.on([self.who.input, self.did.input], self.filter, chosen, self.page, **QUIET)
        self.newer.click(self.show_newer, [self.skipped, self.who, self.did], self.page, **QUIET)
        self.older.click(self.show_older, [self.skipped, self.who, self.did], self.page, **QUIET)

    def open(self, request: gr.Request) -> dict[Component, Any]:
        """Shows the section with every act."""
        return self.open_at("", request)

    def open_at(self, place: str, request: gr.Request) -> dict[Component, Any]:
        """Shows the acts that the end of an address names: `3`, `3/excluded` or `all/excluded`; every act if it is empty."""
        who, _, did = place.strip("/").partition("/")
        by = int(who) if who.isdecimal() and len(who) < 16 else EVERY if who == "all" else who
        choices, translate = self._choices(request), translator_for(request)
        wanted: dict[Component, int | str] = {self.who: by, self.did: did}
        known = {field: value if value in {each for _, each in choices[field]} else EVERY for field, value in wanted.items()}
        shown = self._page(request, 0, 0, known[self.who], str(known[self.did]))
        if known != wanted:
            shown[self.entries] = presenters.notice(translate("lead.audit.unknown"), "warn") + shown[self.entries]
        return {**{field: gr.Dropdown(choices[field], value=value) for field, value in known.items()}, **shown}

    def enter(self, place: str | None, who: int | str | None, did: str | None, request: gr.Request) -> dict[Component, Any]:
        """Shows the section: what the address names, if it was opened by that.

        Otherwise what was chosen stays: another section may have chosen whose acts are shown.
        """
        if place:
            return self.open_at(place, request)
        choices = self._choices(request)
        return {**{field: gr.Dropdown(offered) for field, offered in choices.items()}, **self._page(request, 0, 0, who, did)}

    def choose(self, annotator_id: int, request: gr.Request) -> dict[Component, Any]:
        """Chooses whose acts are shown. The choices go with it, because the section may not have been open yet."""
        return {self.who: gr.Dropdown(self._choices(request)[self.who], value=annotator_id)}

    def filter(self, who: int | str | None, did: str | None, request: gr.Request) -> dict[Component, Any]:
        return self._page(request, 0, 0, who, did)

    def show_newer(self, skipped: int, who: int | str | None, did: str | None, request: gr.Request) -> dict[Component, Any]:
        return self._page(request, skipped, -PAGE_ROWS, who, did)

    def show_older(self, skipped: int, who: int | str | None, did: str | None, request: gr.Request) -> dict[Component, Any]:
        return self._page(request, skipped, PAGE_ROWS, who, did)

    def _choices(self, request: gr.Request) -> dict[Component, list[tuple[str, Any]]]:
        self.auth.reads(request, "lead")
        translate = translator_for(request)
        people = [(name, number) for number, name in names(self.store).items()]
        acts = [(translate(f"lead.audit.act.{act.replace(' ', '_')}"), act) for act in audit.ACTS]
        return {
            self.who: [(translate("lead.audit.everybody"), EVERY), *people],
            self.did: [(translate("lead.audit.everything"), EVERY), *acts],
        }

    def _page(self, request: gr.Request, skipped: int, step: int, who: int | str | None, did: str | None) -> dict[Component, Any]:
        self.auth.reads(request, "lead")
        skip = max(0, skipped + step)
        by = who if isinstance(who, int) else None
        entries = audit.entries(self.store, by=by, act=did or None, skip=skip, limit=PAGE_ROWS + 1)
        return {
            self.skipped: skip,
            self.entries: audit_view.audit_list(translator_for(request), entries[:PAGE_ROWS], names(self.store)),
            self.newer: gr.Button(interactive=skip > 0),
            self.older: gr.Button(interactive=len(entries) > PAGE_ROWS),
        }
