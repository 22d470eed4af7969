"""What reaches the policy server's routes: whole JSON bodies of bounded size, from this machine."""

import asyncio

import pytest

from rlhf.generation.http_guard import PolicyServerMiddleware

JSON = {"content-type": "application/json"}


def asked(pieces, *, method="POST", peer="127.0.0.1", host="localhost", wait_s=0.0, **headers):
    """The status of the response, and the body that the app behind got; None if it was not asked."""
    sent, bodies = [], []

    async def app(scope, receive, send):
        bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        await asyncio.sleep(wait_s)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message):
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in ({"host": host} | headers).items()]
    scope = {"type": "http", "method": method, "path": "/", "client": (peer, 1), "headers": named}
    asyncio.run(PolicyServerMiddleware(app, largest_body=10, body_s=0.2)(scope, receive, send))
    return sent[0]["status"], bodies[0] if bodies else None


def test_a_body_arrives_whole():
    assert asked([b"01234", b"56789"], **JSON) == (200, b"0123456789")


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (413, {"pieces": [b"01234", b"567890"]} | JSON),
        (413, {"pieces": [b"0"], "content_length": "11"} | JSON),
        (413, {"pieces": [b"0"], "content_length": "-1"} | JSON),
        (408, {"pieces": [b"0"] * 5, "wait_s": 0.1} | JSON),
        (415, {"pieces": [b"0"]}),
        (415, {"pieces": [b"0"], "content-type": "text/plain"}),
        (403, {"pieces": [b"0"], "sec-fetch-site": "cross-site"} | JSON),
        (421, {"pieces": [b"0"], "host": "evil.test"} | JSON),
        (421, {"pieces": [b"0"], "peer": "192.0.2.1"} | JSON),
    ],
)
def test_what_is_refused_reaches_no_route(status, how):
    assert asked(**how) == (status, None)
