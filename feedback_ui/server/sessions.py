"""Gradio sessions that use little memory: limited in number, and dropped soon after their page has closed.

Gradio copies the configuration of every component into each session, for links that restore a page's state; this app has no such
links, and the copy takes .4 MiB and 50 ms. A session holds only values that events have changed, and no judgments or settings: a
page whose session was dropped gets a new one with the initial values. A `gr.State` with a `delete_callback` is told of its session's end.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from copy import copy
from datetime import datetime
from typing import Any

import gradio as gr
from gradio.state_holder import SessionState, StateHolder
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from feedback_ui.server.bodies import BadBody

CAPACITY = 300
"""Maximum number of sessions at the same time: fifty people with six pages each."""

GRACE_S = 120.0
"""How long a session is kept after its heartbeat has ended, in seconds, so that a page can reconnect."""

PAGE_HEARTBEAT_S = 15.0
"""How often the server sends a heartbeat to an open page, in seconds."""

MAX_SESSION_NAME_CHARS = 64
"""Maximum number of characters in a session's name; Gradio's pages use eleven."""


class LeanSession(SessionState):
    """A session without the copy of every component's configuration."""

    def __init__(self, blocks: gr.Blocks):
        # Gradio's own constructor is not called, because it makes the copy.
        self.blocks_config = copy(blocks.default_config)
        self.config_values: dict[int, Any] = {}
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict[int, Any] = {}
        self.is_closed = False
        self.STATE_TTL_WHEN_CLOSED = int(GRACE_S)

    def __setitem__(self, key: int, value: Any) -> None:
        if isinstance(block := self.blocks_config.blocks.get(key), gr.State):
            self._state_ttl[key] = (block.time_to_live, datetime.now())
            self.state_data[key] = value
        else:
            self.blocks_config.blocks[key] = value

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


class Sessions(StateHolder):
    """All sessions of the app, ordered by their last use. Everything here runs in the server's event loop."""

    def __init__(self, blocks: gr.Blocks, capacity: int = CAPACITY, grace_s: float = GRACE_S):
        super().__init__()  # type: ignore[no-untyped-call]  # Gradio's constructor has no annotations
        blocks.state_session_capacity = capacity
        self.set_blocks(blocks)
        self._grace_s = grace_s
        self._open: Counter[str] = Counter()

    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            while len(self.session_data) >= self.capacity:
                self._drop(self._eviction_candidate())
            self.session_data[session_id] = LeanSession(self.blocks)
        self.session_data.move_to_end(session_id)
        return self.session_data[session_id]

    async def heartbeat(self, request: Request) -> Response:
        """A stream that stays open as long as the page; some time after its end, the session is dropped."""
        name = session_name(request.path_params["session_hash"])
        return StreamingResponse(self._beats(name), media_type="text/event-stream")

    async def _beats(self, name: str) -> AsyncIterator[str]:
        self._open[name] += 1
        try:
            while True:
                yield "data: ALIVE\n\n"
                await asyncio.sleep(PAGE_HEARTBEAT_S)
        finally:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]
                asyncio.get_running_loop().call_later(self._grace_s, self._drop_if_gone, name)

    def _drop_if_gone(self, name: str) -> None:
        if name not in self._open:
            self._drop(name)

    def _eviction_candidate(self) -> str:
        """The least recently used session without a heartbeat, or of all sessions if each has one."""
        return next((name for name in self.session_data if name not in self._open), next(iter(self.session_data)))

    def _drop(self, name: str) -> None:
        if session := self.session_data.pop(name, None):
            for state, value, _ in session.state_components:
                state.delete_callback(value)
        queue = self.blocks._queue
        # Messages that a closed page will not fetch; they are kept while an event of the session still runs.
        if not any(event.session_hash == name for event in queue.event_ids_to_events.values()):
            queue.pending_messages_per_session.pop(name, None)
            queue.pending_event_ids_session.pop(name, None)


def session_name(name: Any) -> str:
    """Checks the name of a session.

    Raises:
        BadBody: the name is not one that a page generates.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_SESSION_NAME_CHARS or not name.isascii() or not name.isprintable():
        raise BadBody(400, "body.no_session")
    return name
