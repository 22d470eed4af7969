"""Who is asking, and whether they may: the one question with which every handler begins.

A page that is hidden is only courtesy; what holds is that each handler asks here, at each call, with the request that it
was called with. Leaves out how somebody signs in and what reaches the handlers at all: `feedback_ui.server.web`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import gradio as gr

from feedback_ui.shared.i18n import Translator, translator_for
from storage.core.database import Database
from storage.core.records import ROLES, Annotator, Role
from storage.people import accounts

READERS: Mapping[Role, frozenset[Role]] = {
    "annotator": frozenset(ROLES),
    "lead": frozenset(("lead", "researcher")),
    "researcher": frozenset(("researcher",)),
}
"""Who may read the pages of each role: each role reads what the one before it reads."""


class Refused(gr.Error):
    """Somebody asked for what they may not have; the message says why and what to do. Gradio shows it on the page."""

    def __init__(self, message: str, *, status: int, title: str):
        super().__init__(message, title=title, print_exception=False)
        self.status = status
        """As in HTTP: 401 for somebody who is not signed in, 403 for somebody without the role."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is asking: an annotator, with the roles of their account."""

    annotator: Annotator
    roles: frozenset[Role]
    signed_in: bool
    """False for the local visitor, who has every role while there are no accounts."""
    due: bool = False
    """Whether the use of the session should be written down, with `accounts.renew`."""

    def may_read(self, role: Role) -> bool:
        return bool(self.roles & READERS[role])

    def may_act(self, role: Role) -> bool:
        return role in self.roles


class Auth:
    """The way in to one store. Costs one indexed read a call."""

    def __init__(self, store: Database):
        self.store = store
        # Browsers tell cookies apart by host, not by port: two folders served from one machine must not sign each other out.
        self.cookie = f"rankloop-{sha256(str(store.path.absolute()).encode()).hexdigest()[:12]}"

    def token(self, request: Any) -> str | None:
        """The token of the session that goes with this request, whether or not it is one."""
        return self.cookies(request).get(self.cookie)

    def cookies(self, request: Any) -> Mapping[str, str]:
        """Every cookie that goes with this request."""
        # Gradio turns every dict of its request into an object on the way out; the request underneath has the plain one.
        inner = request.request if isinstance(request, gr.Request) else request
        return getattr(inner, "cookies", None) or {}

    def visitor(self, request: Any) -> Visitor | None:
        """Whoever sends this request; None for nobody, when there are accounts and no session goes with it."""
        token = self.token(request)
        if token and (session := accounts.session(self.store, token)):
            return Visitor(session.account.annotator, session.account.roles, True, session.due)
        if accounts.any_accounts(self.store):
            return None
        return Visitor(accounts.local(self.store), frozenset(ROLES), False)

    def reads(self, request: Any, role: Role) -> Visitor:
        """For what shows something on the pages of `role`. The request is Gradio's or Starlette's.

        Raises:
            Refused: nobody is signed in, or no role of theirs includes this one's reading.
        """
        visitor = self._known(request)
        if not visitor.may_read(role):
            raise _without_role(translator_for(request), role)
        return visitor

    def acts(self, request: Any, role: Role) -> Visitor:
        """For what changes something, or judges: only for those who have exactly this role among theirs.

        Raises:
            Refused: nobody is signed in, or they have not got the role.
        """
        visitor = self._known(request)
        if not visitor.may_act(role):
            raise _without_role(translator_for(request), role)
        return visitor

    def _known(self, request: Any) -> Visitor:
        if (visitor := self.visitor(request)) is None:
            words = translator_for(request)
            raise Refused(words("gate.nobody"), status=401, title=words("gate.nobody_title"))
        return visitor


def _without_role(words: Translator, role: Role) -> Refused:
    text = words("gate.without_role", role=words(f"roles.{role}"))
    return Refused(text, status=403, title=words("gate.without_role_title"))
