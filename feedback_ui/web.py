"""The web app around the pages: the sign-in page, signing out, and Gradio behind the guard.

Leaves out who may reach what (`feedback_ui.guard`), who somebody is (`feedback_ui.gate`) and the server's life
(`feedback_ui.serving`).
"""

from __future__ import annotations

import os
from base64 import b64encode
from hashlib import sha256
from html import escape
from string import Template
from typing import Any
from urllib.parse import parse_qs

import gradio as gr
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from feedback_ui.bodies import LONGEST_UPLOAD, BadBody
from feedback_ui.calls import Calls
from feedback_ui.errors import public
from feedback_ui.gate import Gate, Refused
from feedback_ui.guard import SIGN_IN, SIGN_OUT, Guard, refusal, refused_body
from feedback_ui.sessions import Sessions
from feedback_ui.theme import asset, launch_options
from feedback_ui.uploads import Uploads
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
    const url = new URL(answer.url || "about:blank");
    if (url.origin !== location.origin) return answer;
    // Signed out, or an account was made meanwhile: a page that asks in vain is of no use.
    if (answer.status === 401) location.assign("/");
    // Gradio's client drops the reason for which a call of a component was refused; the pages show a reply's problem.
    if ([400, 408, 413, 415, 503].includes(answer.status) && url.pathname.startsWith("/gradio_api/component_server")) {
        const said = await answer.clone().json().catch(() => ({}));
        if (said.error) return Response.json({problem: said.error});
    }
    return answer;
};
}</script>"""


OWN_TABS = """<script>{
// Which tabs are one's own, before anything is painted. Courtesy only: each handler asks for itself.
const said = document.cookie.split("; ").find((part) => part.startsWith("$name="));
if (said) document.documentElement.dataset.roles = said.split("=")[1].replaceAll(".", " ");
}</script>"""


class Web(FastAPI):
    """The whole app, to be served by `feedback_ui.serving`; in tests by Starlette's client. One in a process: Gradio's folder for
    files is a setting of the process.

    Raises:
        OSError: the folder for uploads cannot be made or emptied.
    """

    def __init__(self, pages: gr.Blocks, gate: Gate):
        super().__init__(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
        self.pages = pages
        self.gate = gate
        self.uploads = Uploads(gate)
        self._keep_files_in(str(self.uploads.root))
        self.calls = Calls(pages)
        door = Door(gate)
        self.add_api_route(SIGN_IN, door.show, methods=["GET", "HEAD"])
        self.add_api_route(SIGN_IN, door.sign_in, methods=["POST"])
        self.add_api_route(SIGN_OUT, door.sign_out, methods=["POST"])
        options = launch_options()
        gr.mount_gradio_app(
            self,
            pages,
            "/",
            show_error=False,
            max_file_size=LONGEST_UPLOAD,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            **options | {"head": SIGNED_OUT + OWN_TABS.replace("$name", roles_cookie(gate)) + options.get("head", "")},
        )
        self.gradio = self.router.routes[-1].app
        # Gradio looks at what files a call names only once it counts as launched, which a mounted app otherwise never does.
        pages.has_launched = True
        self.sessions = self.gradio.state_holder = Sessions(pages)
        self._put_before_gradio(self.sessions)
        for kind, answer in ((Refused, refused), (StoreError, not_done), (BadBody, bad_body), (HTTPException, not_so)):
            self.add_exception_handler(kind, answer)
        self.guard: Guard | None = None

    def _keep_files_in(self, folder: str) -> None:
        """In the place of a folder that all programs of the machine share."""
        os.environ["GRADIO_TEMP_DIR"] = folder
        for block in self.pages.blocks.values():
            block.GRADIO_CACHE = folder

    def _put_before_gradio(self, sessions: Sessions) -> None:
        """Routes of our own under Gradio's addresses, for what its routes do with files and sessions."""
        mounted = self.router.routes.pop()
        for path in ("/gradio_api/component_server", "/gradio_api/component_server/"):
            self.add_api_route(path, self.calls.server_function, methods=["POST"])
        self.add_api_route("/gradio_api/heartbeat/{session_hash}", sessions.heartbeat, methods=["GET"])
        self.add_api_route("/gradio_api/upload", self.uploads.receive, methods=["POST"])
        self.add_api_route("/gradio_api/file={path_or_url:path}", self.uploads.send, methods=["GET", "HEAD"])
        self.router.routes.append(mounted)

    def build_middleware_stack(self) -> Guard:
        # Outermost: nothing comes before it, not even the page about an error.
        self.guard = Guard(super().build_middleware_stack(), self.gate, self.uploads, self.calls.checked)
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
            return self._form(request, public(error), name=name, status=503)
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
    """What somebody may not have."""
    return JSONResponse({"error": error.message, "detail": error.message, "title": error.title}, error.status)


async def not_done(_: Request, error: Any) -> Response:
    """The store could not do what was asked of it; nothing was written."""
    return refusal(503, public(error))


async def bad_body(request: Request, error: Any) -> Response:
    """A body that turned out to be too long, too slow or nothing that the route takes."""
    return refused_body(request, error)


async def not_so(_: Request, error: Any) -> Response:
    """What Starlette finds wrong with a request."""
    return refusal(error.status_code, str(error.detail))
