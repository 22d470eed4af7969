"""The Demo page's controls that export the chosen policy version, with the progress of the export and its check."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from feedback_ui.demo import exports_view
from feedback_ui.demo.running_export import Exports
from feedback_ui.server.auth import Auth
from feedback_ui.shared.i18n import translator_for
from feedback_ui.shared.theme import QUIET, html, label
from rlhf.deploy.formats import FORMATS
from storage.content import policies
from storage.core.database import Database, StoreError

POLL_S = 1.0


class ExportsSection:
    """Shown to whoever may act as a researcher; the version is the one whose card is open."""

    def __init__(self, store: Database, auth: Auth, version: gr.Dropdown):
        self.store, self.auth, self.version = store, auth, version
        self.exports = Exports(store.path.parent)
        with gr.Row(visible=False, elem_id="demo-export") as self.controls:
            self.format = gr.Dropdown([*FORMATS], value=next(iter(FORMATS)), label=label("export.format"), elem_id="demo-export-format")
            self.start_button = gr.Button(label("export.start"), elem_id="demo-export-start")
        self.status = html(elem_id="demo-export-status")
        self.timer = gr.Timer(POLL_S, active=False)

    def wire(self, tab: gr.Tab) -> None:
        shown: list[Component] = [self.status, self.start_button]
        tab.select(self.open, None, [*shown, self.controls, self.timer], **QUIET)
        self.start_button.click(self.start, [self.version, self.format], [*shown, self.timer], **QUIET)
        self.timer.tick(self.follow, None, [*shown, self.timer], **QUIET)

    def open(self, request: gr.Request) -> dict[Any, Any]:
        visitor = self.auth.reads(request, "lead")
        return self._shown(request) | {self.controls: gr.Row(visible=visitor.may_act("researcher"))}

    def start(self, version: str | None, format_name: str, request: gr.Request) -> dict[Any, Any]:
        """Begins the export; one that cannot be written says so in the status, as its process does."""
        self.auth.acts(request, "researcher")
        chosen = policies.by_name(self.store, version or "")
        if chosen.kind == "external" or format_name not in FORMATS:
            raise StoreError(translator_for(request)("export.external"))
        self.exports.start(chosen.name, format_name, chosen.base_model)
        return self._shown(request)

    def follow(self, request: gr.Request) -> dict[Any, Any]:
        self.auth.reads(request, "lead")
        return self._shown(request)

    def _shown(self, request: gr.Request) -> dict[Any, Any]:
        last = self.exports.last
        going = last is not None and not last.is_over
        return {
            self.status: exports_view.status(translator_for(request), last),
            self.start_button: gr.Button(interactive=not going),
            self.timer: gr.Timer(active=going),
        }
