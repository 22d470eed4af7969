"""Presenters of the accounts. No Gradio."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from feedback_ui.shared.html import EMPTY, button, table, tag, when
from feedback_ui.shared.i18n import Translator
from storage.people.accounts import Account, in_order


def account_list(translate: Translator, accounts: Sequence[Account], *, acts: bool) -> Markup:
    if not accounts:
        return EMPTY
    rows = [
        [
            a.name,
            ", ".join(translate(f"roles.{role}") for role in in_order(a.roles)),
            when(a.created_at),
            translate("lead.accounts.disabled") if a.disabled else translate("lead.accounts.enabled"),
            button("edit", a.id, translate("lead.accounts.edit"), a.name) if acts else "",
        ]
        for a in accounts
    ]
    heads = [translate(f"lead.accounts.{name}") for name in ("name", "roles", "since", "state")] + [""]
    return table(heads, rows, caption=translate("lead.accounts.list"))


def reload_notice(translate: Translator, message: str) -> Markup:
    """A notice with a link that reloads the page."""
    return tag("p", message, " ", tag("a", translate("lead.reload"), href=""), class_="rl-notice rl-warn", role="status")
