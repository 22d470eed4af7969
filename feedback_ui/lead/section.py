"""What the sections of the lead page share: what they work on, and tables whose buttons tell their row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import gradio as gr

from feedback_ui.server.auth import Auth
from feedback_ui.shared import presenters
from feedback_ui.shared.theme import html
from rlhf.serving.client import PolicyClient
from storage.core.database import Database, StoreError
from storage.people import annotators

ROW_CHOSEN = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  if (button) trigger('click', {act: button.dataset.act, row: Number(button.dataset.row)});
});
"""

listing = partial(html, js_on_load=ROW_CHOSEN)
"""A table from `lead_view`; its click event brings which button it was, in which row."""


@dataclass(frozen=True, slots=True)
class SectionContext:
    """What every section works on."""

    store: Database
    client: PolicyClient
    gate: Auth


def chosen(event: gr.EventData) -> tuple[str, int]:
    """The act and the row of a button in a `listing`.

    Raises:
        StoreError: what came is no such click.
    """
    said = event._data if isinstance(event._data, dict) else {}
    act, row = said.get("act"), said.get("row")
    if not isinstance(act, str) or type(row) is not int:
        raise StoreError("That is no row of this table: reload the page.")
    return act, row


def refusal(error: Exception) -> str:
    """Why something was not done, as the page says it."""
    return presenters.notice(presenters.sentence(error), "bad")


def names(store: Database) -> dict[int, str]:
    """Everybody's name by annotator id."""
    return {annotator.id: annotator.name for annotator in annotators.all_annotators(store)}
