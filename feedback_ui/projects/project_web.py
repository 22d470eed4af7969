"""One project's web app behind the front: the roles for the page's scripts, and whether anybody uses the project now."""

from __future__ import annotations

from time import monotonic
from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from feedback_ui.server.auth import Auth, SharedAccounts
from feedback_ui.server.web import Web
from storage.people.accounts import MAX_SESSION_DAYS


class ProjectWeb(Web):
    """As `Web`, for a project whose accounts are shared with others."""

    def __init__(self, pages: gr.Blocks, auth: Auth, shared: SharedAccounts):
        super().__init__(pages, auth)
        self._path = f"{shared.path}/"
        self._in_flight = 0
        self._last_request: float | None = None

    @property
    def idle_s(self) -> float | None:
        """Seconds since the last request; 0 while a page is open, None if there was no request yet."""
        if self._in_flight:
            return 0.0
        return None if self._last_request is None else monotonic() - self._last_request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        self._in_flight += 1
        try:
            await super().__call__(scope, receive, self._with_roles(scope, send) if scope["path"] == "/" else send)
        finally:
            self._in_flight -= 1
            self._last_request = monotonic()

    def _with_roles(self, scope: Scope, send: Send) -> Send:
        """Adds the cookie that the page's scripts read to hide the tabs of other roles. It grants nothing."""
        cookie = Response()
        if visitor := self.auth.visitor(Request(scope)):
            options: dict[str, Any] = {"samesite": "strict", "secure": scope["scheme"] == "https", "path": self._path}
            roles = ".".join(sorted(visitor.roles))
            cookie.set_cookie(self.auth.roles_cookie, roles, max_age=MAX_SESSION_DAYS * 24 * 3600, **options)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and "set-cookie" in cookie.headers:
                message["headers"] = [*message["headers"], (b"set-cookie", cookie.headers["set-cookie"].encode())]
            await send(message)

        return sending
