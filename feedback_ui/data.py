"""The Data page: counts of everything in the store, people's judgments and simulated ones separately."""

from __future__ import annotations

from datetime import UTC, datetime

import gradio as gr
from markupsafe import Markup

from feedback_ui.server.auth import Auth
from feedback_ui.shared import presenters
from feedback_ui.shared.i18n import translator_for
from feedback_ui.shared.theme import QUIET, html
from storage.analytics.stats import judgments_by_day, stats
from storage.core.database import Database

CHART_DAYS = 28
"""The days that the chart of judgments covers."""


class DataPage:
    def __init__(self, store: Database, auth: Auth):
        self.store = store
        self.auth = auth
        self.overview = html(elem_id="data-overview")

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.show, outputs=self.overview, **QUIET)

    def show(self, request: gr.Request) -> Markup:
        visitor = self.auth.reads(request, "annotator")
        days = judgments_by_day(self.store, last=datetime.now(UTC).date(), days=CHART_DAYS)
        return presenters.overview(translator_for(request), stats(self.store), days, blind=not visitor.may_read("lead"))
