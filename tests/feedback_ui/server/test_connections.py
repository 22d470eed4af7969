"""Connections that send nothing, too little or without end, over real sockets: they are closed, and new ones are answered meanwhile."""

import select
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import httpx2
import pytest
from served_app import served
from waiting import PATIENCE_S, fastest, until

from feedback_ui.server import access
from feedback_ui.server.connections import MAX_HEADER_BYTES, ConnectionLimits, max_connections

CAPACITY = 80

LIMIT_S = 2.0
"""How long a connection may say nothing here, or not read."""

ENDED_S = 4.5
"""In which it is ended on a machine that is not busy. Without our limits uvicorn would end one after 5 s, or never."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    limits = ConnectionLimits(capacity=CAPACITY, headers_s=LIMIT_S, rest_s=LIMIT_S, unread_s=LIMIT_S)
    with served(tmp_path_factory.mktemp("slow"), limits=limits) as site:
        site.add_accounts()
        yield site


def said_until_the_end(made: socket.socket) -> bytes:
    """What the server says until it ends the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while piece := made.recv(65536):
            received += piece
    return received


def signs_in(site) -> int:
    return httpx2.get(site.url + "/sign-in", timeout=PATIENCE_S).status_code


@contextmanager
def many(site, number: int, say: bytes = b""):
    """Open connections, each of which has said this."""
    with ExitStack() as stack:
        made = []
        for _ in range(number):
            made.append(stack.enter_context(site.connect()))
            if say:
                with suppress(OSError):
                    made[-1].sendall(say)
        yield made


def still_open(connections: list[socket.socket]) -> int:
    ended, _, _ = select.select(connections, [], [], 0)
    return len(connections) - len(ended)


HALF = [
    b"", b"G", b"GET /sign-in HTTP/1.1\r\n", b"GET /sign-in HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"\r\n", b"\r\n\r\n",
    b"POST /sign-in HTTP/1.1\r\nHost: x\r\n",
]  # fmt: skip


def test_requests_that_do_not_end_are_given_up(site):
    received = {}

    def attempt():
        with ExitStack() as stack:
            opened = {half: stack.enter_context(site.connect()) for half in HALF}
            for half, made in opened.items():
                made.sendall(half)
            received.update({half: said_until_the_end(made) for half, made in opened.items()})

    assert fastest(attempt, ENDED_S) < ENDED_S
    # Nothing is said to who has said nothing: a browser opens connections ahead of need.
    assert all(b" 408 " in said for half, said in received.items() if half.strip()), received
    assert not received[b""]


def test_a_byte_now_and_then_does_not_help(site):
    assert fastest(lambda: trickle(site, b"GET /"), ENDED_S) < ENDED_S


def trickle(site, begin: bytes) -> None:
    """Says this, and then a byte now and then until the server ends the connection."""
    with site.connect() as made:
        made.sendall(begin)
        made.settimeout(0.1)
        give_up_at = time.monotonic() + PATIENCE_S
        with suppress(ConnectionError):
            while time.monotonic() < give_up_at:
                made.sendall(b"x")
                try:
                    while made.recv(65536):
                        pass
                    return
                except TimeoutError:
                    pass


def test_a_second_request_has_the_same_time(site):
    def attempt():
        with ExitStack() as stack:
            opened = [stack.enter_context(site.connect()) for _ in range(2)]
            for half, made in zip((b"GET / HT", b"\r\n"), opened, strict=True):
                made.sendall(b"GET /sign-in HTTP/1.1\r\nHost: x\r\n\r\n")
                until(lambda made=made: select.select([made], [], [], 0)[0])
                made.sendall(half)
            assert all(said_until_the_end(made).startswith(b"HTTP/1.1 200") for made in opened)

    assert fastest(attempt, ENDED_S) < ENDED_S


def test_a_body_that_nobody_reads_does_not_go_on_for_ever(site):
    head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    assert fastest(lambda: trickle(site, head), ENDED_S) < ENDED_S


@pytest.mark.parametrize("head", [b"GET /sign-in HTTP/1.1\r\nX-Long: ", b"GET /", b"GET /sign-in HTTP/1.1\r\n"])
def test_headers_are_not_kept_without_end(site, head):
    piece = b"X-More: y\r\n" * 100 if head.endswith(b"\n") else b"x" * 1000
    with site.connect() as made:
        sent = len(head)
        made.sendall(head)
        with pytest.raises(OSError):
            while sent < 40 * MAX_HEADER_BYTES:
                made.sendall(piece)
                sent += len(piece)
                time.sleep(0.0005)
    assert signs_in(site) == 200


