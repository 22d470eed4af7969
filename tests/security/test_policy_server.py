"""The policy server against whoever may reach it: other sites through a browser, large and odd requests, and too many of them."""

import asyncio
import json
import re
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psutil
import pytest
import tiny
from learning import user
from policy_server import Server, streamed, until

from rlhf.generation import http_guard
from rlhf.generation.request import ClientBusy, EngineBusy
from rlhf.serving.client import PolicyServerBusy, PolicyServerRefused
from rlhf.serving.limits import MAX_CONVERSATION_CHARS, MAX_MESSAGE_CHARS, MAX_MESSAGES, MAX_PROMPT_TOKENS
from storage.content import policies, prompts
from storage.core.database import Database
from storage.core.records import Sampling
from storage.judging import queue

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model with room for long prompts."""
    folder = tiny.write(tmp_path_factory.mktemp("models") / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
    return folder


@pytest.fixture
def server(store, folder):
    started = Server(store, folder)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory, folder):
    """For tests that leave it as it was."""
    store = Database(tmp_path_factory.mktemp("shared") / "rankloop.db")
    started = Server(store, folder)
    yield started
    started.stop()
    store.close()


def asked(text="Hi", **change):
    return {"model": "tiny", "messages": list(user(text)), "max_tokens": 5} | change


def call(server, path="/status", method="GET", **options):
    return httpx2.request(method, f"http://127.0.0.1:{server.port}{path}", timeout=60, **options)


def chat(server, **change):
    # Not httpx's own way: it refuses to send lone surrogates and numbers that are none.
    return call(server, CHAT, "POST", content=json.dumps(asked(**change)), headers={"content-type": "application/json"})


def error_message(reply):
    return reply.json()["error"]["message"]


# ---- other sites, through somebody's browser

ROUTES = [("GET", "/status"), ("GET", "/v1/models"), ("POST", CHAT), ("GET", "/nothing"), ("OPTIONS", CHAT)]


@pytest.mark.parametrize("method, path", ROUTES)
@pytest.mark.parametrize("host", ["evil.com", "evil.com:{port}", "127.0.0.1.evil.com", "localhost.evil.com", "evil@127.0.0.1",
                                  "192.0.2.1", "0.0.0.0:{port}", "[", "127.0.0.1:1/evil.com", "", "[::2]:1", "evil.com:80:1"])  # fmt: skip
def test_another_name_for_this_machine_gets_nothing(shared, method, path, host):
    body = {"json": asked()} if method == "POST" else {}
    reply = call(shared, path, method, headers={"host": host.format(port=shared.port)}, **body)
    assert reply.status_code in (400, 421) and "tiny" not in reply.text and "ready" not in reply.text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:{port}", "localhost:{port}", "LOCALHOST", "[::1]:{port}", "127.8.9.1"])
def test_this_machines_own_names_are_answered(shared, host):
    assert call(shared, headers={"host": host.format(port=shared.port)}).json()["ready"] is True
    assert call(shared, CHAT, "POST", json=asked(), headers={"host": host.format(port=shared.port)}).status_code == 200


@pytest.mark.parametrize("method, path", ROUTES)
@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.com"}, {"origin": "null"}, {"origin": "http://127.0.0.1:1"}, {"origin": "http://["},
     {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
     {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "empty"}],
)  # fmt: skip
def test_a_page_of_another_origin_gets_nothing(shared, method, path, headers):
    reply = call(shared, path, method, headers=headers, **({"json": asked()} if method == "POST" else {}))
    assert reply.status_code == 403 and "other sites" in error_message(reply)
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None, "",
                                  "text/plain; x=application/json", "application/jsonp"])  # fmt: skip
def test_what_a_form_could_send_is_no_request(shared, kind):
    reply = call(shared, CHAT, "POST", content=json.dumps(asked()), headers={} if kind is None else {"content-type": kind})
    assert reply.status_code == 415 and "application/json" in error_message(reply)


def test_nothing_allows_other_origins(shared):
    for reply in (call(shared, headers={"origin": f"http://127.0.0.1:{shared.port}"}), chat(shared), call(shared, CHAT, "OPTIONS")):
        assert not [name for name in reply.headers if name.startswith("access-control")]


def test_a_websocket_and_the_description_are_not_there(shared):
    assert call(shared, "/openapi.json").status_code == call(shared, "/docs").status_code == 404
    asking = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13", "sec-websocket-key": "x" * 24}
    assert call(shared, headers=asking).status_code in (200, 400, 403, 426)


# ---- bodies


def raw(server, head, *parts, wait=0.0):
    """What the server answers to bytes as they are, and how many were sent before it did."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
        line.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n{head}\r\n\r\n".encode())
        sent = 0
        try:
            for part in parts:
                line.sendall(part)
                sent += len(part)
                time.sleep(wait)
        except OSError:
            pass
        reply = b""
        try:
            while more := line.recv(65536):
                reply += more
                if b"\r\n\r\n" in reply and reply.endswith(b"}"):
                    break
        except OSError:
            pass
    return reply.decode(errors="replace"), sent


