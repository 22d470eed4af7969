"""The Demo page's gallery: a run's held-out prompts before and after tuning, at `#gallery-RUN`. It needs no policy server."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from feedback_ui.demo import gallery_view
from feedback_ui.demo.gallery_view import ORDERS
from feedback_ui.server.auth import Auth
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.scripts import in_browser
from feedback_ui.shared.theme import QUIET, html, label
from rlhf.runs import token_changes
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.core.records import Run
from storage.project import runs


class GallerySection:
    def __init__(self, store: Database, auth: Auth):
        self.store = store
        self.auth = auth
        self.place = gr.Textbox(visible=False)
        with gr.Row():
            self.run = gr.Dropdown([], label=label("gallery.run"), elem_id="gallery-run", min_width=260)
            self.order = gr.Dropdown([], label=label("gallery.order"), elem_id="gallery-order", min_width=200)
            self.shaded = gr.Checkbox(True, label=label("gallery.shaded"), elem_id="gallery-shaded")
        self.samples = html(elem_id="gallery-samples", elem_classes="rl-samples")

    def wire(self, tab: gr.Tab) -> None:
        shown = [self.run, self.order, self.samples]
        tab.select(self.open, [self.place, self.run, self.order, self.shaded], shown, js=in_browser("galleryPlace"), **QUIET)
        for control in (self.run, self.order, self.shaded):
            changed = control.input(self.show, [self.run, self.order, self.shaded], self.samples, **QUIET)
            if control is self.run:
                changed.then(None, self.run, js=in_browser("showGalleryAddress"))

    def open(self, linked: str | None, chosen: str | None, order: str | None, shaded: bool, request: gr.Request) -> dict[Component, Any]:
        """Shows the run that the address names, the one chosen before, or the newest that has answers."""
        self.auth.reads(request, "lead")
        translate = translator_for(request)
        of_runs = self._runs()
        ids = [run.id for run in of_runs]
        run_id = next((one for one in (linked, chosen, *ids[:1]) if one in ids), None)
        order = order if order in ORDERS else ORDERS[0]
        choices = [(translate(f"gallery.orders.{name}"), name) for name in ORDERS]
        return {
            self.run: gr.Dropdown(gallery_view.run_choices(translate, of_runs), value=run_id),
            self.order: gr.Dropdown(choices, value=order),
            self.samples: self._samples(translate, run_id, order, shaded),
        }

    def show(self, run_id: str | None, order: str | None, shaded: bool, request: gr.Request) -> Markup:
        self.auth.reads(request, "lead")
        return self._samples(translator_for(request), run_id, order, shaded)

    def _runs(self) -> list[Run]:
        """The runs with tuned answers, newest first."""
        answered = set(runs.with_samples(self.store))
        return [run for run in runs.all_runs(self.store) if run.id in answered]

    def _samples(self, translate: Translator, run_id: str | None, order: str | None, shaded: bool) -> Markup:
        if run_id is None or run_id not in runs.with_samples(self.store):
            return gallery_view.none_yet(translate)
        changes = token_changes.read(DataFolder(self.store.path.parent).run(run_id))
        samples = gallery_view.gallery_samples(runs.samples(self.store, run_id), changes)
        chosen = next((name for name in ORDERS if name == order), ORDERS[0])
        return gallery_view.gallery(translate, gallery_view.ordered(samples, chosen), shaded=bool(shaded))
