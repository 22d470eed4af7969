"""Each visitor's sessions have names of their own, so that nobody hears, ends or changes what another one's page has begun.

A page gives its session a name at random and sends it along. Gradio goes by that name alone: whoever learned it, from a log or a
screen, could read the page's stream. Here the visitor's number is put before it. Leaves out who is signed in, and how many
sessions there are: `feedback_ui.server.auth`, `feedback_ui.server.sessions`.
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
    """The body, with the session's name in it made the visitor's own."""
    if isinstance(body, dict) and isinstance(body.get(FIELD), str):
        return body | {FIELD: session_key(visitor, body[FIELD])}
    return body


def with_session_key_in_url(visitor: Visitor, scope: Scope) -> Scope:
    """The same request, with the session's name in its path or query made the visitor's own."""
    query = scope["query_string"].decode("latin-1")
    if FIELD in query:
        pairs = [
            (name, session_key(visitor, value) if name == FIELD else value) for name, value in parse_qsl(query, keep_blank_values=True)
        ]
        scope = {**scope, "query_string": urlencode(pairs).encode()}
    if found := IN_PATH.fullmatch(scope["path"]):
        scope = {**scope, "path": found[1] + session_key(visitor, found[2])}
    return scope
