"""Passing requests on: as they came, piece by piece, and for as long as both sides are there. The other side is a real server."""

import asyncio
import socket
import threading
from urllib.parse import quote, unquote

import httpx2
import pytest
from starlette.requests import Request
from waiting import PATIENCE_S, until

from feedback_ui.projects.upstream import ProjectDown, Upstream
from feedback_ui.server import bodies
from feedback_ui.server.serving import Serving


class Project:
    """An ASGI app that notes what it is asked, and answers by the path."""

    def __init__(self):
        self.asked: list[tuple] = []
        self.left = threading.Event()

    def end_streams(self):
        pass

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        if scope["path"] == "/early":
            await respond(send, 413, b"too long")
            return
        body = await request.body()
        self.asked.append(
            (request.method, scope["path"], scope["query_string"], dict(request.headers), body, request.client, scope["scheme"])
        )
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            self.left.set()
        elif scope["path"] == "/half":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
            await send({"type": "http.response.body", "body": b"12345", "more_body": True})
            raise RuntimeError("this project breaks")
        else:
            await respond(send, 200, body or b"hello", (b"x-more", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"))


async def respond(send, status, body, *headers):
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Front:
    """Passes everything on, as `front.Front` does with what it allows."""

    def __init__(self, upstream):
        self.upstream = upstream

    def end_streams(self):
        self.upstream.end_streams()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        try:
            limited = bodies.limited(receive, "json", Request(scope).headers)
            await self.upstream.forward(scope, scope["path"], limited, send, stream=scope["path"] == "/stream")
        except ProjectDown:
            await respond(send, 503, b"down")
        except bodies.BadBody as error:
            await respond(send, error.status_code, b"refused")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    path = tmp_path_factory.mktemp("socket") / "project.sock"
    project = Project()
    inner = Serving(project, "", 0, socket_path=path)
    outer = Serving(Front(Upstream(path)), "127.0.0.1", 0)
    outer.project, outer.inner = project, inner
    yield outer
    outer.stop()
    inner.stop()
    assert not outer.alive and not inner.alive


def ask(site, method, path, **options):
    return httpx2.request(method, site.url + path, timeout=PATIENCE_S, **options)


def test_request_and_response_are_passed_on(site):
    reply = ask(site, "POST", "/a%2fb%3Fc%C3%A9?q=%2F&x", content=b'{"a": 1}', headers={"cookie": "s=1", "accept-language": "ko"})
    method, path, query, headers, body, client, scheme = site.project.asked[-1]
    assert (method, path, query, body) == ("POST", "/a/b?c\u00e9", b"q=%2F&x", b'{"a": 1}')
    assert (headers["cookie"], headers["accept-language"], headers["host"]) == ("s=1", "ko", f"127.0.0.1:{site.port}")
    assert (client.host, scheme) == ("127.0.0.1", "http")
    assert (reply.status_code, reply.content, reply.headers["x-more"]) == (200, b'{"a": 1}', "1")
    assert reply.headers.get_list("set-cookie") == ["a=1", "b=2"] and len(reply.headers.get_list("date")) == 1
    assert ask(site, "GET", "/").text == "hello"
    head = ask(site, "HEAD", "/")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "5", b"")


@pytest.mark.parametrize("path", ["/assets/../config", "/a/./b", "/a//b", "/%2e%2e/x", "/a%252fb", "/..", "/a;b", "/a\\b", "/é"])
def test_a_path_is_not_changed_on_the_way(site, path):
    """What the front has checked is what the project gets."""
    spelled = quote(path, safe="/%;\\")
    with socket.create_connection(("127.0.0.1", site.port), timeout=PATIENCE_S) as client:
        client.sendall(f"GET {spelled} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    assert site.project.asked[-1][1] == unquote(spelled)


def test_a_sender_cannot_say_where_it_is(site):
    forged = {
        "x-forwarded-for": "9.9.9.9", "x-forwarded-proto": "https", "x-forwarded-host": "evil.example", "x-forwarded-user": "lead",
        "forwarded": "for=9.9.9.9", "x-real-ip": "9.9.9.9", "te": "trailers", "proxy-authorization": "x",
    }  # fmt: skip
    # From this machine uvicorn believes the first two, as it must: a proxy with TLS sends them. The others are dropped.
    ask(site, "GET", "/", headers=forged)
    *_, headers, _, client, scheme = site.project.asked[-1]
    assert (client.host, scheme) == ("9.9.9.9", "https")
    assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == ("9.9.9.9", "https")
    assert not headers.keys() & (forged.keys() - {"x-forwarded-for", "x-forwarded-proto"})


def test_a_body_in_pieces_is_passed_on_in_pieces(site):
    def pieces():
        for _ in range(20):
            yield b"x" * 10_000

    reply = ask(site, "POST", "/echo", content=pieces())
    assert reply.content == b"x" * 200_000


def test_bodies_are_bounded_here_and_an_early_refusal_comes_through(site):
    asked = len(site.project.asked)
    assert ask(site, "POST", "/", content=b"x" * (bodies.MAX_BODY_BYTES["json"] + 1)).status_code == 413

    def endless():
        for _ in range(200):
            yield b"x" * 10_000

    assert ask(site, "POST", "/", content=endless()).status_code == 413
    assert len(site.project.asked) == asked
    early = ask(site, "POST", "/early", content=b"x" * 500_000)
    assert (early.status_code, early.text) == (413, "too long")


def test_a_stream_ends_with_the_browser(site):
    site.project.left.clear()
    with httpx2.stream("GET", f"{site.url}/stream", timeout=PATIENCE_S) as reply:
        # An iterator that nobody holds any more ends the connection.
        lines = reply.iter_lines()
        assert next(lines) == "data: 1"
        assert not site.project.left.is_set()
    assert site.project.left.wait(PATIENCE_S)


def test_a_response_that_breaks_off_does_not_look_whole(site):
    with pytest.raises(httpx2.RemoteProtocolError):
        ask(site, "GET", "/half")
    assert ask(site, "GET", "/").text == "hello"


def test_no_process_behind_the_socket(tmp_path):
    (tmp_path / "left").write_text("")
    for path in ("nothing", "left"):
        front = Serving(Front(Upstream(tmp_path / path)), "127.0.0.1", 0)
        assert ask(front, "GET", "/").status_code == 503
        front.stop()


def test_a_restarted_process_is_found_again(tmp_path):
    path = tmp_path / "project.sock"
    first = Serving(Project(), "", 0, socket_path=path)
    front = Serving(Front(Upstream(path)), "127.0.0.1", 0)
    assert ask(front, "GET", "/").status_code == 200
    first.stop()
    # The file of the first one is in the way of the second, as after a kill.
    path.touch()
    second = Serving(Project(), "", 0, socket_path=path)
    for _ in range(3):
        assert ask(front, "POST", "/", content=b"x").text == "x"
    front.stop()
    second.stop()


def test_streams_end_when_the_front_stops(tmp_path):
    path = tmp_path / "project.sock"
    project = Project()
    inner = Serving(project, "", 0, socket_path=path)
    front = Serving(Front(Upstream(path)), "127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", front.port), timeout=PATIENCE_S) as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        seen = b""
        while b"data: 1" not in seen:
            seen += client.recv(4096)
        stopping = threading.Thread(target=front.stop)
        stopping.start()
        while piece := client.recv(4096):
            seen += piece
        stopping.join(PATIENCE_S)
    assert seen.endswith(b"0\r\n\r\n") and not front.alive
    until(project.left.is_set)
    inner.stop()


def test_the_socket_has_one_event_loop(tmp_path):
    """An upstream is made outside of the loop in which it is used."""
    path = tmp_path / "project.sock"
    inner = Serving(Project(), "", 0, socket_path=path)
    upstream, sent = Upstream(path), []

    async def once():
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "client": None, "scheme": "http"}
        waiting = asyncio.Event()

        async def receive():
            await waiting.wait()

        async def send(message):
            sent.append(message)

        await upstream.forward(scope, "/", receive, send)

    asyncio.run(once())
    inner.stop()
    assert b"".join(message.get("body", b"") for message in sent) == b"hello"
