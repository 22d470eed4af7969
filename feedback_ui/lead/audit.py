"""The Audit section: who did what and when, newest first, one page at a time."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from feedback_ui.lead import audit_view
from feedback_ui.lead.section import SectionContext, names
from feedback_ui.shared.i18n import translator_for
from feedback_ui.shared.theme import QUIET, html, label
from storage.people import audit

PAGE_ROWS = 50


class AuditSection:
    def __init__(self, context: SectionContext):
        self.store, self.auth = context.store, context.auth
        self.skipped = gr.State(0)
        self.entries = html(elem_id="audit-entries")
        with gr.Row(elem_classes="rl-buttons"):
            self.newer = gr.Button(label("lead.audit.newer"), elem_id="audit-newer", scale=0, min_width=120, interactive=False)
            self.older = gr.Button(label("lead.audit.older"), elem_id="audit-older", scale=0, min_width=120, interactive=False)
        self.shown = [self.skipped, self.entries, self.newer, self.older]

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, None, self.shown, **QUIET)
        self.newer.click(self.show_newer, self.skipped, self.shown, **QUIET)
        self.older.click(self.show_older, self.skipped, self.shown, **QUIET)

    def open(self, request: gr.Request) -> dict[Component, Any]:
        return self._page(request, 0, 0)

    def show_newer(self, skipped: int, request: gr.Request) -> dict[Component, Any]:
        return self._page(request, skipped, -PAGE_ROWS)

    def show_older(self, skipped: int, request: gr.Request) -> dict[Component, Any]:
        return self._page(request, skipped, PAGE_ROWS)

    def _page(self, request: gr.Request, skipped: int, step: int) -> dict[Component, Any]:
        self.auth.reads(request, "lead")
        skip = max(0, skipped + step)
        entries = audit.entries(self.store, skip=skip, limit=PAGE_ROWS + 1)
        return {
            self.skipped: skip,
            self.entries: audit_view.audit_list(translator_for(request), entries[:PAGE_ROWS], names(self.store)),
            self.newer: gr.Button(interactive=skip > 0),
            self.older: gr.Button(interactive=len(entries) > PAGE_ROWS),
        }
