"""The judging component: small scripts put one after another, with the texts of every language, for one `gr.HTML`.

No build step: the files of `assets/` are read as they are. Compare and History have one each, over the same parts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from feedback_ui.judging.judging_view import browser_texts
from feedback_ui.shared.theme import asset

SCRIPTS = (
    "texts.js", "server.js", "clock.js", "drafts.js", "guide.js", "flags.js", "details.js", "drag.js", "rank.js", "keys.js", "sheet.js",
)  # fmt: skip
"""What both pages are made of, in the order in which they need each other; a page's own script comes last."""

STYLES = ("compare.css", "rank.css", "details.css", "history.css")


def judging_component(page: str, server_functions: Sequence[Callable[..., Any]]) -> gr.HTML:
    """`<page>.html` and `<page>.js` over the common parts; its id is the page's name."""
    texts = f"const TEXTS = {json.dumps(browser_texts(), ensure_ascii=False)};"
    return gr.HTML(
        html_template=asset(f"{page}.html").replace("<!-- sheet -->", asset("sheet.html")),
        css_template="\n".join(asset(name) for name in STYLES),
        js_on_load="\n".join([texts, *(asset(name) for name in SCRIPTS), asset(f"{page}.js")]),
        server_functions=list(server_functions),
        apply_default_css=False,
        elem_id=page,
    )
