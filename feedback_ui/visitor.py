"""The quiet line that says who is signed in, leads to one's own password, and signs out.

Empty while there are no accounts and the store is well.
"""

from __future__ import annotations

from html import escape

import gradio as gr

from feedback_ui.server.access import PASSWORD, SIGN_OUT
from feedback_ui.server.auth import Auth, Visitor
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.theme import QUIET, html
from storage.core.database import Database
from storage.people import accounts


def visitor_line(app: gr.Blocks, gate: Auth) -> gr.HTML:
    """Places the line inside `app`, which fills it when somebody opens the page."""

    def show_visitor(request: gr.Request) -> str:
        words = translator_for(request)
        return trouble(words, gate.store) + line(words, gate.reads(request, "annotator"))

    placed = html(elem_id="visitor")
    app.load(show_visitor, outputs=placed, **QUIET)
    return placed


def trouble(words: Translator, store: Database) -> str:
    """What is wrong with the store's file: on every page, because everybody's work is in it."""
    said = [words("visitor.damaged")] if store.damage else []
    if not store.files_are_ours:
        said.append(words("visitor.files_gone"))
    return "".join(f'<p class="rl-notice rl-bad" role="alert" data-testid="trouble">{escape(text)}</p>' for text in said)


def line(words: Translator, visitor: Visitor) -> str:
    """A form rather than a link: only a page of our own can send it."""
    if not visitor.signed_in:
        return ""
    roles = ", ".join(words(f"roles.{role}") for role in accounts.in_order(visitor.roles))
    return (
        f'<form class="rl-visitor" method="post" action="{SIGN_OUT}">'
        f'<span class="rl-who" data-testid="visitor">{escape(visitor.annotator.name)}</span> '
        f'<span class="rl-roles">{escape(roles)}</span> <a href="{PASSWORD}">{escape(words("visitor.password"))}</a> '
        f"<button>{escape(words('visitor.sign_out'))}</button></form>"
    )
