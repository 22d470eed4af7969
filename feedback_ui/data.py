"""The Data page: how much of everything there is, people's judgments and simulated ones apart."""

from __future__ import annotations

from datetime import UTC, datetime

import gradio as gr

from feedback_ui import presenters
from feedback_ui.gate import Gate
from feedback_ui.theme import QUIET, html
from feedback_ui.words import words_of
from storage.database import Database
from storage.stats import judgments_by_day, stats

DAYS = 28
"""How far back the picture of judgments reaches."""


class DataPage:
    def __init__(self, store: Database):
        self.store = store
        self.gate = Gate(store)
        self.overview = html(elem_id="data-overview")

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.show, outputs=self.overview, **QUIET)

    def show(self, request: gr.Request) -> str:
        visitor = self.gate.reads(request, "annotator")
        days = judgments_by_day(self.store, last=datetime.now(UTC).date(), days=DAYS)
        return presenters.overview(words_of(request), stats(self.store), days, blind=not visitor.may_read("lead"))