def test_neither_are_trailers_and_the_frames_of_chunks(site):
    start = b"POST /sign-in HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    for endless in (b"0\r\nX-Trailer: " + b"x" * 1000, b"1;" + b"x" * 1000):
        with site.connect() as made:
            made.sendall(start + endless)
            sent = 0
            with pytest.raises(OSError):
                while sent < 40 * MAX_HEADER_BYTES:
                    made.sendall(b"x" * 1000)
                    sent += 1000
                    time.sleep(0.0005)
    assert signs_in(site) == 200


def test_a_client_that_does_not_read_is_disconnected(site):
    cookie = site.cookie("lead")
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.connect(("127.0.0.1", site.serving.port))
        asked = f"GET / HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n".encode()
        # More answers than the buffers between here and there can hold.
        for _ in range(40):
            try:
                made.sendall(asked)
            except OSError:
                break
        connections = site.serving._server.server_state.connections
        until(lambda: any(each.flow.write_paused for each in connections))
        until(lambda: not any(each.flow.write_paused for each in connections))
    assert signs_in(site) == 200


@pytest.mark.parametrize("say", [*HALF[:4], b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nna"])
def test_newcomers_are_answered_while_all_places_are_taken(site, say):
    with many(site, 3 * CAPACITY, say) as taken:
        statuses = []
        for _ in range(5):
            assert fastest(lambda: statuses.append(signs_in(site)), 3) < 3
        assert set(statuses) == {200}
        assert still_open(taken) <= CAPACITY


def test_the_longest_waiting_connection_is_closed_first(site):
    until(lambda: site.serving.limits.open < 5)
    site.serving.limits.headers_s = 30.0
    try:
        with many(site, CAPACITY - 10) as first:
            until(lambda: site.serving.limits.open >= CAPACITY - 10)
            with many(site, 20) as later:
                until(lambda: still_open(first) <= CAPACITY - 20)
                time.sleep(0.3)
                assert still_open(later) == 20
                select_ended = [each for each in first if select.select([each], [], [], 0)[0]]
                assert set(select_ended) <= set(first[:20])
    finally:
        site.serving.limits.headers_s = LIMIT_S


def test_a_flood_does_not_end_running_responses(site):
    """A page's stream stays, however many come and say nothing."""
    stats = []

    def return_stats():
        with site.clients["annotator"].stream("GET", "/gradio_api/heartbeat/flood") as reply:
            stats.append(reply.status_code)
            for line in reply.iter_lines():
                stats.append(line)
        stats.append(None)

    listening = threading.Thread(target=return_stats, daemon=True)
    listening.start()
    until(lambda: len(stats) > 1)
    with many(site, 3 * CAPACITY):
        assert signs_in(site) == 200
        assert None not in stats
    assert stats[0] == 200


def test_the_streams_of_one_account_are_limited(site, monkeypatch):
    monkeypatch.setattr(access, "MAX_STREAMS", 10)
    cookie = site.cookie("annotator")
    asked = f"GET /gradio_api/heartbeat/s HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n".encode()
    with many(site, CAPACITY - 20, asked) as taken:
        until(lambda: sum(not _has_ended(each) for each in taken) <= 12)
        assert not _has_ended(taken[-1])
        assert site.clients["lead"].get("/config").status_code == 200


def _has_ended(made: socket.socket) -> bool:
    """Whether the response in chunks has come to its end."""
    try:
        received = made.recv(65536, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return not received or received.endswith(b"0\r\n\r\n")


def test_the_limit_on_connections_leaves_file_descriptors_free():
    import resource

    assert 64 <= max_connections() <= max(64, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100)


def test_websockets_are_closed(site):
    until(lambda: site.serving.limits.open < 10)
    ask = b"GET /sign-in HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    ask += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n"
    for _ in range(CAPACITY):
        with site.connect() as made:
            made.sendall(ask)
            assert b" 101 " not in made.recv(4096)
    until(lambda: site.serving.limits.open < 10)
    assert signs_in(site) == 200
