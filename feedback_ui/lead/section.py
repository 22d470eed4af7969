"""Shared parts of the Lead page's sections: their context, and tables whose buttons report their row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from feedback_ui.server.auth import Auth
from feedback_ui.shared import presenters
from feedback_ui.shared.html import asset
from feedback_ui.shared.theme import html
from rlhf.serving.client import PolicyClient
from storage.core.database import Database, StoreError
from storage.people import annotators


def listing(**options: Any) -> gr.HTML:
    """A table from one of the views; its click event carries the button's act and its row."""
    return html(js_on_load=asset("row_buttons.js"), **options)


def ordering(**options: Any) -> gr.HTML:
    """A `listing` whose comparisons can be ordered in place; its click event then carries the order as well."""
    return html(js_on_load=f"{asset('row_buttons.js')}\n{asset('gold_order.js')}", **options)


@dataclass(frozen=True, slots=True)
class SectionContext:
    """The store, the policy server's client and the access checks that every section uses."""

    store: Database
    client: PolicyClient
    auth: Auth


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


def ordered(event: gr.EventData) -> tuple[int, str] | None:
    """The comparison whose order was saved in an `ordering`, and the order: `B > A = C`. None for any other click."""
    act, row = chosen(event)
    order = event._data.get("order")
    return (row, order) if act == "gold" and isinstance(order, str) else None


def refusal(error: Exception, as_on_the_page: Callable[[str], str] = str) -> Markup:
    """The error's message as a notice. `as_on_the_page` names the options in it by the titles of their fields."""
    return presenters.notice(presenters.sentence(error, as_on_the_page), "bad")


def names(store: Database) -> dict[int, str]:
    """Annotators' names by id."""
    return {annotator.id: annotator.name for annotator in annotators.all_annotators(store)}
