"""Limits and checks of request bodies: size, time to arrive, and unambiguous JSON.

Bytes are counted while a body streams in. JSON is parsed, checked and serialised again before anything else reads it, so that
the checked value is the one that is used. Which values a handler takes is checked by `feedback_ui.server.calls`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

BodyKind = Literal["json", "form", "upload"]

MIB = 2**20

MAX_UPLOAD_BYTES = 64 * MIB
"""The largest file that can be uploaded, in bytes. `rankloop import` on the server has no such limit."""

MAX_BODY_BYTES: Mapping[BodyKind, int] = {"json": MIB, "form": 2**16, "upload": MAX_UPLOAD_BYTES + 2**16}
"""The largest body of each kind, in bytes. JSON carries everything but files, such as a judgment with its texts or typed prompts.
The limit of an upload includes the form around the file."""

BODY_TIMEOUT_S: Mapping[BodyKind, float] = {"json": 30.0, "form": 30.0, "upload": 600.0}
"""The longest time for a body to arrive, in seconds."""

MAX_PARTS = 50_000
"""Maximum number of lists and objects in one body: a megabyte of brackets would block the event loop for a tenth of a second."""

MAX_DEPTH = 64
"""The deepest nesting of lists and objects; code that reads them recurses."""

MAX_NUMBER = 2**63 - 1
"""The largest absolute value of a number: the limit of SQLite's integers."""


class BadBody(HTTPException):
    """A refused body. `key` names the translated reason, and `values` fill its placeholders."""

    def __init__(self, status: int, key: str, **values: Any):
        super().__init__(status, key)
        self.key, self.values = key, values


def too_long(kind: BodyKind) -> BadBody:
    limit = MAX_UPLOAD_BYTES if kind == "upload" else MAX_BODY_BYTES[kind]
    return BadBody(413, f"body.too_long_{kind}", limit=f"{limit / MIB:g}")


def limited(receive: Receive, kind: BodyKind, headers: Mapping[str, str]) -> Receive:
    """A `receive` for the same body that raises once the body is too long or too slow. It stores nothing.

    Raises:
        BadBody: at once if the content length is too large; otherwise from the returned function, while the body arrives.
    """
    declared = headers.get("content-length", "")
    # The server has checked that it is a number.
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > MAX_BODY_BYTES[kind]:
        raise too_long(kind)
    received = 0
    complete = False
    deadline = asyncio.get_running_loop().time() + BODY_TIMEOUT_S[kind]

    async def receiving() -> Message:
        nonlocal received, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise BadBody(408, "body.too_slow", seconds=f"{BODY_TIMEOUT_S[kind]:g}") from None
        received += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if received > MAX_BODY_BYTES[kind]:
            raise too_long(kind)
        return message

    return receiving


async def read(receive: Receive) -> bytes | None:
    """All of the body; None if the browser left before its end.

    Raises:
        BadBody: as `limited` says.
    """
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns this body first, and then the messages of the other one."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return waiting.pop() if waiting else await receive()

    return receiving


def decoded(body: bytes) -> Any:
    """Parses a body as JSON, strictly by RFC 8259 and without duplicate names.

    Raises:
        BadBody: it is not such JSON, nests deeper than `MAX_DEPTH`, has more than `MAX_PARTS` parts or a number beyond `MAX_NUMBER`, or
            contains a lone surrogate.
    """
    try:
        text = body.decode("utf-8")
        if text.count("[") + text.count("{") > MAX_PARTS:
            raise BadBody(413, "body.too_many_parts", limit=f"{MAX_PARTS:,}")
        value = json.loads(text, object_pairs_hook=_reject_duplicate_names, parse_constant=_reject_constant)
    except RecursionError:
        raise BadBody(400, "body.too_deep", limit=MAX_DEPTH) from None
    except ValueError:
        raise BadBody(400, "body.no_json") from None
    if "\\u" in text:
        encoded(value)
    for item, depth in walk(value):
        if depth > MAX_DEPTH:
            raise BadBody(400, "body.too_deep", limit=MAX_DEPTH)
        # NaN fails both comparisons, and is refused too.
        if isinstance(item, (int, float)) and not -MAX_NUMBER <= item <= MAX_NUMBER:
            raise BadBody(400, "body.too_large_a_number")
    return value


def encoded(value: Any) -> bytes:
    """Serialises a value as a JSON body.

    Raises:
        BadBody: a text contains a lone surrogate, which JSON can spell and UTF-8 cannot.
    """
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        raise BadBody(400, "body.half_a_character") from None


def walk(value: Any) -> Iterator[tuple[Any, int]]:
    """Every value nested in a JSON value, itself included, with its depth."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        yield item, depth
        if isinstance(item, dict):
            waiting += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            waiting += [(inner, depth + 1) for inner in item]


def file_claims(value: Any) -> list[dict[str, Any]]:
    """Every object that some version of Gradio may take for a file."""
    return [item for item, _ in walk(value) if isinstance(item, dict) and _is_claim(item)]


def _is_claim(item: dict[str, Any]) -> bool:
    meta = item.get("meta")
    # An aspect may be named `path`; its value is a number.
    return isinstance(item.get("path"), (str, list, dict)) or (isinstance(meta, dict) and "_type" in meta)


def _reject_duplicate_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name comes twice")
    return made


def _reject_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON's")


BodyCheck = Callable[[str, Any, list[dict[str, Any]]], Any]
"""Takes a path, the JSON that was sent there and the files in it; returns the JSON to pass on, or raises BadBody."""
