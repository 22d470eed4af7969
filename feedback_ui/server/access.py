"""ASGI middleware before every route, including Gradio's: checks the sender, the origin and the body of each request.

The table `ROUTES` names every route that is open; any other path is answered with 404. Once there is an account, only
signed-in users reach anything but the sign-in page. Before that, only this machine does, and only under its own host name,
so that no other site can reach the app through somebody's browser. Permission to call a *handler* is checked again in each
handler (`feedback_ui.server.auth`). Bodies are checked before the route reads them (`feedback_ui.server.bodies`): a call that
names a file which this visitor has not uploaded is refused.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback_ui.server import bodies
from feedback_ui.server.auth import Auth, Visitor
from feedback_ui.server.bodies import BadBody
from feedback_ui.server.calls import RUN
from feedback_ui.server.uploads import Uploads
from feedback_ui.server.visitor_sessions import with_session_key, with_session_key_in_url
from feedback_ui.shared.errors import browser_message
from feedback_ui.shared.i18n import translator_for
from rlhf.serving.http_origin import is_from_elsewhere, on_this_machine
from storage.core.database import StoreError
from storage.core.records import Role
from storage.people import accounts

SIGN_IN = "/sign-in"
SIGN_OUT = "/sign-out"
PASSWORD = "/password"

RECHECK_S = 5.0
"""How often an open stream checks that its session is still valid, in seconds."""

MAX_STREAMS = 64
"""Maximum number of open streams of one account; each page has one. A further stream ends the oldest."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Gradio compiles its templates in the browser; nothing is fetched from elsewhere or sent there.
    "Content-Security-Policy": (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; object-src 'none'; "
        "base-uri 'self'; form-action 'self'"
    ),
}
"""Headers of every response, unless the route sets its own."""

PAGE_PATHS = ("/", "/config")
"""Paths whose query string is only for the page's scripts and is removed: Gradio would read page names and saved files from it."""

PROXY_HEADERS = frozenset((b"x-forwarded-host", b"x-forwarded-proto", b"x-gradio-server"))
"""Headers that Gradio trusts from any sender, so that they are removed. uvicorn has already applied those of a local proxy."""

RELOAD_PAGE = HTMLResponse(Markup('<!doctype html><title>rankloop</title><meta http-equiv="refresh" content="0;url=/">'))
"""The response to a link from another site, whose request has no cookie: the page reloads itself, and then sends the cookie."""


@dataclass(frozen=True, slots=True)
class Route:
    """Paths that are open to signed-in users, or to those with a role."""

    method: Literal["GET", "POST"]
    """GET includes HEAD."""
    path: str
    """A regular expression for the whole path."""
    act: Role | None = None
    """Only for users who have this role."""
    read: Role | None = None
    """Only for users who may read the pages of this role."""
    stream: bool = False
    """Whether the response is a stream that stays open until one side ends it."""
    body: bodies.BodyKind = "json"
    """The kind of body that a POST has."""

    def admits(self, visitor: Visitor) -> bool:
        return (self.act is None or visitor.may_act(self.act)) and (self.read is None or visitor.may_read(self.read))


ROUTES = (
    Route("GET", "/|/config|/theme.css|/favicon.ico|/manifest.json|/robots.txt"),
    Route("GET", "/(assets|static|svelte)/.+"),
    Route("GET", "/modules/[^/]+/[^/]+"),
    Route("GET", "/gradio_api/(startup-events|info)"),
    Route("GET", "/gradio_api/heartbeat/[^/]+", stream=True),
    Route("GET", "/gradio_api/queue/data", stream=True),
    Route("POST", "/gradio_api/(queue/join|run/predict|component_server/?|cancel|reset)"),
    # Leads upload prompts to import, and may download only their own uploads.
    Route("POST", "/gradio_api/upload", act="lead", body="upload"),
    Route("GET", "/gradio_api/file=.+", read="lead"),
    Route("GET", r"/runs/[^/]+/(adapter\.zip|metrics\.csv)", read="researcher"),
    # And fetch what they had exported.
    Route("GET", "/download/[^/]+/[^/]+", act="lead"),
    Route("POST", SIGN_OUT, body="form"),
    Route("GET", PASSWORD),
    Route("POST", PASSWORD, body="form"),
)