@pytest.mark.parametrize("length", ["1048577", "104857600", "9" * 18, "9" * 19])
def test_a_body_that_says_it_is_too_long_is_refused_unread(shared, length):
    reply, _ = raw(shared, f"Content-Length: {length}")
    assert " 413 " in reply.splitlines()[0] and "of which 1,048,576 are read" in reply


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "9" * 400])
def test_a_length_that_is_none_is_refused(shared, length):
    reply, _ = raw(shared, f"Content-Length: {length}")
    assert reply.split()[1] in ("400", "413")


def test_a_body_that_does_not_say_how_long_it_is_is_read_up_to_the_limit(shared):
    before = psutil.Process().memory_info().rss
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    reply, sent = raw(shared, "Transfer-Encoding: chunked", *[piece] * 1600)
    assert reply == "" or " 413 " in reply.splitlines()[0]
    assert sent < 1600 * len(piece), "it was not read to its end"
    assert psutil.Process().memory_info().rss - before < 60 << 20
    assert call(shared).json()["ready"]


def test_a_body_that_does_not_come_is_not_waited_for():
    guard = http_guard.PolicyServerMiddleware(lambda *_: pytest.fail("let through"), body_s=0.1)
    answered = []

    async def receive():
        await asyncio.sleep(0.03)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message):
        answered.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    asyncio.run(guard({"type": "http", "method": "POST", "headers": headers, "client": ("127.0.0.1", 1)}, receive, send))
    assert answered[0]["status"] == 408


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"7", b'"a"', b"\xff\xfe", b"[" * 500_000, b'{"messages":' * 50_000, b'{"a":' * 900 + b"1" + b"}" * 900,
     b'{"seed": ' + b"9" * 100_000 + b"}", b"\xef\xbb\xbf{}", b"{}" + b"\x00" * 10],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused(shared, body):
    reply = call(shared, CHAT, "POST", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400 and error_message(reply)
    assert len(reply.content) < 5000


# ---- fields

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    "change, field",
    [({"temperature": NAN}, "temperature"), ({"temperature": INFINITY}, "temperature"), ({"temperature": -INFINITY}, "temperature"),
     ({"temperature": -1e-300}, "temperature"), ({"temperature": 2.0000001}, "temperature"), ({"temperature": "1"}, "temperature"),
     ({"temperature": [1]}, "temperature"), ({"temperature": True}, "temperature"),
     ({"top_p": NAN}, "top_p"), ({"top_p": INFINITY}, "top_p"), ({"top_p": 0.0}, "top_p"), ({"top_p": -0.0}, "top_p"),
     ({"top_p": 1.1}, "top_p"), ({"top_p": "x"}, "top_p"), ({"top_p": {}}, "top_p"),
     ({"seed": -1}, "seed"), ({"seed": 2**63}, "seed"), ({"seed": 2**64}, "seed"), ({"seed": 10**300}, "seed"), ({"seed": 1.5}, "seed"),
     ({"seed": True}, "seed"), ({"seed": "1"}, "seed"), ({"seed": NAN}, "seed"),
     ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": -1}, "max_tokens"), ({"max_tokens": 1025}, "max_tokens"),
     ({"max_tokens": 2**63}, "max_tokens"), ({"max_tokens": True}, "max_tokens"), ({"max_tokens": 1e300}, "max_tokens"),
     ({"stream": "yes"}, "stream"), ({"stream": 1}, "stream"),
     ({"model": 7}, "model"), ({"model": None}, "model"), ({"model": "x" * 201}, "model"), ({"model": "\ud800"}, "model"),
     ({"messages": []}, "messages"), ({"messages": {}}, "messages"), ({"messages": "Hi"}, "messages"), ({"messages": [7]}, "messages.0"),
     ({"messages": list(user("x")) * (MAX_MESSAGES + 1)}, "messages"), ({"messages": [{"role": "user"}]}, "messages.0.content"),
     ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"), ({"messages": list(user(None))}, "messages.0.content"),
     ({"messages": list(user(["x"]))}, "messages.0.content"), ({"messages": list(user("a\ud800b"))}, "messages.0.content"),
     ({"messages": list(user("\udfff\ud83d"))}, "messages.0.content"),
     *(({field: {"1": value} if field == "logit_bias" else value}, field)
       for field in ("presence_penalty", "frequency_penalty", "logit_bias") for value in (NAN, INFINITY, -INFINITY, 1e300, "1")),
     ({"messages": [{"role": "\ud800", "content": "x"}]}, "messages.0.role"),
     ({"messages": list(user("x" * (MAX_MESSAGE_CHARS + 1)))}, "messages.0.content"),
     ({"messages": list(user("x" * MAX_MESSAGE_CHARS)) * 3}, "")],
)  # fmt: skip
def test_a_field_that_cannot_be_is_refused_by_its_name(shared, change, field):
    reply = chat(shared, **change)
    assert reply.status_code == 400 and error_message(reply).startswith(field)


