"""The web app around the pages: the pages of `feedback_ui.door`, and Gradio behind the guard.

Leaves out who may reach what (`feedback_ui.guard`), who somebody is (`feedback_ui.gate`) and the server's life
(`feedback_ui.serving`).
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse

from feedback_ui.door import Door, roles_cookie
from feedback_ui.gate import Gate, Refused
from feedback_ui.guard import PASSWORD, SIGN_IN, SIGN_OUT, Guard
from feedback_ui.theme import launch_options
from storage.database import StoreError

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
        self.pages = pages
        self.gate = gate
        door = Door(gate)
        self.add_api_route(SIGN_IN, door.show, methods=["GET", "HEAD"])
        self.add_api_route(SIGN_IN, door.sign_in, methods=["POST"])
        self.add_api_route(SIGN_OUT, door.sign_out, methods=["POST"])
        self.add_api_route(PASSWORD, door.show_password, methods=["GET", "HEAD"])
        self.add_api_route(PASSWORD, door.change_password, methods=["POST"])
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


async def refused(_: Request, error: Any) -> JSONResponse:
    """A server function that somebody may not call. Gradio answers for its other handlers itself."""
    return JSONResponse({"error": error.message, "detail": error.message, "title": error.title}, error.status)


async def not_done(_: Request, error: Any) -> JSONResponse:
    """The store could not do what a server function asked of it; nothing was written."""
    return JSONResponse({"error": str(error), "detail": str(error)}, 503)
