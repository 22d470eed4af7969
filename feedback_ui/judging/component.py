"""The judging component: a `gr.HTML` whose start script imports the modules of `feedback_ui.shared.scripts`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from feedback_ui.shared.html import asset, render_template
from feedback_ui.shared.i18n import tables
from feedback_ui.shared.scripts import ENTRY, modules

STYLES = ("compare.css", "rank.css", "details.css", "history.css")


def judging_component(page: str, server_functions: Sequence[Callable[..., Any]]) -> gr.HTML:
    """The component made of the template `<page>.html` and its modules; its element id is the page's name."""
    load_failed = {language: texts["compare.load_failed"] for language, texts in tables().items()}
    return gr.HTML(
        html_template=render_template(
            f"{page}.html", module=modules().path(ENTRY), load_failed=json.dumps(load_failed, ensure_ascii=False)
        ),
        css_template="\n".join(asset(name) for name in STYLES),
        js_on_load=asset("start.js"),
        server_functions=list(server_functions),
        apply_default_css=False,
        elem_id=page,
    )
