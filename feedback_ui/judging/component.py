"""The judging component: builds a `gr.HTML` from concatenated scripts and the texts of every language.

There is no build step: the files of `assets/` are used unchanged. Compare and History share all parts but their own script.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from feedback_ui.judging.judging_view import browser_texts
from feedback_ui.shared.theme import asset

SCRIPTS = (
    "texts.js", "server.js", "clock.js", "drafts.js", "guide.js", "flags.js", "details.js", "drag.js", "rank.js", "keys.js",
    "judging_form.js",
)  # fmt: skip
"""The scripts of both pages, each after those that it needs; a page's own script comes last."""

STYLES = ("compare.css", "rank.css", "details.css", "history.css")


def judging_component(page: str, server_functions: Sequence[Callable[..., Any]]) -> gr.HTML:
    """The component made of `<page>.html`, `<page>.js` and the common parts; its element id is the page's name."""
    texts = f"const TEXTS = {json.dumps(browser_texts(), ensure_ascii=False)};"
    return gr.HTML(
        html_template=asset(f"{page}.html").replace("<!-- judging form -->", asset("judging_form.html")),
        css_template="\n".join(asset(name) for name in STYLES),
        js_on_load="\n".join([texts, *(asset(name) for name in SCRIPTS), asset(f"{page}.js")]),
        server_functions=list(server_functions),
        apply_default_css=False,
        elem_id=page,
    )
