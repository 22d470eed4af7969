"""The judging component: a `gr.HTML` whose start script imports the modules of `feedback_ui.shared.scripts`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import gradio as gr

from feedback_ui.shared.i18n import tables
from feedback_ui.shared.scripts import ENTRY, modules
from feedback_ui.shared.theme import asset

STYLES = ("compare.css", "rank.css", "details.css", "history.css")


def judging_component(page: str, server_functions: Sequence[Callable[..., Any]]) -> gr.HTML:
    """The component made of `<page>.html`, which the modules bring to life; its element id is the page's name."""
    load_failed = {language: texts["compare.load_failed"] for language, texts in tables().items()}
    places = {
        "<!-- judging form -->": asset("judging_form.html"),
        "MODULE": modules().path(ENTRY),
        "LOAD_FAILED": escape(json.dumps(load_failed, ensure_ascii=False)),
    }
    html = asset(f"{page}.html")
    for place, value in places.items():
        html = html.replace(place, value)
    return gr.HTML(
        html_template=html,
        css_template="\n".join(asset(name) for name in STYLES),
        js_on_load=asset("start.js"),
        server_functions=list(server_functions),
        apply_default_css=False,
        elem_id=page,
    )
