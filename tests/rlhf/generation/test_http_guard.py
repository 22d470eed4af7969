"""What reaches the policy server's routes: whole JSON bodies of bounded size, from this machine."""

import asyncio

import pytest

from rlhf.generation.http_guard import PolicyServerMiddleware

JSON = {"content-type": "application/json"}


def asked(pieces, *, method="POST", peer="127.0.0.1", host="localhost", path="/", wait_s=0.0, api_key="", **headers):
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
    scope = {"type": "http", "method": method, "path": path, "client": (peer, 1), "headers": named}
    asyncio.run(PolicyServerMiddleware(app, api_key=api_key, largest_body=10, body_s=0.2)(scope, receive, send))
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


KEY = "k" * 16
REMOTE = {"peer": "192.0.2.1", "host": "models.example", "api_key": KEY} | JSON


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (401, {}),
        (401, {"authorization": ""}),
        (401, {"authorization": KEY}),
        (401, {"authorization": f"Bearer {KEY}x"}),
        (401, {"authorization": f"Bearer {KEY[1:]}"}),
        (401, {"authorization": "Bearer \xff"}),
        (401, {"peer": "127.0.0.1", "host": "localhost"}),
        (401, {"method": "GET", "path": "/metrics"}),
        (403, {"authorization": f"Bearer {KEY}", "sec-fetch-site": "cross-site"}),
        (415, {"authorization": f"Bearer {KEY}", "content-type": "text/plain"}),
    ],
)
def test_with_a_key_whoever_does_not_bring_it_is_refused(status, how):
    assert asked([b"0"], **REMOTE | how) == (status, None)


def test_with_the_key_other_machines_are_answered_and_all_are_told_that_it_runs():
    assert asked([b"0"], **REMOTE, authorization=f"Bearer {KEY}") == (200, b"0")
    assert asked([b""], **REMOTE, method="GET", path="/health")[0] == 200


@pytest.mark.parametrize("begun", [False, True])
def test_what_the_server_stops_answering_is_told_so(begun):
    sent = []

    async def app(scope, receive, send):
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
        await asyncio.sleep(60)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    async def stopped():
        scope = {"type": "http", "method": "GET", "path": "/", "client": ("127.0.0.1", 1), "headers": [(b"host", b"localhost")]}
        task = asyncio.create_task(PolicyServerMiddleware(app)(scope, receive, send))
        await asyncio.sleep(0)
        task.cancel()
        await task

    asyncio.run(stopped())
    assert sent[0]["status"] == (200 if begun else 503)
    assert b"was stopped before the answer was whole" in sent[-1]["body"] and not sent[-1].get("more_body")
    assert sent[-1]["body"].startswith(b"data: {" if begun else b"{")