PUBLIC_ROUTES = (Route("GET", SIGN_IN), Route("POST", SIGN_IN, body="form"))


class AccessMiddleware:
    """Passes allowed requests to the app and answers all others itself."""

    def __init__(self, app: ASGIApp, auth: Auth, uploads: Uploads, checked: Callable[[str, Any], Any]):
        """`checked` takes the path and the JSON of a call, and returns the JSON to pass on or raises BadBody."""
        self.app = app
        self.auth = auth
        self.uploads = uploads
        self.checked = checked
        self._stopping = asyncio.Event()
        self._streams: defaultdict[int, list[asyncio.Event]] = defaultdict(list)

    def end_streams(self) -> None:
        """Ends all streams, which would otherwise keep the server from stopping. Call it in the server's event loop."""
        self._stopping.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            headers = [header for header in scope["headers"] if header[0] not in PROXY_HEADERS]
            await self._http({**scope, "headers": headers}, receive, with_headers(send))
        else:
            # No page uses a websocket, and the server answers this with 403.
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        try:
            visitor = self.auth.visitor(request)
            route = self._route_or_refusal(request, visitor)
        except StoreError as error:
            route = refusal(503, browser_message(error))
        if isinstance(route, Response):
            await route(scope, receive, send)
            return
        files: list[Path] = []
        try:
            receive = bodies.limited(receive, route.body, request.headers)
            if route.body == "json" and request.method == "POST":
                if (body := await bodies.read(receive)) is None:
                    return
                body, files = self._checked_body(request, visitor, body)
                receive = bodies.replayed(body, receive)
        except BadBody as error:
            await refused_body(request, error)(scope, receive, send)
            return
        if visitor and visitor.due and (token := self.auth.token(request)):
            # A full disk must not prevent reading.
            with suppress(StoreError):
                await run_in_threadpool(accounts.renew, self.auth.sessions_store, token)
        if visitor:
            scope = with_session_key_in_url(visitor, scope)
        if route.stream:
            await self._stream(scope, receive, send, visitor)
        elif files:
            await self._with_files(scope, receive, with_status(send, scope), files)
        else:
            await self.app(scope, receive, with_status(send, scope))

    async def _with_files(self, scope: Scope, receive: Receive, send: Send, files: list[Path]) -> None:
        """Runs the app and deletes the uploads that the call uses, before the response is sent and also after an error."""

        async def sending(message: Message) -> None:
            await self._discard(files)
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            await self._discard(files)

    async def _discard(self, files: list[Path]) -> None:
        if files:
            await run_in_threadpool(self.uploads.discard, files.copy())
            files.clear()

    def _checked_body(self, request: Request, visitor: Visitor | None, body: bytes) -> tuple[bytes, list[Path]]:
        """The JSON body to pass on, and the visitor's uploads that this call consumes.

        Raises:
            BadBody: it is not JSON, the handler does not take it, or it names a file that the visitor has not uploaded.
        """
        if request.headers.get("content-type", "").lower().startswith(("multipart/", "application/x-www-form-urlencoded")):
            raise BadBody(415, "body.no_json")
        path, value = request.scope["path"], bodies.decoded(body)
        files = []
        for claim in bodies.file_claims(value):
            # Only RUN answers after the handler has ended, which is when the file is deleted.
            owner = visitor.annotator.id if visitor and visitor.may_act("lead") and path == RUN else None
            file = None if owner is None else self.uploads.find(owner, claim.get("path"))
            if file is None:
                raise BadBody(400, "body.not_uploaded")
            files.append(file)
            # Other fields that the browser sent about the file are dropped.
            claim.clear()
            claim.update(path=str(file), orig_name=file.name, meta={"_type": "gradio.FileData"})
        value = self.checked(path, value)
        return bodies.encoded(with_session_key(visitor, value) if visitor else value), files

    def _route_or_refusal(self, request: Request, visitor: Visitor | None) -> Route | Response:
        """The route, if it is open to this visitor from where they are; otherwise the response that refuses it."""
        translate = translator_for(request)
        client = request.client.host if request.client else ""
        if visitor and not visitor.signed_in and not on_this_machine(client, request.headers.get("host", "")):
            return refusal(421, translate("access.not_here", port=request.scope["server"][1]))
        if is_from_elsewhere(request.method, request.headers):
            return refusal(403, translate("access.elsewhere"))
        if route := next(matching(PUBLIC_ROUTES, request), None):
            return route
        if visitor is None:
            return not_signed_in(request)
        routes = list(matching(ROUTES, request))
        if not routes:
            return refusal(404, translate("access.no_such_route"))
        if not routes[0].admits(visitor):
            return refusal(403, translate("access.without_role"))
        if request.scope["path"] in PAGE_PATHS:
            request.scope["query_string"] = b""
        return routes[0]

    async def _stream(self, scope: Scope, receive: Receive, send: Send, visitor: Visitor | None) -> None:
        """Runs a streaming response until the browser leaves, the session ends or the server stops."""
        request = Request(scope)
        owner, replaced = visitor.annotator.id if visitor else 0, asyncio.Event()
        streams = self._streams[owner]
        streams.append(replaced)
        if len(streams) > MAX_STREAMS:
            streams.pop(0).set()
        ended = asyncio.create_task(self._wait_for_end(request, receive, replaced))
        started = complete = False

        async def receive_or_end() -> Message:
            return await asyncio.shield(ended)

        async def watched(message: Message) -> None:
            nonlocal started, complete
            started |= message["type"] == "http.response.start"
            complete |= message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self.app(scope, receive_or_end, watched)
            if started and not complete:
                await send({"type": "http.response.body", "body": b""})
        finally:
            ended.cancel()
            if replaced in streams:
                streams.remove(replaced)
            if not streams:
                self._streams.pop(owner, None)

    async def _wait_for_end(self, request: Request, receive: Receive, replaced: asyncio.Event) -> Message:
        """Waits until the stream has to end, and returns the disconnect message for the app."""
        left = asyncio.create_task(self._wait_for_disconnect(receive))
        stopping = asyncio.create_task(self._stopping.wait())
        replacing = asyncio.create_task(replaced.wait())
        try:
            while not (await asyncio.wait((left, stopping, replacing), timeout=RECHECK_S, return_when=asyncio.FIRST_COMPLETED))[0]:
                with suppress(StoreError):
                    if self.auth.visitor(request) is None:
                        break
        finally:
            left.cancel()
            stopping.cancel()
            replacing.cancel()
        return {"type": "http.disconnect"}

    async def _wait_for_disconnect(self, receive: Receive) -> None:
        with suppress(BadBody):
            while (await receive())["type"] != "http.disconnect":
                pass


