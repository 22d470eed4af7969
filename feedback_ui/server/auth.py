"""Authentication and authorisation: every handler begins by checking its request here.

Hiding a page protects nothing; access is enforced because each handler checks each call's own request. How users sign in is in
`feedback_ui.server.auth_routes`, which requests reach the handlers at all in `feedback_ui.server.access`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import gradio as gr

from feedback_ui.shared.i18n import Translator, translator_for
from storage.core.database import Database
from storage.core.records import ACCOUNT_ROLES, Annotator, Role
from storage.people import accounts

READERS: Mapping[Role, frozenset[Role]] = {
    "annotator": frozenset(ACCOUNT_ROLES),
    "lead": frozenset(("lead", "researcher")),
    "researcher": frozenset(("researcher",)),
}
"""The roles that may read the pages of each role: each role also reads the pages of the roles before it."""


class AccessRefused(gr.Error):
    """A request that is not allowed; the message says why and what to do. Gradio shows it on the page."""

    def __init__(self, message: str, *, status: int, title: str):
        super().__init__(message, title=title, print_exception=False)
        self.status = status
        """The HTTP status: 401 for a visitor who is not signed in, 403 for one without the role."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """The user who sends a request: an annotator, with the roles of their account."""

    annotator: Annotator
    roles: frozenset[Role]
    signed_in: bool
    """False for the local visitor, who has every role while there are no accounts."""
    due: bool = False
    """Whether the session should be renewed, with `accounts.renew`."""

    def may_read(self, role: Role) -> bool:
        return bool(self.roles & READERS[role])

    def may_act(self, role: Role) -> bool:
        return role in self.roles


@dataclass(frozen=True, slots=True)
class SharedAccounts:
    """The accounts of a project that is served with others at one address."""

    project: str
    """The project's name."""
    store: Database
    """The store with everybody's passwords and sessions. Roles are those of the project's own account of the same name."""

    @property
    def path(self) -> str:
        """The path of the project's pages, without a slash at its end."""
        return f"/p/{self.project}"


class Auth:
    """Checks requests against the accounts and sessions of one store. Each check costs one indexed read, or two where several projects
    share their accounts: there a session without an account in this project's own store is refused."""

    def __init__(self, store: Database, shared: SharedAccounts | None = None):
        self.store = store
        self.shared = shared
        # Browsers separate cookies by host, not by port: two data folders served on one machine must not sign each other out.
        self.cookie = f"rankloop-{sha256(str(self.sessions_store.path.absolute()).encode()).hexdigest()[:12]}"
        # Each project has its own roles, and browsers send the cookies of one path to its pages alone.
        self.roles_cookie = f"{self.cookie}-roles{f'-{shared.project}' if shared else ''}"

    @property
    def sessions_store(self) -> Database:
        """The store with the passwords and the sessions."""
        return self.shared.store if self.shared else self.store

    def token(self, request: Any) -> str | None:
        """The session token in the request's cookie. It is not checked here."""
        return self.cookies(request).get(self.cookie)

    def cookies(self, request: Any) -> Mapping[str, str]:
        """The cookies of a request, Gradio's or Starlette's."""
        # Gradio wraps every dict of its request in an object; the inner Starlette request has the plain dict.
        inner = request.request if isinstance(request, gr.Request) else request
        return getattr(inner, "cookies", None) or {}

    def visitor(self, request: Any) -> Visitor | None:
        """The visitor who sends this request; None if there are accounts and the request has no valid session."""
        token = self.token(request)
        session = accounts.session(self.sessions_store, token) if token else None
        if session and (account := accounts.in_use(self.store, session.account.name) if self.shared else session.account):
            return Visitor(account.annotator, account.roles, True, session.due)
        if self.shared or accounts.any_accounts(self.store):
            return None
        return Visitor(accounts.local(self.store), frozenset(ACCOUNT_ROLES), False)

    def reads(self, request: Any, role: Role) -> Visitor:
        """Requires permission to read the pages of `role`. The request is Gradio's or Starlette's.

        Raises:
            AccessRefused: nobody is signed in, or no role of the visitor may read those pages.
        """
        visitor = self._signed_in_visitor(request)
        if not visitor.may_read(role):
            raise _without_role(translator_for(request), role)
        return visitor

    def acts(self, request: Any, role: Role) -> Visitor:
        """Requires `role` itself, for handlers that change something or judge.

        Raises:
            AccessRefused: nobody is signed in, or the visitor does not have the role.
        """
        visitor = self._signed_in_visitor(request)
        if not visitor.may_act(role):
            raise _without_role(translator_for(request), role)
        return visitor

    def _signed_in_visitor(self, request: Any) -> Visitor:
        if (visitor := self.visitor(request)) is None:
            translate = translator_for(request)
            raise AccessRefused(translate("auth.not_signed_in"), status=401, title=translate("auth.not_signed_in_title"))
        return visitor


def _without_role(translate: Translator, role: Role) -> AccessRefused:
    text = translate("auth.without_role", role=translate(f"roles.{role}"))
    return AccessRefused(text, status=403, title=translate("auth.without_role_title"))
