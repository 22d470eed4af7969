"""Middleware of the policy server: accepts requests from this machine only, from no other site's pages, and of bounded size.

With an API key, requests from other machines are accepted too, and each must bring the key.

Leaves out the fields of a request, which its route validates.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Iterator

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlhf.generation.protocol.errors import error_object
from rlhf.serving.http_origin import is_from_elsewhere, on_this_machine

MAX_BODY_BYTES = 1 << 20
"""Most bytes of a request's body; the longest prompt allowed takes half of them with every character escaped."""

OPEN = frozenset({"/health"})
"""Paths that need no key: they say nothing but that the server runs."""

BODY_S = 10.0
"""How long a body may take to arrive, in seconds."""

STOPPING = "the policy server was stopped before the answer was whole: ask again when it runs"


class PolicyServerMiddleware:
    """ASGI middleware. Passes accepted requests on with their whole body; sends no CORS headers, so that no other site reads a response."""

    def __init__(self, app: ASGIApp, *, api_key: str = "", largest_body: int = MAX_BODY_BYTES, body_s: float = BODY_S):
        self.app, self.largest_body, self.body_s = app, largest_body, body_s
        self._authorization = f"Bearer {api_key}".encode() if api_key else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            response = self._refused(scope)
            if response is None and scope["method"] == "POST":
                response, receive = await self._read(receive)
            await self._answer(response or self.app, scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app. The server cancels what it still answers when it stops: the client is told so, and a stream ends with an error."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await app(scope, receive, watched)
        except asyncio.CancelledError:
            if started:
                event = f"data: {json.dumps(error_object(503, STOPPING))}\n\n"
                await send({"type": "http.response.body", "body": event.encode(), "more_body": False})
            else:
                await refusal(503, STOPPING)(scope, receive, send)

    def _refused(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        peer = (scope.get("client") or ("",))[0]
        # A page that reaches this server under another site's name cannot know the key.
        if not self._authorization and not on_this_machine(peer, headers.get("host", "")):
            named = repr(headers.get("host", ""))[:100]
            return refusal(421, f"the policy server answers only on this machine, as 127.0.0.1 or localhost, not as {named}")
        if is_from_elsewhere(scope["method"], headers):
            return refusal(403, "the policy server answers no pages of other sites; call it from a program")
        if self._authorization and scope["path"] not in OPEN and (response := self._without_key(scope)) is not None:
            return response
        if scope["method"] != "POST":
            # No route reads the body of another method.
            return None
        # A page cannot send JSON to another origin without a preflight request.
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return refusal(415, f"Content-Type is {repr(kind)[:100]}: send JSON as application/json")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self.largest_body:
            return self._too_large(length)
        return None

    def _without_key(self, scope: Scope) -> Response | None:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        # The comparison takes the same time wherever the two differ.
        if hmac.compare_digest(given, self._authorization):
            return None
        found = "a wrong API key" if given else "no API key"
        message = f"{found}: send the key of this server as `Authorization: Bearer KEY`"
        return refusal(401, message, code="invalid_api_key", **{"WWW-Authenticate": "Bearer"})

    def _too_large(self, found: str) -> Response:
        return refusal(413, f"the body has {found[:30]} bytes, of which {self.largest_body:,} are read: send a shorter conversation")

    async def _read(self, receive: Receive) -> tuple[Response | None, Receive]:
        """A channel that delivers the whole body again, or the response that refuses it."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.body_s):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return Response(status_code=400), receive
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    # Also without a Content-Length.
                    if len(body) > self.largest_body:
                        return self._too_large(f"more than {self.largest_body}"), receive
        except TimeoutError:
            return refusal(408, f"the body did not come within {self.body_s:g} s: send it again at once"), receive
        once: Iterator[Message] = iter([{"type": "http.request", "body": bytes(body), "more_body": False}])

        async def again() -> Message:
            return next(once, None) or await receive()

        return None, again


def refusal(status: int, text: str, *, code: str | None = None, **headers: str) -> JSONResponse:
    """In the shape of OpenAI's errors, whose clients show the message. The connection ends: a body may still be on its way."""
    return JSONResponse(error_object(status, text, code=code), status, headers={"Connection": "close", **headers})
