"""The Data page: how much of everything there is, people's judgments and simulated ones apart."""

from __future__ import annotations

import gradio as gr

from feedback_ui import presenters
from feedback_ui.theme import QUIET, html
from storage.database import Database
from storage.stats import stats


class DataPage:
    def __init__(self, store: Database):
        self.store = store
        self.overview = html(elem_id="data-overview")

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.show, outputs=self.overview, **QUIET)

    def show(self) -> str:
        return presenters.overview(stats(self.store))
