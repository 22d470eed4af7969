"""Lists and tables whose buttons report their row to a handler."""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback_ui.shared.html import asset
from feedback_ui.shared.theme import html
from storage.core.database import StoreError


def listing(**options: Any) -> gr.HTML:
    """A list from one of the views; its click event carries the button's act and its row."""
    return html(js_on_load=asset("row_buttons.js"), **options)


def chosen(event: gr.EventData) -> tuple[str, int]:
    """The act and the row of a button in a `listing`.

    Raises:
        StoreError: the event is no such click.
    """
    detail = event._data if isinstance(event._data, dict) else {}
    act, row = detail.get("act"), detail.get("row")
    if not isinstance(act, str) or type(row) is not int:
        raise StoreError("This table has no such row: reload the page.")
    return act, row
