"""The policy server hangs, as under SIGSTOP, while many wait for it on the Demo page: judging and loading pages go on."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from rlhf.serving.client import CONNECT_S, PATIENCE_S, STREAM_S, Lookup, PolicyClient, PolicyServerDown
from storage.people import accounts
from tests.browser.program import Program, eventually
from tests.support import tiny

pytestmark = pytest.mark.slow

PASSWORD = "correct horse battery staple"
TABS = 8
TIMING = {"active_ms": 900, "idle_ms": 0, "client_ms": 900}
WITHIN_S = 20.0
"""Far more than judging takes on a busy machine, and far less than a server that hangs is waited for."""


class SignedIn(Program):
    """The program with accounts on: it shows nobody more than the sign-in page."""

    def _serves(self):
        assert self.process.poll() is None, self.log()
        try:
            return httpx2.get(f"{self.url}/sign-in", timeout=5.0).is_success
        except httpx2.HTTPError:
            return False


class Tab:
    """One browser tab of one account, as far as the server can tell."""

    def __init__(self, program, name):
        self.session = f"tab-{name}"
        cookie = f"{gate_cookie(program.store)}={accounts.sign_in(program.store, name, PASSWORD)}"
        self.http = httpx2.Client(base_url=program.url, headers={"cookie": cookie, "accept-language": "en"}, timeout=200)
        config = self.http.get("/config").json()
        self.ids = {c["props"]["elem_id"]: c["id"] for c in config["components"] if c["props"].get("elem_id")}
        events = config["dependencies"]
        self.answer = next(e["id"] for e in events if {self.ids["demo-prompt"], self.ids["demo-blind"]} <= set(e["inputs"]))
        shown = {self.ids["demo-versions-chosen"], self.ids["demo-temperature"]}
        self.refresh = next(e["id"] for e in events if shown <= set(e["outputs"]))

    def load_pages(self):
        return [self.http.get(path).status_code for path in ("/", "/config", "/theme.css")]

    def call(self, function, data):
        body = {"data": data, "component_id": self.ids["compare"], "fn_name": function, "session_hash": self.session}
        return self.http.post("/gradio_api/component_server", json=body).json()

    def open_demo(self):
        """As a tap on the tab: which models can answer."""
        body = {"fn_index": self.refresh, "data": ["", None, None], "session_hash": self.session}
        return self.http.post("/gradio_api/run/predict", json=body).text

    def send(self, text="Hi"):
        """Sends a prompt; the number under which its answer is written."""
        body = {"fn_index": self.answer, "data": [None, ["tiny-model"], False, text, 0.7, 96, 1, 0, 0], "session_hash": self.session}
        return self.http.post("/gradio_api/queue/join", json=body).json()["event_id"]

    def stop(self, event):
        """As the button does."""
        self.http.post("/gradio_api/cancel", json={"session_hash": self.session, "fn_index": self.answer, "event_id": event})

    def return_stats(self, stats):
        """Reads what comes of everything that was sent, for as long as the test goes on."""
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as messages:
            for line in messages.iter_lines():
                stats.append(line)

    def ask(self, text="Hi", stats=None):
        """Sends a prompt, and reads until its answer is over."""
        self.send(text)
        stats = [] if stats is None else stats
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as messages:
            for line in messages.iter_lines():
                stats.append(line)
                if "process_completed" in line or "close_stream" in line:
                    return "\n".join(stats)


def gate_cookie(store):
    from feedback_ui.server.auth import Auth

    return Auth(store).cookie


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    made = SignedIn(folder / "data", tiny.write(folder / "tiny-model"))
    accounts.create(made.store, "lead", PASSWORD, ["lead"])
    for name in [*(f"person{i}" for i in range(TABS)), "judge"]:
        accounts.create(made.store, name, PASSWORD, ["annotator"])
    made.start()
    made.until_answering()
    yield made
    made.end()


@pytest.fixture
def program(started):
    """The program with twelve comparisons waiting; its policy server is stopped by the test and goes on afterwards."""
    for i in range(12):
        started.put_in(f"First {i}.", f"Second {i}.")
    yield started
    started.policy_server().resume()


def timed(function, *arguments):
    started = time.monotonic()
    found = function(*arguments)
    return found, time.monotonic() - started


def test_a_dry_queue_is_told_at_once_while_the_server_hangs(program):
    """The first of the three: for half a minute after an answer of the server, its last status stands in for the one that is missing."""
    server = program.policy_server()
    judge = Tab(program, "judge")
    server.send_signal(signal.SIGSTOP)
    shown = judge.call("next_comparison", {})
    while shown["state"] == "comparison":
        act = {"presentation_id": shown["presentation_id"], "choice": "rank", "tiers": [[0], [1]], "timing": TIMING}
        shown = judge.call("judge", act)["next"]
    with ThreadPoolExecutor(TABS) as pool:
        asked = [pool.submit(timed, judge.call, "next_comparison", {}) for _ in range(40)]
        took = [future.result(60) for future in asked]
    assert all(reply["state"] != "comparison" and "has not answered" in str(reply) for reply, _ in took[-8:])
    # Forty that each waited three seconds for the server, in eight threads, would take 15.
    assert sum(seconds for _, seconds in took) < 40 * 3.0
    assert timed(judge.load_pages)[1] < WITHIN_S


def test_judging_and_pages_go_on_while_eight_wait_for_a_server_that_hangs(program):
    server = program.policy_server()
    tabs = [Tab(program, f"person{i}") for i in range(TABS)]
    judge = Tab(program, "judge")
    for tab in tabs:
        eventually(lambda tab=tab: "No tuned version exists yet" in tab.open_demo(), "the base is listed")
    assert "process_generating" in tabs[0].ask()
    shown, before = judge.call("next_comparison", {}), program.store.value("SELECT count(*) FROM judgments")
    server.send_signal(signal.SIGSTOP)
    stats = [[] for _ in tabs]
    with ThreadPoolExecutor(2 * TABS) as pool:
        waiting = [pool.submit(tab.ask, "Hi", message) for tab, message in zip(tabs, stats, strict=True)]
        opening = [pool.submit(tab.open_demo) for tab in tabs]
        eventually(lambda: all(any("process_generating" in line for line in message) for message in stats), "all are being answered")
        took = []
        for _ in range(8):
            act = {"presentation_id": shown["presentation_id"], "choice": "rank", "tiers": [[0], [1]], "timing": TIMING}
            reply, seconds = timed(judge.call, "judge", act)
            shown = reply["next"]
            assert shown["state"] == "comparison" and not reply.get("problem"), reply
            loaded, more = timed(judge.load_pages)
            assert loaded == [200, 200, 200]
            took += [seconds, more]
        # Those who were told how it stands asked the server, in vain, and were not kept either.
        assert all(future.result(WITHIN_S) for future in opening)
        assert max(took) < WITHIN_S and sum(took) < 2 * WITHIN_S
        assert not any(future.done() for future in waiting), "they were waiting all the while"
        server.send_signal(signal.SIGCONT)
        for future in waiting:
            future.result(2 * STREAM_S)
    assert program.store.value("SELECT count(*) FROM judgments") == before + 8


def test_stop_makes_room_at_once(program):
    """Two prompts of one person at a time; with a server that hangs, an answer alone would take half a minute to fail."""
    server = program.policy_server()
    tab = Tab(program, "person0")
    eventually(lambda: "No tuned version exists yet" in tab.open_demo(), "the base is listed")
    server.send_signal(signal.SIGSTOP)
    stats = []
    first, _ = tab.send(), tab.send()
    threading.Thread(target=tab.return_stats, args=(stats,), daemon=True).start()

    def has_message(event, what):
        return any(event in line and what in line for line in list(stats))

    eventually(lambda: sum("process_generating" in line for line in list(stats)) >= 2, "both are begun")
    refused = tab.send()
    eventually(lambda: has_message(refused, "This prompt was not sent"), "the third is refused")
    tab.stop(first)
    again = tab.send()
    eventually(lambda: has_message(again, "process_generating"), "there is room", within_s=STREAM_S / 2)
    assert not has_message(again, "This prompt was not sent")


# ---- the client by itself


class Hung:
    """Takes connections and says nothing, as a stopped process does."""

    def __init__(self):
        import socket

        self.socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"


def test_a_hung_server_keeps_one_caller_for_a_moment_and_the_others_not_at_all():
    hung = Hung()
    client = PolicyClient(hung.url)
    for ask in (client.status, client.models):
        took = []
        for _ in range(20):
            started = time.monotonic()
            with pytest.raises(PolicyServerDown, match=r"has not answered for 0.5 s. It may be busy or hang"):
                ask()
            took.append(time.monotonic() - started)
        assert took[0] >= PATIENCE_S * 0.9 and sum(took[1:]) < PATIENCE_S * 19 / 2
    hung.socket.close()


def test_a_lookup_asks_once_for_all_and_recovers():
    gate, asked = threading.Event(), []

    def ask():
        asked.append(1)
        gate.wait(5)
        return len(asked)

    with ThreadPoolExecutor(2) as threads, ThreadPoolExecutor(10) as callers:
        lookup = Lookup(ask, threads, lambda: PolicyServerDown("silent"))
        waiting = [callers.submit(lookup.get) for _ in range(10)]
        assert all(isinstance(future.exception(5), PolicyServerDown) for future in waiting) and len(asked) == 1
        gate.set()
        eventually(lambda: lookup._pending.done(), "the flight ends")
        # That one was too slow; what it brought is told at once, and the next is waited for again.
        assert lookup.get() in (1, 2)
        eventually(lambda: not lookup._slow, "it is quick again")
        before = len(asked)
        assert lookup.get() == before + 1 and len(asked) == before + 1


def test_the_last_answer_stands_in_for_a_while(monkeypatch):
    hang = threading.Event()

    def ask():
        if hang.is_set():
            time.sleep(1.5)
        return "known"

    with ThreadPoolExecutor(2) as threads:
        lookup = Lookup(ask, threads, lambda: PolicyServerDown("silent"))
        assert lookup.get() == "known"
        hang.set()
        assert lookup.get() == "known"
        monkeypatch.setattr("rlhf.serving.client.MAX_AGE_S", 0.0)
        with pytest.raises(PolicyServerDown, match="silent"):
            lookup.get()


def test_what_goes_wrong_is_raised_for_everybody_who_asked():
    def ask():
        raise PolicyServerDown("refused")

    with ThreadPoolExecutor(1) as threads:
        lookup = Lookup(ask, threads, lambda: PolicyServerDown("silent"))
        for _ in range(3):
            with pytest.raises(PolicyServerDown, match="refused"):
                lookup.get()
    assert CONNECT_S <= 3.0
