"""The web app around the pages: the sign-in page, signing out, and Gradio behind the guard.

Leaves out who may reach what (`feedback_ui.guard`), who somebody is (`feedback_ui.gate`) and the server's life
(`feedback_ui.serving`).
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from string import Template
from typing import Any
from urllib.parse import parse_qs

import gradio as gr
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from feedback_ui.gate import Gate, Refused
from feedback_ui.guard import SIGN_IN, SIGN_OUT, Guard
from feedback_ui.store_errors import told
from feedback_ui.theme import asset, launch_options
from feedback_ui.words import words_of
from storage import accounts
from storage.accounts import SignInRefused
from storage.database import StoreError

LONGEST_FORM = 10_000
"""The most that anybody who is not signed in may send, in bytes."""

PASSWORDS_AT_ONCE = 2
"""Each takes 64 MiB and all cores for a moment; more at once would only keep the annotators waiting."""

SIGNED_OUT = """<script>{
const plain = window.fetch;
window.fetch = async (...asked) => {
    const answer = await plain(...asked);
    // Signed out, or an account was made meanwhile: a page that asks in vain is of no use.
    if (answer.status === 401 && new URL(answer.url).origin === location.origin) location.assign("/");
    return answer;
};
}</script>"""


OWN_TABS = """<script>{
// Which tabs are one's own, before anything is painted. Courtesy only: each handler asks for itself.
const said = document.cookie.split("; ").find((part) => part.startsWith("$name="));
if (said) document.documentElement.dataset.roles = said.split("=")[1].replaceAll(".", " ");
}</script>"""


class Web(FastAPI):
    """The whole app, to be served by `feedback_ui.serving`; in tests by Starlette's client."""

    def __init__(self, pages: gr.Blocks, gate: Gate):
        super().__init__(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
        self.pages = told(pages)
        self.gate = gate
        door = Door(gate)
        self.add_api_route(SIGN_IN, door.show, methods=["GET", "HEAD"])
        self.add_api_route(SIGN_IN, door.sign_in, methods=["POST"])
        self.add_api_route(SIGN_OUT, door.sign_out, methods=["POST"])
        options = launch_options()
        gr.mount_gradio_app(
            self,
            pages,
            "/",
            app_kwargs={"exception_handlers": {Refused: refused, StoreError: not_done}},
            show_error=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            **options | {"head": SIGNED_OUT + OWN_TABS.replace("$name", roles_cookie(gate)) + options.get("head", "")},
        )
        self.gradio = self.router.routes[-1].app
        self.guard: Guard | None = None

    def build_middleware_stack(self) -> Guard:
        # Outermost: nothing comes before it, not even the page about an error.
        self.guard = Guard(super().build_middleware_stack(), self.gate)
        return self.guard

    def end_streams(self) -> None:
        """Before the server stops: nothing new is begun, and what would stay open for ever ends. In the server's loop."""
        self.pages.is_running = False
        self.gradio.stop_event.set()
        if self.guard:
            self.guard.end_streams()


class Door:
    """Signing in and out, without a script."""

    def __init__(self, gate: Gate):
        self.gate = gate
        self._page = Template(asset("sign_in.html"))
        self._style = asset("sign_in.css")
        self._icon = f"data:image/svg+xml;base64,{b64encode(asset('favicon.svg').encode()).decode()}"
        digest = b64encode(sha256(self._style.encode()).digest()).decode()
        self._policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; form-action 'self'; "
            "frame-ancestors 'none'; base-uri 'none'"
        )
        self._limiter = CapacityLimiter(PASSWORDS_AT_ONCE)

    async def show(self, request: Request) -> Response:
        return RedirectResponse("/", 303) if self.gate.visitor(request) else self._form(request)

    async def sign_in(self, request: Request) -> Response:
        """A new session in place of the one that this browser had."""
        if not accounts.any_accounts(self.gate.store):
            return RedirectResponse("/", 303)
        words = words_of(request)
        if (form := await read_form(request)) is None:
            return self._form(request, words("sign_in.wrong"), status=413)
        name, password = form.get("name", ""), form.get("password", "")
        try:
            token = await to_thread.run_sync(accounts.sign_in, self.gate.store, name, password, limiter=self._limiter)
        except SignInRefused as error:
            text = words("sign_in.wait", count=error.wait_s) if error.wait_s else words("sign_in.wrong")
            return self._form(request, text, name=name, status=429 if error.wait_s else 401, wait_s=error.wait_s)
        except StoreError as error:
            return self._form(request, str(error), name=name, status=503)
        await self._end_session(request)
        response = RedirectResponse("/", 303)
        roles = ".".join(sorted(accounts.of_token(self.gate.store, token).roles))
        for cookie, value, hidden in ((self.gate.cookie, token, True), (roles_cookie(self.gate), roles, False)):
            response.set_cookie(
                cookie, value, httponly=hidden, samesite="strict", secure=request.url.scheme == "https", path="/",
                max_age=accounts.LONGEST_DAYS * 24 * 3600,
            )  # fmt: skip
        return response

    async def sign_out(self, request: Request) -> Response:
        await self._end_session(request)
        response = RedirectResponse(SIGN_IN, 303)
        for cookie in (self.gate.cookie, roles_cookie(self.gate)):
            response.delete_cookie(cookie, path="/", samesite="strict", secure=request.url.scheme == "https")
        return response

    async def _end_session(self, request: Request) -> None:
        if token := self.gate.token(request):
            await to_thread.run_sync(accounts.sign_out, self.gate.store, token)

    def _form(self, request: Request, problem: str = "", *, name: str = "", status: int = 200, wait_s: int = 0) -> HTMLResponse:
        words = words_of(request)
        texts = {
            "language": words.language,
            "title": words("sign_in.title"),
            "name_label": words("sign_in.name"),
            "password_label": words("sign_in.password"),
            "submit": words("sign_in.submit"),
            "help": words("sign_in.help"),
            "name": name,
            "action": SIGN_IN,
            "icon": self._icon,
        }
        filled = {key: escape(text) for key, text in texts.items()} | {
            "style": self._style,
            "problem": f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else "",
            "focus_name": "" if name else "autofocus",
            "focus_password": "autofocus" if name else "",
        }
        headers = {"Content-Security-Policy": self._policy} | ({"Retry-After": str(wait_s)} if wait_s else {})
        return HTMLResponse(self._page.substitute(filled), status, headers=headers)


def roles_cookie(gate: Gate) -> str:
    """The name under which the browser keeps which roles are its own; nothing on the server reads it."""
    return f"{gate.cookie}-roles"


async def read_form(request: Request) -> dict[str, str] | None:
    """The fields of a form; None if it is too long to be this one."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_FORM:
            return None
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, errors="replace")
    return {name: values[0] for name, values in fields.items()}


async def refused(_: Request, error: Any) -> JSONResponse:
    """A server function that somebody may not call. Gradio answers for its other handlers itself."""
    return JSONResponse({"error": error.message, "detail": error.message, "title": error.title}, error.status)


async def not_done(_: Request, error: Any) -> JSONResponse:
    """The store could not do what a server function asked of it; nothing was written."""
    return JSONResponse({"error": str(error), "detail": str(error)}, 503)
