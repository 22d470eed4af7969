"""Time limits for slow connections, and a limit on their number.

uvicorn waits without limit for an incomplete request, stores headers of any size, and accepts connections until the process has no
file descriptors left. Here a waiting connection has a time limit, and when the limit on connections is reached, a new one replaces
the one that has waited longest; a client that sends its whole request at once waits only for a moment. Streams are limited per
account by `feedback_ui.server.access`, and the time to read a body by `feedback_ui.server.bodies`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

try:
    import resource
except ImportError:
    # Windows, where the number of open files is no concern.
    resource = None  # type: ignore[assignment]  # there is no such module

MAX_HEADER_BYTES = 2**16
"""Maximum bytes around a body: request line, headers, chunk framing and trailers."""

RESERVED_DESCRIPTORS = 200
"""File descriptors that are not used for connections: the store needs three per thread, and uploads, logs and libraries need some."""


MAX_CONNECTIONS = 1000


def max_connections() -> int:
    """Maximum number of connections, from the process's limit on open files."""
    if resource is None or (files := resource.getrlimit(resource.RLIMIT_NOFILE)[0]) == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(64, min(MAX_CONNECTIONS, files - RESERVED_DESCRIPTORS))


@dataclass
class ConnectionLimits:
    """Limits of one server's connections, in seconds, and the connections that wait for data."""

    capacity: int = field(default_factory=max_connections)
    """Maximum number of connections at the same time."""
    headers_s: float = 10.0
    """From the first byte of a request, or from connecting, to the end of the headers."""
    rest_s: float = 30.0
    """For the rest of a body after the request has been answered."""
    unread_s: float = 60.0
    """For a client to read data that is written to it."""
    waiting: dict[LimitedConnection, None] = field(default_factory=dict)
    """Connections without a complete request, the one that has waited longest first."""
    open: int = 0

    def end_overdue(self, now: float, connections: set[Any]) -> None:
        """Ends connections past their time limit. Call it about every second, in the server's event loop."""
        for connection in [each for each in connections if isinstance(each, LimitedConnection) and each.due is not None and each.due < now]:
            connection.time_out()


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's HTTP connection, with limits."""

    def __init__(self, *, limits: ConnectionLimits, **options: Any):
        super().__init__(**options)
        self.limits = limits
        self.due: float | None = None
        """The event loop's time at which the connection is ended, unless it makes progress; None without a limit."""
        self._in_headers = True
        self._message_complete = True
        self._framing_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.limits.open += 1
        if self.limits.open > self.limits.capacity:
            if not self.limits.waiting:
                # Every open connection is being answered.
                self.refuse(503, b"Too many connections are open: try again in a moment.")
                return
            longest = next(iter(self.limits.waiting))
            longest._stop_waiting()
            longest.transport.abort()
        self._wait(self.limits.headers_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self.limits.open -= 1
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._framing_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._framing_bytes > MAX_HEADER_BYTES:
            self.refuse(431, b"The headers are too long.")
        elif self.due is None and self._message_complete and self._is_idle():
            # Line ends before a request do not begin one.
            self._wait(self.limits.headers_s)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers, self._message_complete = True, False
        if self._is_idle():
            self._wait(self.limits.headers_s)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self.due = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        # Chunk framing may be as large as the data, and no larger.
        self._framing_bytes = max(0, self._framing_bytes - 2 * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._message_complete = True
        self._framing_bytes = 0
        if self.cycle is not None and self.cycle.response_complete:
            # uvicorn's idle timeout began with the response and was cancelled by the data after it.
            self._wait(self.limits.headers_s)
        else:
            self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if not self._message_complete:
            self._wait(self.limits.rest_s)
        elif self._is_idle():
            # uvicorn's own idle timeout applies.
            self._wait(None)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.due = self.loop.time() + self.limits.unread_s

    def resume_writing(self) -> None:
        super().resume_writing()
        self.due = None

    def time_out(self) -> None:
        """Ends the connection after its time limit: with 408 if the headers are incomplete, otherwise without a response."""
        self.due = None
        if self._in_headers and self._framing_bytes and not self.transport.is_closing():
            self.refuse(408, b"The request did not arrive in time.")
        else:
            self.transport.abort()

    def refuse(self, status: int, text: bytes) -> None:
        """Sends an error response without calling the app, and closes the connection."""
        if not self._is_idle():
            # A response is being written: nothing can be inserted into it.
            self.transport.abort()
            return
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(text)
        self.transport.write(STATUS_LINE[status] + head + text)
        self.transport.close()
        # Limits the wait for a client that does not read this response.
        self.due = self.loop.time() + self.limits.headers_s

    def _is_idle(self) -> bool:
        return not self.pipeline and (self.cycle is None or self.cycle.response_complete)

    def _wait(self, seconds: float | None) -> None:
        self.limits.waiting[self] = None
        self.due = None if seconds is None else self.loop.time() + seconds

    def _stop_waiting(self) -> None:
        self.limits.waiting.pop(self, None)
