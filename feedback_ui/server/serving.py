"""Starts and stops the web server: uvicorn in its own thread, from binding the socket to a quick shutdown."""

from __future__ import annotations

import asyncio
import gc
import socket
from functools import partial
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any, Protocol, cast

import uvicorn
from anyio import to_thread

from feedback_ui.server.connections import ConnectionLimits, LimitedConnection

START_S = 30.0
"""Maximum time for the server to start, in seconds."""
THREADS = 8
"""Number of handlers that run at the same time. They share one interpreter, so that more threads would only slow all of them down."""
FRONT_KEEP_ALIVE_S = 60
"""How long an idle connection of the front stays open, in seconds. The front ends it sooner, so that it never sends into a closed one."""
FINISH_S = 3.0
"""How long running requests may take after the server is told to stop, in seconds."""


class App(Protocol):
    """What is served: an ASGI app that can end its streams."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def end_streams(self) -> None: ...


class Serving:
    """Serves a web app at `host:port` from its construction until `stop`, or at a Unix socket of this path if one is given.

    Raises:
        OSError: the address cannot be bound, or the server did not come up.
    """

    def __init__(self, web: App, host: str, port: int, limits: ConnectionLimits | None = None, *, socket_path: Path | None = None):
        self._socket = unix_socket(socket_path) if socket_path else bound_socket(host, port)
        self.host: str = str(socket_path) if socket_path else self._socket.getsockname()[0]
        self.port: int = 0 if socket_path else self._socket.getsockname()[1]
        self.limits = limits or ConnectionLimits()
        # uvicorn's default: only a proxy on this machine may report the client's address and scheme. A socket that is a file is this
        # program's own: whoever connects there is its front, which keeps connections open for longer than other clients may.
        options: dict[str, Any] = {"forwarded_allow_ips": "*", "timeout_keep_alive": FRONT_KEEP_ALIVE_S} if socket_path else {}
        # No page uses a websocket.
        config = uvicorn.Config(
            web,
            **options,
            log_level="warning",
            server_header=False,
            date_header=True,
            # Any callable that makes a protocol will do; uvicorn names a class.
            http=cast(type[asyncio.Protocol], partial(LimitedConnection, limits=self.limits)),
            ws="none",
        )
        self._server = _Server(config, web, self.limits)
        self._thread = Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, name="rl-web", daemon=True)
        # The pages are never freed: excluding them from garbage collection avoids pauses of all requests.
        gc.freeze()
        self._thread.start()
        deadline = monotonic() + START_S
        while not self._server.started:
            if not self._thread.is_alive() or monotonic() > deadline:
                raise OSError(f"the web server did not start at {host}:{port}: the lines above say why")
            sleep(0.005)

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stops the server. Requests that take longer than `FINISH_S` are cut off."""
        self._server.should_exit = True
        self._thread.join(FINISH_S)
        self._server.force_exit = True
        self._thread.join(FINISH_S)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, web: App, limits: ConnectionLimits):
        super().__init__(config)
        self._web = web
        self._limits = limits

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        # Ten ticks make a second.
        if counter % 5 == 0:
            self._limits.end_overdue(asyncio.get_running_loop().time(), self.server_state.connections)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn waits for responses to end, and a page's streams never do.
        self._web.end_streams()
        await super().shutdown(sockets)


def unix_socket(path: Path) -> socket.socket:
    """A socket bound to a path, in a folder that only its owner may enter.

    Raises:
        OSError: the path is too long, or its folder is not there.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # That of a process that was killed.
    path.unlink(missing_ok=True)
    try:
        made.bind(str(path))
    except OSError:
        made.close()
        raise
    return made


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket bound to the host's first address.

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
