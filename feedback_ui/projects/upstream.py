"""Passes requests on to a project's process, over a Unix socket that nobody else can open.

Bodies and streams go through piece by piece, and nothing is stored. Who may send a request is decided before, in
`feedback_ui.projects.front`, and again in the project's process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast
from urllib.parse import quote

import httpx2
from starlette.types import Receive, Scope, Send

KEEP_ALIVE_S = 20.0
"""How long an idle connection is kept, in seconds: for less time than the project's process keeps it (`FRONT_KEEP_ALIVE_S`)."""

MAX_IDLE_CONNECTIONS = 100

TIMEOUT = {"connect": 5.0, "pool": 5.0, "write": 60.0, "read": None}
"""In seconds. There is no limit for reading: a page's stream may be silent, and a browser that leaves ends its request."""

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
     b"transfer-encoding", b"upgrade")
)  # fmt: skip
"""Headers of one connection (RFC 9110, section 7.6.1)."""

NOT_SENT = HOP_BY_HOP | {b"expect", b"forwarded", b"x-real-ip"}
"""Headers of a request that are not passed on, besides all `x-forwarded-*`: the front says itself from where a request comes."""

NOT_RETURNED = HOP_BY_HOP | {b"date", b"server"}
"""Headers of a response that the front's own server writes."""


class ProjectDown(Exception):
    """The project's process does not answer: it starts, or it has ended and is being started again."""


class Upstream:
    """The process of one project. Use it in one event loop."""

    def __init__(self, socket_path: Path):
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=MAX_IDLE_CONNECTIONS, keepalive_expiry=KEEP_ALIVE_S)
        self._transport = httpx2.AsyncHTTPTransport(uds=str(socket_path), limits=limits)
        self._streams: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def close(self) -> None:
        """Closes idle connections. Call it from another thread than the event loop's."""
        if self._loop and self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self._transport.aclose(), self._loop).result()

    def end_streams(self) -> None:
        """Ends all streams, which would otherwise keep the server from stopping. Call it in the event loop."""
        for exchange in self._streams:
            exchange.cancel()

    async def forward(self, scope: Scope, path: str, receive: Receive, send: Send, *, stream: bool = False) -> None:
        """Sends the request to the project under this path, and the answer to the browser, until one side ends it; a stream also ends
        with `end_streams`.

        Raises:
            ProjectDown: the process did not answer, and nothing has been sent to the browser.
            BadBody: the body is refused while it arrives (`feedback_ui.server.bodies`).
        """
        self._loop, all_sent = asyncio.get_running_loop(), asyncio.Event()
        exchange = asyncio.create_task(self._exchange(request_of(scope, path, receive, all_sent), send))
        if stream:
            self._streams.add(exchange)
        leaving = asyncio.create_task(_until_left(receive, all_sent))
        try:
            await asyncio.wait((exchange, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            exchange.cancel()
            await asyncio.wait((exchange,))
            self._streams.discard(exchange)
        if not exchange.cancelled():
            exchange.result()

    async def _exchange(self, request: httpx2.Request, send: Send) -> None:
        begun = False
        try:
            response = await self._transport.handle_async_request(request)
            try:
                headers = [pair for pair in response.headers.raw if pair[0].lower() not in NOT_RETURNED]
                begun = True
                await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
                async for piece in cast(AsyncIterator[bytes], response.stream):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            finally:
                await response.aclose()
        except httpx2.TransportError as error:
            # After the beginning of a response its end is left out, so that the browser sees that it is not whole.
            if not begun:
                raise ProjectDown("its process does not answer") from error
            return
        except asyncio.CancelledError:
            if begun:
                await send({"type": "http.response.body", "body": b""})
            raise
        await send({"type": "http.response.body", "body": b""})


def request_of(scope: Scope, path: str, receive: Receive, all_sent: asyncio.Event) -> httpx2.Request:
    """The request as the project gets it; `all_sent` is set when its body has been read to its end."""
    has_body = scope["method"] == "POST"
    dropped = NOT_SENT if has_body else NOT_SENT | {b"content-length"}
    headers = [pair for pair in scope["headers"] if pair[0] not in dropped and not pair[0].startswith(b"x-forwarded-")]
    client = scope["client"][0] if scope.get("client") else ""
    headers += [(b"x-forwarded-for", client.encode("latin-1", "replace")), (b"x-forwarded-proto", scope["scheme"].encode())]
    # Encoded anew from the path that was checked, and sent as it is: the project must get that path and no other spelling of it.
    # httpx2 alone would resolve `..` in it.
    target = quote(path, safe="/").encode()
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    if not has_body:
        all_sent.set()
    return httpx2.Request(
        scope["method"],
        "http://project",
        headers=headers,
        content=_body(receive, all_sent) if has_body else None,
        extensions={"timeout": TIMEOUT, "target": target},
    )


async def _body(receive: Receive, all_sent: asyncio.Event) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        yield message.get("body", b"")
        if not message.get("more_body", False):
            all_sent.set()
            return


async def _until_left(receive: Receive, all_sent: asyncio.Event) -> None:
    """Returns when the browser has ended its request."""
    await all_sent.wait()
    while (await receive())["type"] != "http.disconnect":
        pass
