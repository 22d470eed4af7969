"""Request bodies that are too large, too slow or no JSON are refused."""

import socket
from itertools import product

import httpx2
import psutil
import pytest
from served_app import PASSWORD, served
from waiting import PATIENCE_S, fastest

from feedback_ui.server import bodies
from feedback_ui.server.bodies import MAX_BODY_BYTES, MAX_PARTS, MAX_UPLOAD_BYTES, MIB
from storage.core.records import ACCOUNT_ROLES
from storage.people import accounts

JSON = {"content-type": "application/json"}
JSON_ROUTES = [f"/gradio_api/{name}" for name in ("run/predict", "queue/join", "component_server", "component_server/", "cancel", "reset")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with served(tmp_path_factory.mktemp("bodies")) as site:
        site.add_accounts()
        accounts.create(site.store, "everybody", PASSWORD, ACCOUNT_ROLES)
        site.clients["everybody"] = httpx2.Client(base_url=site.url, headers={"cookie": site.cookie("everybody")}, timeout=60)
        yield site


def pieces(length: int, size: int = 2**16):
    """A body of that length without a declared one: httpx sends it in chunks."""
    yield b'{"a": "'
    for _ in range(length // size):
        yield b"x" * size
    yield b'"}'


@pytest.mark.parametrize("path", JSON_ROUTES)
def test_json_is_read_up_to_a_mebibyte(site, path):
    for content in (b'"' + b"x" * MIB + b'"', b" " * (8 * MIB), pieces(2 * MIB)):
        reply = site.clients["annotator"].post(path, content=content, headers=JSON)
        assert reply.status_code == 413 and "longer than 1 MiB" in reply.json()["error"]
        assert site.clients["annotator"].get("/config").status_code == 200


@pytest.mark.parametrize("path", JSON_ROUTES)
def test_a_body_at_the_limit_is_read(site, path):
    body = b'{"a": "' + b"x" * (MIB - 9) + b'"}'
    assert len(body) == MAX_BODY_BYTES["json"]
    assert site.clients["annotator"].post(path, content=body, headers=JSON).status_code in (400, 404, 422)


def test_a_file_is_taken_up_to_its_limit(site, monkeypatch):
    monkeypatch.setattr(bodies, "MAX_UPLOAD_BYTES", MIB)
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", dict(MAX_BODY_BYTES) | {"upload": MIB + 2**16})
    before = len(site.uploads())
    assert site.upload("lead", b"x" * (MIB - 10)).status_code == 200
    reply = site.upload("lead", b"x" * (2 * MIB))
    assert reply.status_code == 413 and "larger than 1 MiB" in reply.json()["error"] and "runs the server" in reply.json()["error"]
    form = [b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jsonl"\r\n\r\n', *[b"x" * 2**16] * 40, b"\r\n--b--\r\n"]
    headers = {"content-type": "multipart/form-data; boundary=b"}
    reply = site.clients["lead"].post("/gradio_api/upload", content=iter(form), headers=headers)
    assert reply.status_code == 413 and "larger than 1 MiB" in reply.json()["error"]
    assert len(site.uploads()) == before + 1


def test_the_limit_that_the_text_names_is_the_limit():
    assert MAX_UPLOAD_BYTES == 64 * MIB and MAX_BODY_BYTES["upload"] > MAX_UPLOAD_BYTES


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
def test_a_form_is_short(site, path):
    who = "nobody" if path == "/sign-in" else "annotator"
    reply = site.clients[who].post(path, content=b"name=" + b"x" * MIB, headers={"content-type": "application/x-www-form-urlencoded"})
    assert reply.status_code == 413
    assert site.clients["annotator"].get("/config").status_code == 200


def test_a_hundred_megabytes_are_not_stored_in_memory(site):
    """The server's memory while it refuses them: declared, in chunks, and to routes that read no body at all."""
    process = psutil.Process()
    site.clients["lead"].post("/gradio_api/run/predict", content=pieces(4 * MIB), headers=JSON)
    before = process.memory_info().rss
    highest = 0
    for path, who in product(("/gradio_api/run/predict", "/gradio_api/upload", "/sign-in", "/nowhere", "/config"), ("lead", "nobody")):
        with socket.create_connection(("127.0.0.1", site.serving.port), timeout=PATIENCE_S) as made:
            cookie = site.clients[who].headers.get("cookie", "")
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\nContent-Type: application/json\r\n"
            made.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            piece = b"100000\r\n" + b"x" * MIB + b"\r\n"
            try:
                for _ in range(100):
                    made.sendall(piece)
                    highest = max(highest, process.memory_info().rss)
            except OSError:
                # Refused and closed, which is right too.
                pass
    assert highest - before < 60 * MIB


def test_a_body_that_does_not_arrive_times_out(site, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", dict.fromkeys(MAX_BODY_BYTES, 0.3))
    for path, who in (("/gradio_api/run/predict", "annotator"), ("/gradio_api/upload", "lead"), ("/sign-in", "nobody")):
        with site.connect() as made:
            cookie = site.clients[who].headers.get("cookie", "")
            kind = "multipart/form-data; boundary=b" if path.endswith("upload") else "application/json"
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\nContent-Type: {kind}\r\nContent-Length: 99\r\n\r\n-"
            made.sendall(head.encode())
            assert b" 408 " in made.recv(4096).split(b"\r\n")[0], path


NO_JSON = [
    b"", b"{", b"nothing", b'{"a": NaN}', b'{"a": Infinity}', b'{"a": -Infinity}', b'{"a": 1, "a": 2}', b'{"a": {"b": 1, "b": 2}}',
    b'{"a": "\xff"}', b'\xff\xfe{\x00}\x00', b'\xef\xbb\xbf{}', '{"a": 1}'.encode("utf-16"), '{"a": 1}'.encode("utf-32"), b'{"a": 1}\x00',
    b"{'a': 1}", b'{"a": 01}', b'{"a": 1} {"a": 1}', b'{"a": "\xed\xa0\x80"}', b'{"a": ' + b"9" * 5000 + b"}", b"a=1&b=2",
]  # fmt: skip


@pytest.mark.parametrize("path", JSON_ROUTES)
def test_invalid_json_is_refused(site, path):
    for body in NO_JSON:
        reply = site.clients["annotator"].post(path, content=body, headers=JSON)
        assert reply.status_code == 400 and "not the JSON that a page sends" in reply.json()["error"], body


@pytest.mark.parametrize("path", JSON_ROUTES)
def test_json_over_the_limits_is_refused(site, path):
    many = b"[" + b",".join([b"{}"] * (MAX_PARTS + 1)) + b"]"
    for body, status, message in (
        (b'{"a": ' + b"[" * 90 + b"]" * 90 + b"}", 400, "nested more than 64"),
        (b"[" * 40_000 + b"]" * 40_000, 400, "nested more than 64"),
        (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, 400, "nested more than 64"),
        (b"[" * 40_000, 400, ""),
        (many, 413, "more than 50,000 lists"),
        (b'{"a": 9223372036854775808}', 400, "too large"),
        (b'{"a": [{"b": -9223372036854775808}]}', 400, "too large"),
        (b'{"a": 1e400}', 400, "too large"),
        (b'{"a": 1e30}', 400, "too large"),
        (rb'{"a": "\ud83d"}', 400, "half a surrogate pair"),
        (rb'{"\udc00": 1}', 400, "half a surrogate pair"),
    ):
        replies = []

        def post(body=body, replies=replies):
            replies.append(site.clients["annotator"].post(path, content=body, headers=JSON))

        assert fastest(post, 2) < 2
        for reply in replies:
            assert reply.status_code == status and message in reply.json()["error"], body[:40]


def test_a_form_is_refused_where_json_is_expected(site):
    for path in JSON_ROUTES:
        fields = {"component_id": "1", "session_hash": "s", "fn_name": "judge"}
        reply = site.clients["annotator"].post(path, files={"files": ("a", b"x")}, data=fields)
        assert reply.status_code == 415, path


def test_the_reason_is_in_the_readers_language(site):
    reply = site.clients["annotator"].post(JSON_ROUTES[0], content=b"{", headers=JSON | {"accept-language": "ko"})
    assert "JSON이 아닙니다" in reply.json()["error"]


def test_a_get_may_bring_no_body_that_is_read(site):
    for path in ("/config", "/gradio_api/startup-events"):
        reply = site.clients["annotator"].request("GET", path, content=b"x" * (4 * MIB))
        assert reply.status_code in (200, 413), path
