"""What comes in with a request: too much, too slow, no JSON, and values that no page sends, to everything that takes a body."""

import json
import socket
import time
from itertools import product

import gradio as gr
import httpx2
import psutil
import pytest
from served_app import PASSWORD, served

from feedback_ui.server import bodies
from feedback_ui.server.bodies import LONGEST, LONGEST_UPLOAD, MIB, MOST_PARTS
from feedback_ui.server.calls import TAKES
from feedback_ui.server.sessions import LONGEST_NAME
from storage.core.records import ROLES
from storage.people import accounts

JSON = {"content-type": "application/json"}
JSON_ROUTES = [f"/gradio_api/{name}" for name in ("run/predict", "queue/join", "component_server", "component_server/", "cancel", "reset")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with served(tmp_path_factory.mktemp("bodies")) as site:
        site.add_accounts()
        accounts.create(site.store, "everybody", PASSWORD, ROLES)
        site.clients["everybody"] = httpx2.Client(base_url=site.url, headers={"cookie": site.cookie("everybody")}, timeout=60)
        yield site


def pieces(length: int, size: int = 2**16):
    """A body of that length without a declared one: httpx sends it in chunks."""
    yield b'{"a": "'
    for _ in range(length // size):
        yield b"x" * size
    yield b'"}'


# ---- how much


@pytest.mark.parametrize("path", JSON_ROUTES)
def test_json_is_read_up_to_a_mebibyte(site, path):
    for content in (b'"' + b"x" * MIB + b'"', b" " * (8 * MIB), pieces(2 * MIB)):
        reply = site.clients["annotator"].post(path, content=content, headers=JSON)
        assert reply.status_code == 413 and "longer than 1 MiB" in reply.json()["error"]
        assert site.clients["annotator"].get("/config").status_code == 200


@pytest.mark.parametrize("path", JSON_ROUTES)
def test_what_just_fits_is_read(site, path):
    body = b'{"a": "' + b"x" * (MIB - 9) + b'"}'
    assert len(body) == LONGEST["json"]
    assert site.clients["annotator"].post(path, content=body, headers=JSON).status_code in (400, 404, 422)


def test_a_file_is_taken_up_to_its_limit(site, monkeypatch):
    monkeypatch.setattr(bodies, "LONGEST_UPLOAD", MIB)
    monkeypatch.setattr(bodies, "LONGEST", dict(LONGEST) | {"upload": MIB + 2**16})
    before = len(site.uploads())
    assert site.upload("lead", b"x" * (MIB - 10)).status_code == 200
    reply = site.upload("lead", b"x" * (2 * MIB))
    assert reply.status_code == 413 and "larger than 1 MiB" in reply.json()["error"] and "rankloop import" in reply.json()["error"]
    form = [b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jsonl"\r\n\r\n', *[b"x" * 2**16] * 40, b"\r\n--b--\r\n"]
    headers = {"content-type": "multipart/form-data; boundary=b"}
    reply = site.clients["lead"].post("/gradio_api/upload", content=iter(form), headers=headers)
    assert reply.status_code == 413 and "larger than 1 MiB" in reply.json()["error"]
    assert len(site.uploads()) == before + 1


def test_the_limit_that_the_text_names_is_the_limit():
    assert LONGEST_UPLOAD == 64 * MIB and LONGEST["upload"] > LONGEST_UPLOAD


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
def test_a_form_is_short(site, path):
    who = "nobody" if path == "/sign-in" else "annotator"
    reply = site.clients[who].post(path, content=b"name=" + b"x" * MIB, headers={"content-type": "application/x-www-form-urlencoded"})
    assert reply.status_code == 413
    assert site.clients["annotator"].get("/config").status_code == 200


def test_a_hundred_megabytes_are_not_kept(site):
    """The server's memory while it refuses them: declared, in chunks, and to routes that read no body at all."""
    process = psutil.Process()
    site.clients["lead"].post("/gradio_api/run/predict", content=pieces(4 * MIB), headers=JSON)
    before = process.memory_info().rss
    highest = 0
    for path, who in product(("/gradio_api/run/predict", "/gradio_api/upload", "/sign-in", "/nowhere", "/config"), ("lead", "nobody")):
        with socket.create_connection(("127.0.0.1", site.serving.port), timeout=20) as made:
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


def test_a_body_that_does_not_come_is_given_up(site, monkeypatch):
    monkeypatch.setattr(bodies, "SLOWEST_S", dict.fromkeys(LONGEST, 0.3))
    for path, who in (("/gradio_api/run/predict", "annotator"), ("/gradio_api/upload", "lead"), ("/sign-in", "nobody")):
        with site.connect() as made:
            cookie = site.clients[who].headers.get("cookie", "")
            kind = "multipart/form-data; boundary=b" if path.endswith("upload") else "application/json"
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\nContent-Type: {kind}\r\nContent-Length: 99\r\n\r\n-"
            made.sendall(head.encode())
            assert b" 408 " in made.recv(4096).split(b"\r\n")[0], path


# ---- what kind


NO_JSON = [
    b"", b"{", b"nothing", b'{"a": NaN}', b'{"a": Infinity}', b'{"a": -Infinity}', b'{"a": 1, "a": 2}', b'{"a": {"b": 1, "b": 2}}',
    b'{"a": "\xff"}', b'\xff\xfe{\x00}\x00', b'\xef\xbb\xbf{}', '{"a": 1}'.encode("utf-16"), '{"a": 1}'.encode("utf-32"), b'{"a": 1}\x00',
    b"{'a': 1}", b'{"a": 01}', b'{"a": 1} {"a": 1}', b'{"a": "\xed\xa0\x80"}', b'{"a": ' + b"9" * 5000 + b"}", b"a=1&b=2",
]  # fmt: skip


@pytest.mark.parametrize("path", JSON_ROUTES)
def test_what_is_no_json_is_refused(site, path):
    for body in NO_JSON:
        reply = site.clients["annotator"].post(path, content=body, headers=JSON)
        assert reply.status_code == 400 and "no JSON" in reply.json()["error"], body


@pytest.mark.parametrize("path", JSON_ROUTES)
def test_json_that_would_choke_its_reader_is_refused(site, path):
    many = b"[" + b",".join([b"{}"] * (MOST_PARTS + 1)) + b"]"
    for body, status, said in (
        (b'{"a": ' + b"[" * 90 + b"]" * 90 + b"}", 400, "nests more than 64"),
        (b"[" * 40_000 + b"]" * 40_000, 400, "nests more than 64"),
        (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, 400, "nests more than 64"),
        (b"[" * 40_000, 400, ""),
        (many, 413, "more than 50,000 lists"),
        (b'{"a": 9223372036854775808}', 400, "too large"),
        (b'{"a": [{"b": -9223372036854775808}]}', 400, "too large"),
        (b'{"a": 1e400}', 400, "too large"),
        (b'{"a": 1e30}', 400, "too large"),
        (rb'{"a": "\ud83d"}', 400, "half a character"),
        (rb'{"\udc00": 1}', 400, "half a character"),
    ):
        began = time.monotonic()
        reply = site.clients["annotator"].post(path, content=body, headers=JSON)
        assert reply.status_code == status and said in reply.json()["error"], body[:40]
        assert time.monotonic() - began < 2


def test_a_form_where_json_belongs_is_refused(site):
    for path in JSON_ROUTES:
        fields = {"component_id": "1", "session_hash": "s", "fn_name": "judge"}
        reply = site.clients["annotator"].post(path, files={"files": ("a", b"x")}, data=fields)
        assert reply.status_code == 415, path


def test_why_is_said_in_the_reader_s_language(site):
    reply = site.clients["annotator"].post(JSON_ROUTES[0], content=b"{", headers=JSON | {"accept-language": "ko"})
    assert "JSON이 아닙니다" in reply.json()["error"]


# ---- to every handler


RAW = [
    "null", "true", "0", "-1", "9223372036854775807", "9223372036854775808", "1" + "0" * 30, "1.5", "-1e-300", "1e300", "NaN", '""', '"x"',
    r'"\ud800"', r'"\u0000"', json.dumps("9" * 400), json.dumps("x" * 50_000), "[]", "[[]]", "[null]", "[1, 2]", '["x", {}]', "{}",
    '{"a": 1}', '{"act": "x", "row": 9223372036854775807}', '{"act": "x", "row": 1.5}', "[" * 70 + "]" * 70,
    '{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}',
]  # fmt: skip
"""A value of each kind, as JSON spells it."""


SENT = (
    "presentation_id", "judgment_id", "before", "choice", "tiers", "aspects", "ideal", "flags", "timing", "text", "guidelines", "verdict",
)  # fmt: skip
"""What the judging pages say of a comparison."""


def start_value(block):
    value = getattr(block, "value", None)
    if callable(value) or isinstance(block, gr.State):
        return None
    try:
        json.dumps(value)
    except TypeError:
        return None
    return value


def body_of(fields: dict, name: str, raw: str) -> bytes:
    """The call with one field spelled so."""
    mark = "\u2400here\u2400"
    return json.dumps(fields | {name: mark}).replace(json.dumps(mark), raw).encode()


def calls_of(number: int, event):
    """A handler with each kind of value in each place, everything else as the page has it at the start."""
    fields = {"fn_index": number, "data": [start_value(block) for block in event.inputs], "session_hash": "kinds"}
    # A long form has its places in turns, or the walk would be of little else.
    stride = 8 if len(event.inputs) > 8 else 1
    for first, raw in enumerate(RAW):
        for place in range(first % stride, len(event.inputs), stride):
            spelled = [json.dumps(value) for value in fields["data"]]
            spelled[place] = raw
            yield body_of(fields, "data", f"[{', '.join(spelled)}]")
        for name in ("event_data", "trigger_id"):
            yield body_of(fields, name, raw)


def wrong_with(reply: httpx2.Response) -> str | None:
    """Nobody can do anything with a bare 500, or with an error that says nothing."""
    if reply.status_code == 200:
        return None
    try:
        said = reply.json()["error"]
    except (ValueError, KeyError, TypeError):
        said = None
    if reply.status_code >= 500 and reply.status_code != 503:
        return f"{reply.status_code}: {reply.text[:200]}"
    return None if said else f"{reply.status_code} without a reason: {reply.text[:200]}"


def test_every_kind_of_input_says_what_it_takes(site):
    used = {type(block) for event in site.pages.fns.values() for block in event.inputs}
    assert used <= set(TAKES), "say in feedback_ui.server.calls what these take from a browser"


@pytest.mark.slow
def test_every_handler_refuses_values_that_no_page_sends(site):
    wrong, walked = {}, 0
    for number, event in site.pages.fns.items():
        if event.fn is None or event.queue:
            continue
        for body in calls_of(number, event):
            walked += 1
            if found := wrong_with(site.clients["everybody"].post("/gradio_api/run/predict", content=body, headers=JSON)):
                wrong.setdefault(event.fn.__qualname__, (found, body[:300]))
    print(f"{walked} calls of handlers")
    assert not wrong, "\n".join(f"{name}: {found}" for name, found in wrong.items())


@pytest.mark.slow
def test_every_server_function_refuses_values_that_no_page_sends(site):
    wrong, walked = {}, 0
    for number, block in site.pages.blocks.items():
        for name, function in vars(block).items():
            if getattr(function, "_is_server_fn", False) is not True:
                continue
            fields = {"data": {}, "component_id": number, "fn_name": name, "session_hash": "kinds"}
            for raw in RAW:
                inside = [json.dumps({"presentation_id": 1, "judgment_id": 1} | {key: "@"}).replace('"@"', raw) for key in SENT]
                for body in [body_of(fields, "data", spelled) for spelled in (raw, *inside)] + [
                    body_of(fields, field, raw) for field in ("component_id", "fn_name", "session_hash")
                ]:
                    walked += 1
                    if found := wrong_with(site.clients["everybody"].post("/gradio_api/component_server", content=body, headers=JSON)):
                        wrong.setdefault(f"{name}", (found, body[:300]))
    print(f"{walked} calls of server functions")
    assert not wrong, "\n".join(f"{name}: {found}" for name, found in wrong.items())


def test_a_call_of_what_is_not_there_is_refused(site):
    client = site.clients["everybody"]
    good = {"fn_index": site.handler("show_visitor"), "data": [], "session_hash": "s"}
    assert client.post("/gradio_api/run/predict", json=good).status_code == 200
    for change in (
        {"fn_index": 10**6}, {"fn_index": -1}, {"fn_index": None}, {"fn_index": "0"}, {"fn_index": True}, {"data": None}, {"data": {}},
        {"data": [1]}, {"session_hash": None}, {"session_hash": ""}, {"session_hash": "s" * (LONGEST_NAME + 1)}, {"session_hash": 7},
        {"session_hash": "\n"},
    ):  # fmt: skip
        for path in ("/gradio_api/run/predict", "/gradio_api/queue/join"):
            reply = client.post(path, json=good | change)
            assert reply.status_code in (400, 404) and reply.json()["error"], (path, change)
    for body in ([], "x", 7, None, {}):
        for path in JSON_ROUTES:
            assert client.post(path, json=body).status_code in (400, 404, 422), (path, body)


def test_gradio_s_own_switches_are_not_passed_on(site):
    """A batch, a token or an event that goes on are nothing that a page may say of itself."""
    good = {"fn_index": site.handler("show_visitor"), "data": [], "session_hash": "s"}
    more = {"batched": True, "simple_format": True, "oauth_token": "t", "event_id": "e", "request": {"headers": {}}, "api_name": "x"}
    reply = site.clients["annotator"].post("/gradio_api/run/predict", json=good | more)
    assert reply.status_code == 200 and "annotator" in reply.text


def test_a_refusal_has_the_status_that_it_means(site):
    """Gradio answers 500 to whatever a handler refuses."""
    value = {"fn_index": site.handler("AccountsSection.add"), "session_hash": "s"}
    event = site.pages.fns[value["fn_index"]]
    reply = site.clients["annotator"].post("/gradio_api/run/predict", json=value | {"data": [start_value(block) for block in event.inputs]})
    assert reply.status_code == 403 and "role lead" in reply.json()["error"]


def test_a_get_may_bring_no_body_that_is_read(site):
    for path in ("/config", "/gradio_api/startup-events"):
        reply = site.clients["annotator"].request("GET", path, content=b"x" * (4 * MIB))
        assert reply.status_code in (200, 413), path
