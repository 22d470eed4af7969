"""Prefixes session names with the visitor's id, so that no visitor can read, end or change another visitor's session.

A page chooses a random name for its session and sends it with each request. Gradio identifies sessions by that name alone:
anybody who learned it, from a log or a screen, could read the page's stream. Who is signed in is decided by
`feedback_ui.server.auth`, and how many sessions there are by `feedback_ui.server.sessions`.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.types import Scope

from feedback_ui.server.auth import Visitor

FIELD = "session_hash"
IN_PATH = re.compile(r"(/gradio_api/heartbeat/)(.+)", re.DOTALL)


def session_key(visitor: Visitor, name: str) -> str:
    return f"{visitor.annotator.id}.{name}"


def with_session_key(visitor: Visitor, body: Any) -> Any:
    """The body with the visitor's id before the session's name."""
    if isinstance(body, dict) and isinstance(body.get(FIELD), str):
        return body | {FIELD: session_key(visitor, body[FIELD])}
    return body


def with_session_key_in_url(visitor: Visitor, scope: Scope) -> Scope:
    """The request with the visitor's id before the session's name in its path or query."""
    query = scope["query_string"].decode("latin-1")
    if FIELD in query:
        pairs = [
            (name, session_key(visitor, value) if name == FIELD else value) for name, value in parse_qsl(query, keep_blank_values=True)
        ]
        scope = {**scope, "query_string": urlencode(pairs).encode()}
    if match := IN_PATH.fullmatch(scope["path"]):
        scope = {**scope, "path": match[1] + session_key(visitor, match[2])}
    return scope