def test_many_wrong_fields_are_told_in_few_words(shared):
    reply = chat(shared, messages=[{"role": "x" * 1000, "content": 7}] * MAX_MESSAGES)
    assert reply.status_code == 400 and len(reply.content) < 2000


@pytest.mark.parametrize("change", [{"temperature": 1e-300}, {"temperature": 5e-324}, {"temperature": 1e-45}, {"temperature": -0.0},
                                    {"top_p": 1e-300}, {"top_p": 5e-324}, {"temperature": 2, "top_p": 1e-45},
                                    {"temperature": 1e-300, "top_p": 5e-324}])  # fmt: skip
def test_the_coldest_requests_get_the_likeliest_answer(shared, change):
    likeliest = chat(shared, temperature=0, max_tokens=20).json()["choices"]
    assert chat(shared, max_tokens=20, seed=3, **change).json()["choices"] == likeliest
    assert "".join(server_stream(shared, max_tokens=20, seed=3, **change)).strip() == likeliest[0]["message"]["content"]


def server_stream(server, **change):
    reply = chat(server, stream=True, **change)
    events = [json.loads(line.removeprefix("data: ")) for line in reply.text.splitlines() if line.startswith("data: {")]
    return [event["choices"][0]["delta"].get("content", "") for event in events]


@pytest.mark.parametrize("change", [{"seed": 0}, {"seed": 2**63 - 1}, {"seed": None}, {"temperature": 2, "top_p": 1}, {"more": None},
                                    {"messages": list(user("\x00"))}, {"messages": list(user(""))}, {"messages": list(user("\ufffe"))},
                                    {"messages": list(user("\u202e\0 \U0010ffff"))}, {"messages": list(user("x")) * MAX_MESSAGES},
                                    {"messages": [{"role": "system", "content": "\r\n\x1b[2J"}, *user("{{ 7 * 7 }}{%")]}])  # fmt: skip
def test_odd_requests_that_can_be_answered_are(shared, change):
    reply = chat(shared, **change)
    assert reply.status_code == 200 and reply.json()["choices"][0]["finish_reason"] in ("stop", "length")


def test_a_field_that_the_server_does_not_know_is_refused_by_its_name(shared):
    reply = chat(shared, repetition_penalty=2, min_p=0.5, foo=1, user="me")
    assert reply.status_code == 400
    assert "not supported by this server: 'repetition_penalty', 'min_p', 'foo'" in error_message(reply)
    assert "min_p is supported as 0 alone" in error_message(reply) and "user" not in error_message(reply)
    reply = chat(shared, messages=[{"role": "user", "content": "Hi", "tool_call_id": "7"}])
    assert reply.status_code == 400 and error_message(reply).startswith("messages.0") and "'tool_call_id'" in error_message(reply)
    assert len(chat(shared, **{f"{i}" * 500: i for i in range(500)}).content) < 2000


def test_a_field_that_asks_for_nothing_else_is_accepted(shared):
    plain = chat(shared, seed=3).json()["choices"]
    same = chat(
        shared, seed=3, n=1, stop=[], logprobs=False, presence_penalty=0, frequency_penalty=0.0, tools=[], user="me", metadata={"a": "b"},
        response_format={"type": "text"}, stream_options={"include_usage": False}, logit_bias=None, top_k=0,
    )  # fmt: skip
    assert same.json()["choices"] == plain


