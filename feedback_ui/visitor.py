"""The visitor line on every page: the signed-in user, links to the password page and sign-out, and warnings about the store.

It is empty while there are no accounts and the store has no problem.
"""

from __future__ import annotations

import gradio as gr
from markupsafe import Markup

from feedback_ui.server.access import PASSWORD, SIGN_OUT
from feedback_ui.server.auth import Auth, SharedAccounts, Visitor
from feedback_ui.shared.html import EMPTY, fragment, tag
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.theme import QUIET, html
from storage.core.database import Database, StoreError
from storage.people import accounts


def visitor_line(app: gr.Blocks, auth: Auth) -> gr.HTML:
    """Adds the line to `app`, which fills it when a page is opened."""

    def show_visitor(request: gr.Request) -> Markup:
        translate = translator_for(request)
        warnings = store_warnings(translate, auth.store)
        try:
            visitor = auth.reads(request, "annotator")
        except StoreError:
            # A thread that has not read yet cannot begin to where the files are gone.
            if not warnings:
                raise
            return warnings
        return fragment(warnings, line(translate, visitor, auth.shared))

    placed = html(elem_id="visitor")
    app.load(show_visitor, outputs=placed, **QUIET)
    return placed


def store_warnings(translate: Translator, store: Database) -> Markup:
    """Warnings about the store's files. Every page shows them, because all work is in the store."""
    problems = [translate("visitor.damaged")] if store.damage else []
    if not store.files_unchanged:
        problems.append(translate("visitor.files_gone"))
    return fragment(*(tag("p", text, class_="rl-notice rl-bad", role="alert", data_testid="trouble") for text in problems))


def line(translate: Translator, visitor: Visitor, shared: SharedAccounts | None = None) -> Markup:
    """The signed-in user's name and roles, and a link to the other projects at this address. Signing out is a form and not a link, so that
    other sites cannot trigger it."""
    if not visitor.signed_in:
        return EMPTY
    roles = ", ".join(translate(f"roles.{role}") for role in accounts.in_order(visitor.roles))
    return tag(
        "form",
        tag("span", visitor.annotator.name, class_="rl-user-name", data_testid="visitor"),
        " ",
        tag("span", roles, class_="rl-roles"),
        " ",
        *((tag("a", translate("visitor.projects"), href="/"), " ") if shared else ()),
        tag("a", translate("visitor.password"), href=PASSWORD),
        " ",
        tag("button", translate("visitor.sign_out")),
        class_="rl-visitor",
        method="post",
        action=SIGN_OUT,
    )
