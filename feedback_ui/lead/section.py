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
from feedback_ui.shared.listing import chosen as chosen
from feedback_ui.shared.listing import listing as listing
from feedback_ui.shared.theme import html
from rlhf.serving.client import PolicyClient
from storage.core.database import Database
from storage.people import annotators


def ordering(**options: Any) -> gr.HTML:
    """A `listing` whose comparisons can be ordered in place; its click event then carries the order as well."""
    return html(js_on_load=asset("row_buttons.js") + asset("gold_order.js"), **options)


@dataclass(frozen=True, slots=True)
class SectionContext:
    """The store, the policy server's client and the access checks that every section uses."""

    store: Database
    client: PolicyClient
    auth: Auth


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