def test_top_k_and_max_completion_tokens_are_honoured(shared):
    hot = {"temperature": 2, "max_tokens": 20}
    texts = [[chat(shared, seed=seed, top_k=top_k, **hot).json()["choices"] for seed in range(3)] for top_k in (0, 1)]
    assert texts[1][0] == texts[1][1] == texts[1][2] and texts[0][0] != texts[0][1]
    one = asked(temperature=2, seed=3, max_completion_tokens=1)
    del one["max_tokens"]
    shortest = call(shared, CHAT, "POST", json=one).json()["choices"]
    assert shortest == chat(shared, temperature=2, seed=3, max_tokens=1).json()["choices"]
    assert shortest != chat(shared, temperature=2, seed=3, max_tokens=20).json()["choices"]
    assert "differ" in error_message(chat(shared, max_tokens=5, max_completion_tokens=6))


def test_an_unknown_model_is_named_within_bounds(shared):
    reply = chat(shared, model="\x00\r\n" + "x" * 190)
    assert reply.status_code == 404 and r"\x00\r\n" in error_message(reply)


# ---- how much


def test_a_prompt_of_too_many_tokens_is_refused_before_anything_is_computed(shared, monkeypatch):
    monkeypatch.setattr(shared.service.backbone.decoder, "forward", lambda *_, **__: pytest.fail("it was read"))
    # A byte is a token here: a robot has four, and the template puts three around.
    text = "\N{ROBOT FACE}" * 5000
    reply = chat(shared, text=text)
    assert reply.status_code == 400
    too_long = "messages: the prompt has 20,003 tokens, of which 4,096 can be read: shorten it, or leave out earlier turns"
    assert error_message(reply) == too_long
    for stream in (False, True):
        assert chat(shared, messages=list(user("\N{ROBOT FACE}" * MAX_MESSAGE_CHARS)), stream=stream).status_code == 400
    assert MAX_PROMPT_TOKENS == 4096 and MAX_CONVERSATION_CHARS == 2 * MAX_MESSAGE_CHARS


@pytest.mark.slow
def test_eight_prompts_of_20_000_emoji_cost_nobody_anything(server):
    prompts.add(server.store, [prompts.NewPrompt(user(f"Q{i}"), "test", "train") for i in range(4)], source="test")
    started = time.monotonic()
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(chat(server, text="\N{ROBOT FACE}" * 20_000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reply.status_code for reply in replies] == [400] * 8
    until(lambda: queue.depth(server.store) >= 4, 30)
    assert time.monotonic() - started < 40


def test_the_models_context_bounds_prompt_and_answer(store, tmp_path):
    small = Server(store, tiny.write(tmp_path / "tiny"))
    try:
        # 512 positions: a prompt of 511 tokens leaves room for one.
        reply = chat(small, text="x" * 508, max_tokens=50, temperature=1)
        assert reply.status_code == 200 and reply.json()["choices"][0]["finish_reason"] in ("length", "stop")
        reply = chat(small, text="x" * 509)
        assert reply.status_code == 400 and "the prompt has 512 tokens, of which 511 can be read" in error_message(reply)
    finally:
        small.stop()


@pytest.mark.slow
def test_a_template_that_refuses_or_never_ends_is_told_and_the_others_are_answered(server):
    server.service.backbone.tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        "{% if messages[0].content == 'sesame' %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}"
        "{% if messages[0].content == 'glutton' %}{% set ns = namespace(s='a') %}"
        "{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}{% endif %}x"
    )
    assert chat(server).status_code == 200
    reply = chat(server, messages=[{"role": "system", "content": "x"}])
    assert reply.status_code == 400 and error_message(reply) == "messages: no system turn"
    reply = chat(server, text="sesame")
    assert reply.status_code == 400 and "2 s of processor time" in error_message(reply)
    reply = chat(server, text="glutton")
    assert reply.status_code == 400 and "memory" in error_message(reply)
    assert chat(server).status_code == 200


class Caller:
    """A client that can hang up."""

    def __init__(self, server, **change):
        self.line = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        body = json.dumps(asked(**change))
        head = ("Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}")
        self.line.sendall("\r\n".join([f"POST {CHAT} HTTP/1.1", *head, "", body]).encode())

    def hear(self):
        return self.line.recv(65536).decode()

    def hang_up(self):
        self.line.close()


