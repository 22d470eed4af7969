"""The Demo page: its sections as sub-tabs, and the links that open one of them."""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback_ui.demo.exports import ExportsSection
from feedback_ui.demo.gallery import GallerySection
from feedback_ui.demo.trying import TryingSection
from feedback_ui.demo.versions import VersionsSection
from feedback_ui.server.auth import Auth
from feedback_ui.shared.scripts import in_browser
from feedback_ui.shared.theme import QUIET, label
from rlhf.serving.client import PolicyClient
from storage.core.database import Database


def follow_links(app: gr.Blocks, pages: gr.Tabs, auth: Auth) -> None:
    """Selects the Demo page, which opens what the link names, if the app was opened by a link to it."""

    def follow(is_linked: bool, request: gr.Request) -> Any:
        auth.reads(request, "annotator")
        return gr.Tabs(selected="demo") if is_linked else gr.skip()

    app.load(follow, gr.Checkbox(False, visible=False), pages, js=in_browser("isDemoLink"), **QUIET)


class DemoPage:
    """Annotators see the first section alone: the others show what is known of the versions, which they judge blind."""

    def __init__(self, store: Database, client: PolicyClient, auth: Auth):
        self.auth = auth
        with gr.Tabs(elem_id="demo-sections") as self.tabs:
            with gr.Tab(label("demo.tab.trying"), id="trying", elem_id="demo-trying"):
                self.trying = TryingSection(store, client, auth)
            with gr.Tab(label("demo.tab.gallery"), id="gallery", elem_id="demo-gallery") as self.gallery_tab:
                self.gallery = GallerySection(store, auth)
            with gr.Tab(label("demo.tab.versions"), id="versions", elem_id="demo-versions") as self.versions_tab:
                self.versions = VersionsSection(store, auth)
                self.exports = ExportsSection(store, auth, self.versions.version)
        self.section = gr.Textbox(visible=False)

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.enter, self.section, self.tabs, js=in_browser("demoSection"), **QUIET)
        self.trying.wire(tab)
        self.gallery.wire(self.gallery_tab)
        self.versions.wire(self.versions_tab)
        self.exports.wire(self.versions_tab)

    def enter(self, linked: str | None, request: gr.Request) -> Any:
        """Opens the section that the address names; without one, the section that was open stays."""
        visitor = self.auth.reads(request, "annotator")
        if linked in ("gallery", "versions") and not visitor.may_read("lead"):
            self.auth.reads(request, "lead")
        return gr.Tabs(selected=linked) if linked in ("trying", "gallery", "versions") else gr.skip()
