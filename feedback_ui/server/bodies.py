"""What a request may bring along: how much, how slowly, and as JSON that means the same to everybody who reads it.

A body is counted while it streams in. JSON is read whole, looked through and written again before anything else reads it, so
that what was looked at is what is acted on. Leaves out which values a handler takes: `feedback_ui.server.calls`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

Kind = Literal["json", "form", "upload"]

MIB = 2**20

LONGEST_UPLOAD = 64 * MIB
"""The largest file that a page takes, in bytes. `rankloop import` on the server has no such limit."""

LONGEST: Mapping[Kind, int] = {"json": MIB, "form": 2**16, "upload": LONGEST_UPLOAD + 2**16}
"""The most that a body may have, in bytes. JSON holds everything but files: a judgment with its texts, or prompts that were
typed. An upload has the form around the file as well."""

SLOWEST_S: Mapping[Kind, float] = {"json": 30.0, "form": 30.0, "upload": 600.0}
"""The longest that a body may take to come in, in seconds."""

MOST_PARTS = 50_000
"""The most lists and objects in one body: a megabyte of brackets would keep the event loop busy for a tenth of a second."""

DEEPEST = 64
"""How deep lists and objects may lie in each other; what reads them recurses."""

LARGEST = 2**63 - 1
"""The largest number either way: what SQLite can keep."""


class BadBody(HTTPException):
    """A body that is refused. `key` names the text that says why, `values` fill it."""

    def __init__(self, status: int, key: str, **values: Any):
        super().__init__(status, key)
        self.key, self.values = key, values


def too_long(kind: Kind) -> BadBody:
    limit = LONGEST_UPLOAD if kind == "upload" else LONGEST[kind]
    return BadBody(413, f"body.too_long_{kind}", limit=f"{limit / MIB:g}")


def limited(receive: Receive, kind: Kind, headers: Mapping[str, str]) -> Receive:
    """The same body, which ends in an error once it is too long or too slow. Keeps nothing of it.

    Raises:
        BadBody: at once if the headers say that it is too long; the returned function while it comes in.
    """
    declared = headers.get("content-length", "")
    # The server has checked that it is a number.
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > LONGEST[kind]:
        raise too_long(kind)
    received = 0
    whole = False
    give_up_at = asyncio.get_running_loop().time() + SLOWEST_S[kind]

    async def receiving() -> Message:
        nonlocal received, whole
        if whole:
            return await receive()
        try:
            async with asyncio.timeout_at(give_up_at):
                message = await receive()
        except TimeoutError:
            raise BadBody(408, "body.too_slow", seconds=f"{SLOWEST_S[kind]:g}") from None
        received += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if received > LONGEST[kind]:
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
    """A `receive` that brings this body, and then what the other one brings."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return waiting.pop() if waiting else await receive()

    return receiving


def decoded(body: bytes) -> Any:
    """The JSON of a body, by the letter of RFC 8259 and with each name once.

    Raises:
        BadBody: it is no such JSON, nests deeper than `DEEPEST`, has more than `MOST_PARTS` parts or a number beyond `LARGEST`, or
            spells half a character.
    """
    try:
        text = body.decode("utf-8")
        if text.count("[") + text.count("{") > MOST_PARTS:
            raise BadBody(413, "body.too_many_parts", limit=f"{MOST_PARTS:,}")
        value = json.loads(text, object_pairs_hook=_each_name_once, parse_constant=_no_number)
    except RecursionError:
        raise BadBody(400, "body.too_deep", limit=DEEPEST) from None
    except ValueError:
        raise BadBody(400, "body.no_json") from None
    if "\\u" in text:
        encoded(value)
    for item, depth in everything_in(value):
        if depth > DEEPEST:
            raise BadBody(400, "body.too_deep", limit=DEEPEST)
        # Not-a-number is neither above nor below anything.
        if isinstance(item, (int, float)) and not -LARGEST <= item <= LARGEST:
            raise BadBody(400, "body.too_large_a_number")
    return value


def encoded(value: Any) -> bytes:
    """The body that says this.

    Raises:
        BadBody: a text in it holds half a character, which JSON may spell and UTF-8 cannot.
    """
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        raise BadBody(400, "body.half_a_character") from None


def everything_in(value: Any) -> Iterator[tuple[Any, int]]:
    """Each value in a JSON value, itself too, and how deep it lies."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        yield item, depth
        if isinstance(item, dict):
            waiting += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            waiting += [(inner, depth + 1) for inner in item]


def file_claims(value: Any) -> list[dict[str, Any]]:
    """Every object that says it is a file: what Gradio takes for one, and what any version of it might."""
    return [item for item, _ in everything_in(value) if isinstance(item, dict) and _is_claim(item)]


def _is_claim(item: dict[str, Any]) -> bool:
    meta = item.get("meta")
    # A name such as `path` may be somebody's own, for a rating; its value is a number then.
    return isinstance(item.get("path"), (str, list, dict)) or (isinstance(meta, dict) and "_type" in meta)


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name comes twice")
    return made


def _no_number(said: str) -> Any:
    raise ValueError(f"{said} is no number of JSON's")


Check = Callable[[str, Any, list[dict[str, Any]]], Any]
"""Takes a path, the JSON that was sent there and the files in it; returns what is passed on, or raises BadBody."""