@pytest.mark.parametrize("error", [EngineBusy("64 answers wait: try again"), ClientBusy("8 streams of one address: wait for one")])
def test_the_clients_own_error_says_that_there_is_no_room(shared, monkeypatch, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(shared.service, "submit", full)
    with pytest.raises(PolicyServerBusy, match=str(error)):
        streamed(shared.client.stream("tiny", user("Hi"), Sampling(max_new_tokens=5), seed=0))
    # Whoever only looks is answered all the same.
    assert shared.client.models() == ["current", "tiny"] and shared.client.status().ready


def endless(server):
    """Answers go on to their token limit."""
    tiny.favour(server.service.backbone, server.service.backbone.eos_id, -100.0)


def running(server):
    return sum(server.service.metrics().values())


@pytest.mark.slow
def test_64_streams_at_once_are_all_answered_and_those_who_leave_make_room(server):
    endless(server)
    callers = [Caller(server, stream=True, max_tokens=1000) for _ in range(64)]
    until(lambda: running(server) == 64)
    assert server.client.status().ready
    for caller in callers[8:]:
        caller.hang_up()
    until(lambda: running(server) <= 8, 10)
    assert chat(server, max_tokens=3).status_code == 200
    for caller in callers[:8]:
        caller.hang_up()
    until(lambda: running(server) == 0, 10)
    with ThreadPoolExecutor(64) as pool:
        replies = [*pool.map(lambda seed: chat(server, stream=bool(seed % 2), seed=seed, max_tokens=8, n=1), range(64))]
    assert [reply.status_code for reply in replies] == [200] * 64


@pytest.mark.parametrize("stream", [True, False])
def test_work_ends_when_its_reader_leaves(server, stream):
    endless(server)
    caller = Caller(server, text="Hi", stream=stream, max_tokens=1000, n=3)
    until(lambda: running(server) == 3)
    caller.hang_up()
    until(lambda: running(server) == 0, 5)
    counted = call(server, "/metrics").text
    (tokens,) = re.findall(r'completion_tokens_total{version="tiny"} (\S+)', counted)
    assert float(tokens) < 3000 and 'outcome="cancelled",version="tiny"} 1.0' in counted


def slow(server, seconds):
    """Each pass over the first layer takes longer by so much."""
    server.service.backbone.base.model.layers[0].register_forward_pre_hook(lambda *_: time.sleep(seconds))


@pytest.mark.parametrize("stream", [True, False])
def test_work_ends_when_its_reader_leaves_while_the_prompt_is_read(server, stream):
    slow(server, 1.0)
    caller = Caller(server, text="x" * 4000, stream=stream)
    until(lambda: running(server) == 1)
    caller.hang_up()
    # Read to its end, in parts of 512, it would take 8 s.
    until(lambda: running(server) == 0, 4)


def test_a_short_prompt_is_read_while_a_long_one_is(server):
    slow(server, 0.3)
    long = Caller(server, text="x" * 4000, stream=True)
    until(lambda: running(server) == 1)
    assert chat(server, max_tokens=2).status_code == 200
    assert running(server) == 1, "the long one is still read"
    long.hang_up()


@pytest.mark.slow
def test_an_adapter_that_is_deleted_while_it_streams(server):
    endless(server)
    version = server.register("tiny-r1")
    folder = policies.adapter_folder(server.store, version)
    streaming = Caller(server, model="tiny-r1", stream=True, max_tokens=300)
    assert "200 OK" in streaming.hear()
    shutil.rmtree(folder)
    said = ""
    while "[DONE]" not in said and "error" not in said:
        said += streaming.hear()
    assert "[DONE]" in said, "it is in memory, and goes on"
    # Another answer is either whole or says that the adapter is missing, without the path.
    reply = chat(server, model="tiny-r1")
    assert reply.status_code in (200, 503) and str(folder) not in reply.text
    assert chat(server).status_code == 200


@pytest.mark.slow
def test_the_queue_is_filled_while_somebody_chats_without_an_end(server, monkeypatch):
    monkeypatch.setattr("rlhf.generation.engine.BACKGROUND_WAIT_S", 0.1)
    over = threading.Event()

    def chatter():
        while not over.is_set():
            chat(server, max_tokens=200, temperature=2)

    threads = [threading.Thread(target=chatter) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: running(server) > 0)
        prompts.add(server.store, [prompts.NewPrompt(user("Q"), "test", "train")], source="test")
        until(lambda: queue.depth(server.store) > 0, 60)
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_refusal_is_told_apart_by_the_client(shared):
    with pytest.raises(PolicyServerRefused, match="of which 4,096 can be read"):
        streamed(shared.client.stream("tiny", user("x" * 5000), Sampling(max_new_tokens=5), seed=0))
