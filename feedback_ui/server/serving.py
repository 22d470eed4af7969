"""The web server's life: uvicorn in a thread of its own, from the bound socket to a quick and quiet end."""

from __future__ import annotations

import asyncio
import gc
import socket
from functools import partial
from threading import Thread
from time import monotonic, sleep
from typing import cast

import uvicorn
from anyio import to_thread

from feedback_ui.server.connections import ConnectionLimits, LimitedConnection
from feedback_ui.server.web import Web

START_S = 30.0
"""Longest wait for the server to answer, in seconds."""
THREADS = 8
"""Handlers at work at once. They share one interpreter: more of them only take turns more often, and all answer later."""
FINISH_S = 3.0
"""How long requests that are under way may still take when the server stops, in seconds."""


class Serving:
    """A web app that answers at `host:port` from when it is made until `stop`.

    Raises:
        OSError: the address cannot be bound, or the server did not come up.
    """

    def __init__(self, web: Web, host: str, port: int, patience: ConnectionLimits | None = None):
        self._socket = bound(host, port)
        self.host, self.port = self._socket.getsockname()[:2]
        self.patience = patience or ConnectionLimits()
        # A proxy before the server may say who asks and by which scheme only if it is on this machine: uvicorn's default.
        # No page uses a websocket.
        config = uvicorn.Config(
            web,
            log_level="warning",
            server_header=False,
            date_header=True,
            # Any callable that makes a protocol will do; uvicorn names a class.
            http=cast(type[asyncio.Protocol], partial(LimitedConnection, patience=self.patience)),
            ws="none",
        )
        self._server = _Server(config, web, self.patience)
        self._thread = Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, name="rl-web", daemon=True)
        # The pages stay as they are: to look through them for garbage again and again would stop everybody each time.
        gc.freeze()
        self._thread.start()
        give_up_at = monotonic() + START_S
        while not self._server.started:
            if not self._thread.is_alive() or monotonic() > give_up_at:
                raise OSError(f"the web server did not start at {host}:{port}: the lines above say why")
            sleep(0.005)

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ends it. Requests that take longer than a moment are cut off."""
        self._server.should_exit = True
        self._thread.join(FINISH_S)
        self._server.force_exit = True
        self._thread.join(FINISH_S)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, web: Web, patience: ConnectionLimits):
        super().__init__(config)
        self._web = web
        self._patience = patience

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        # Ten ticks are a second.
        if counter % 5 == 0:
            self._patience.end_overdue(asyncio.get_running_loop().time(), self.server_state.connections)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn waits for responses to end, and a page's streams never do.
        self._web.end_streams()
        await super().shutdown(sockets)


def bound(host: str, port: int) -> socket.socket:
    """A socket at the first address that the host has.

    Raises:
        OSError: there is no such host here, or the port is taken.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made
