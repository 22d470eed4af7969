"""The Demo page's section with the card of each policy version, which has an address: `#version-NAME`."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from feedback_ui.demo import versions_view
from feedback_ui.server.auth import Auth
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.scripts import in_browser
from feedback_ui.shared.theme import QUIET, html, label
from rlhf.analysis import version_card
from storage.content import policies
from storage.core.database import Database


class VersionsSection:
    def __init__(self, store: Database, auth: Auth):
        self.store = store
        self.auth = auth
        self.place = gr.Textbox(visible=False)
        self.version = gr.Dropdown([], label=label("version.choose"), elem_id="demo-version-card")
        self.card = html(elem_id="demo-card")

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, [self.place, self.version], [self.version, self.card], js=in_browser("versionPlace"), **QUIET)
        chosen = self.version.input(self.show, self.version, self.card, **QUIET)
        chosen.then(None, self.version, js=in_browser("showVersionAddress"))

    def open(self, linked: str | None, chosen: str | None, request: gr.Request) -> dict[Component, Any]:
        """Shows the version that the address names, the one chosen before, or the newest."""
        self.auth.reads(request, "lead")
        translate = translator_for(request)
        versions = versions_view.choices(translate, policies.all_versions(self.store))
        names = [name for _, name in versions]
        name = next((name for name in (linked, chosen, *names[:1]) if name in names), None)
        return {self.version: gr.Dropdown(versions, value=name), self.card: self._card(translate, name, linked)}

    def show(self, name: str | None, request: gr.Request) -> Any:
        self.auth.reads(request, "lead")
        return self._card(translator_for(request), name, name)

    def _card(self, translate: Translator, name: str | None, linked: str | None) -> Any:
        version = next((v for v in policies.all_versions(self.store) if v.name == name), None)
        if version is None:
            return versions_view.none_yet(translate)
        card = versions_view.card(translate, version_card.of_version(self.store, version))
        return versions_view.with_missing(translate, card, linked) if linked and linked != name else card
