"""How long a connection may take to say what it wants, and who has to go when there are too many.

uvicorn waits for ever for a request that does not end, keeps whatever comes as its headers, and takes connections until the process
has no files left. Here a connection that waits has a time limit, and when all places are taken the one that has waited longest gives
way to the newcomer: whoever sends a whole request at once waits for a moment only. Leaves out streams, of which each account has a
number (`feedback_ui.server.access`), and how long a body may take once somebody reads it (`feedback_ui.server.bodies`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

try:
    import resource
except ImportError:
    # Windows, where a process has files enough.
    resource = None  # type: ignore[assignment]  # there is no such module

LONGEST_HEADERS = 2**16
"""The most bytes around a body: the request line, headers, the frames of chunks, trailers."""

FILES_KEPT_BACK = 200
"""File descriptors that connections leave free: the store has three for each thread, and uploads, logs and libraries have some."""


MOST_PLACES = 1000


def max_connections() -> int:
    """How many connections there may be, by how many files the process may have open."""
    if resource is None or (files := resource.getrlimit(resource.RLIMIT_NOFILE)[0]) == resource.RLIM_INFINITY:
        return MOST_PLACES
    return max(64, min(MOST_PLACES, files - FILES_KEPT_BACK))


@dataclass
class ConnectionLimits:
    """What the connections of one server may do, and which of them wait for something to come.

    Times are in seconds.
    """

    places: int = field(default_factory=max_connections)
    """The most connections at a time."""
    headers_s: float = 10.0
    """From the first byte of a request, or from connecting, to the end of the headers."""
    rest_s: float = 30.0
    """For a body that nobody reads any more, because the request is answered."""
    unread_s: float = 60.0
    """For a browser to fetch what is written to it."""
    waiting: dict[LimitedConnection, None] = field(default_factory=dict)
    """Connections whose request has not come in whole, or that have none; the one that has waited longest is first."""
    open: int = 0

    def end_overdue(self, now: float, connections: set[Any]) -> None:
        """Ends the connections whose time is over. Call it about every second, in the server's loop."""
        for connection in [each for each in connections if isinstance(each, LimitedConnection) and each.due is not None and each.due < now]:
            connection.give_up()


class LimitedConnection(HttpToolsProtocol):
    """One connection: uvicorn's, with limits."""

    def __init__(self, *, patience: ConnectionLimits, **options: Any):
        super().__init__(**options)
        self.patience = patience
        self.due: float | None = None
        """When the connection is given up, by the loop's clock, unless it moves on."""
        self._in_headers = True
        self._message_whole = True
        self._around = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.patience.open += 1
        if self.patience.open > self.patience.places:
            if not self.patience.waiting:
                # Everybody here is being answered.
                self.refuse(503, b"All places are taken: try again in a moment.")
                return
            longest = next(iter(self.patience.waiting))
            longest._move_on()
            longest.transport.abort()
        self._wait(self.patience.headers_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self.patience.open -= 1
        self._move_on()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._around += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._around > LONGEST_HEADERS:
            self.refuse(431, b"The headers are too long.")
        elif self.due is None and self._message_whole and self._is_idle():
            # Line ends before a request, which begin none.
            self._wait(self.patience.headers_s)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers, self._message_whole = True, False
        if self._is_idle():
            self._wait(self.patience.headers_s)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self.due = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        # Frames may take as much as what they frame, and no more.
        self._around = max(0, self._around - 2 * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._message_whole = True
        self._around = 0
        if self.cycle is not None and self.cycle.response_complete:
            # uvicorn's time limit for idle connections began with the answer, and ended with what came after it.
            self._wait(self.patience.headers_s)
        else:
            self._move_on()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if not self._message_whole:
            self._wait(self.patience.rest_s)
        elif self._is_idle():
            # uvicorn has a time limit for this.
            self._wait(None)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.due = self.loop.time() + self.patience.unread_s

    def resume_writing(self) -> None:
        super().resume_writing()
        self.due = None

    def give_up(self) -> None:
        """The time is over."""
        self.due = None
        if self._in_headers and self._around and not self.transport.is_closing():
            self.refuse(408, b"The request did not come in time.")
        else:
            self.transport.abort()

    def refuse(self, status: int, text: bytes) -> None:
        """Answers without the app, and closes."""
        if not self._is_idle():
            # Not into an answer that is being written.
            self.transport.abort()
            return
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(text)
        self.transport.write(STATUS_LINE[status] + head + text)
        self.transport.close()
        # A browser that does not fetch even this is not waited for long.
        self.due = self.loop.time() + self.patience.headers_s

    def _is_idle(self) -> bool:
        return not self.pipeline and (self.cycle is None or self.cycle.response_complete)

    def _wait(self, seconds: float | None) -> None:
        self.patience.waiting[self] = None
        self.due = None if seconds is None else self.loop.time() + seconds

    def _move_on(self) -> None:
        self.patience.waiting.pop(self, None)