def matching(routes: tuple[Route, ...], request: Request) -> Iterator[Route]:
    """The routes for the request's method and path. The path is exactly the one that the router will use."""
    method = "GET" if request.method == "HEAD" else request.method
    return (route for route in routes if route.method == method and re.fullmatch(route.path, request.scope["path"], re.DOTALL))


def not_signed_in(request: Request) -> Response:
    """The response for a visitor who is not signed in: a redirect to the sign-in page for a browser, 401 for other clients."""
    if request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", ""):
        return RELOAD_PAGE if request.headers.get("sec-fetch-site") == "cross-site" else RedirectResponse(SIGN_IN, 303)
    return refusal(401, translator_for(request)("auth.not_signed_in"))


def refusal(status: int, text: str) -> Response:
    """An error in the form that Gradio's JavaScript client expects."""
    return JSONResponse({"error": text, "detail": text}, status)


def refused_body(request: Request, error: BadBody) -> Response:
    return refusal(error.status_code, translator_for(request)(error.key, **error.values))


def with_status(send: Send, scope: Scope) -> Send:
    """Replaces Gradio's status 500 with the one that `feedback_ui.server.calls` has set for the handler's error."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 500:
            message["status"] = scope.get("state", {}).get("status", 500)
        await send(message)

    return sending


def with_headers(send: Send) -> Send:
    """Adds the headers of every response."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            # The next user of the same browser must not see a cached page of the previous one.
            if "text/html" in headers.get("content-type", "") or "json" in headers.get("content-type", ""):
                headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending
