"""A disk that is full, a store that may not be written, a store that another process locks: the message that the annotator gets.

Over HTTP, through the served app, with the real fault. Each time the reply says what is wrong and what to do, nothing is half
written, and the same act sent again is saved once the fault is gone.
"""

import asyncio
import contextlib
import ctypes
import os
import resource
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import gradio as gr
import httpx2
import pytest

from feedback_ui.judging import compare
from feedback_ui.server.auth import Auth
from feedback_ui.server.serving import Serving
from feedback_ui.server.web import Web
from rlhf.serving.client import ServerStatus
from storage.content import comparisons, completions, policies, prompts
from storage.core import database
from storage.core.database import Database, StoreError
from storage.core.records import Sampling

QUICK_MS = 300
"""How long the app waits for a lock in most of these tests, in milliseconds."""

LINUX_CAPABILITY_VERSION_3 = 0x20080522
OVERRIDES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what lets root write where nobody may."""

NOT_SAVED = "Nothing was saved"


class IdleServer:
    """A policy server that writes nothing."""

    def status(self) -> ServerStatus:
        return ServerStatus(ready=True, filling=False, seconds_per_comparison=None, note="")


class Annotating:
    """The served Compare page, as its script sees it."""

    def __init__(self, store: Database, serving: Serving, component: int):
        self.store, self.serving, self.component = store, serving, component

    def call(self, name: str, data: dict) -> dict:
        asked = {"data": data, "component_id": self.component, "fn_name": name, "session_hash": "faults"}
        reply = httpx2.post(f"{self.serving.url}/gradio_api/component_server/", json=asked, timeout=60)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def shown(self) -> dict:
        view = self.call("next_comparison", {})
        assert view["state"] == "comparison", view
        return view

    def judge(self, view: dict) -> dict:
        return self.call("judge", {"presentation_id": view["presentation_id"], "choice": "a", "reason": None})

    def rows(self) -> dict[str, int]:
        """How many rows there are of all that a judgment writes."""
        tables = ("judgments", "presentations", "leases", "aspect_ratings", "flags")
        connection = sqlite3.connect(self.store.path)
        counted = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
        connection.close()
        return counted

    def sound(self) -> bool:
        connection = sqlite3.connect(self.store.path)
        found = connection.execute("PRAGMA integrity_check").fetchone()[0]
        connection.close()
        return found == "ok"


def fill(store: Database, count: int) -> None:
    policy = policies.ensure_base(store, "base")
    prompts.add(store, [prompts.NewPrompt(({"role": "user", "content": f"Question {n}?"},)) for n in range(count)], source="test")
    with store.atomic():
        for prompt in prompts.of_split(store):
            ids = [
                completions.add(
                    store, prompt_id=prompt.id, policy_version_id=policy.id, text=text, sampling=Sampling(), seed=0,
                    finish_reason="stop", latency_s=0.1,
                )
                for text in ("Yes.", "No.")
            ]  # fmt: skip
            comparisons.add(store, prompt.id, ids, purpose="versus")


@contextmanager
def serving(path, waiting=20):
    """The app over a store in this place, filled if it is new."""
    store = Database(path)
    if waiting:
        fill(store, waiting)

    # In a loop that runs: Gradio opens one and never closes it where there is none.
    async def made() -> tuple[Web, int]:
        gate = Auth(store)
        with gr.Blocks(analytics_enabled=False) as pages:
            component = compare.build(store, IdleServer(), gate)
        return Web(pages, gate), component._id

    web, component = asyncio.run(made())
    served = Serving(web, "127.0.0.1", 0)
    try:
        yield Annotating(store, served, component)
    finally:
        served.stop()
        store.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """One served app for the faults that come and go while it runs; it waits for a lock only briefly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "BUSY_TIMEOUT_MS", QUICK_MS)
        with serving(tmp_path_factory.mktemp("faults") / "rankloop.db") as served:
            yield served


@contextmanager
def locked(path):
    """Somebody else writes, and does not finish."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextmanager
def no_room(path):
    """No file may grow beyond what the write-ahead log has now."""
    log = path.with_name(f"{path.name}-wal")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FAULTS = {"locked": (locked, "locked by another write"), "no room": (no_room, "disk's free space")}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_judgment_that_cannot_be_saved_is_reported_and_can_be_sent_again(page, fault):
    broken, told = FAULTS[fault]
    view = page.shown()
    before = page.rows()
    with broken(page.store.path):
        reply = page.judge(view)
        assert "next" not in reply, "the page would throw the choice away"
        assert NOT_SAVED in reply["problem"] and told in reply["problem"] and "try again" in reply["problem"]
    assert page.rows() == before
    reply = page.judge(view)
    assert "problem" not in reply and reply["next"]["presentation_id"] != view["presentation_id"]
    assert page.rows()["judgments"] == before["judgments"] + 1
    assert page.sound()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_comparison_that_cannot_be_leased_is_reported(page, fault):
    page.judge(page.shown())
    with FAULTS[fault][0](page.store.path):
        for name in ("next_comparison", "undo"):
            assert NOT_SAVED in page.call(name, {})["problem"]
    assert page.shown()["state"] == "comparison"


def test_a_lock_that_is_given_up_in_time_is_not_noticed(tmp_path):
    """The app waits as long as it is shipped to, which a busy machine does not use up."""
    with serving(tmp_path / "rankloop.db") as page:
        view = page.shown()
        replies = []
        thread = threading.Thread(target=lambda: replies.append(page.judge(view)))
        with locked(page.store.path):
            thread.start()
            time.sleep(0.1)
            assert not replies
        thread.join()
        assert "next" in replies[0] and "problem" not in replies[0]


@contextmanager
def as_anybody():
    """Root may write anywhere; for this thread, and those that it starts, the permissions of files hold."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", LINUX_CAPABILITY_VERSION_3, 0)
    had = ctypes.create_string_buffer(24)
    if libc.capget(header, had) != 0:
        pytest.skip("runs as root, and may not give up what root may")
    low = struct.unpack("6I", had.raw)
    without = struct.pack("6I", low[0] & ~OVERRIDES, *low[1:])
    assert libc.capset(header, without) == 0
    try:
        yield
    finally:
        assert libc.capset(header, had.raw) == 0


@contextmanager
def read_only(folder):
    """Neither the folder nor what is in it may be written."""
    paths = [folder, *folder.iterdir()]
    modes = [path.stat().st_mode for path in paths]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)


@pytest.mark.skipif(sys.platform != "linux", reason="gives up root's rights the Linux way")
def test_a_read_only_store_is_reported_and_the_judgment_can_be_sent_again(tmp_path):
    path = tmp_path / "data" / "rankloop.db"
    with as_anybody(), serving(path) as page:
        view = page.shown()
        before = page.rows()
        with read_only(path.parent):
            # Connections that were open may write on; the next ones may not.
            page.store.close()
            reply = page.judge(view)
            assert "next" not in reply
            assert NOT_SAVED in reply["problem"] and "permissions" in reply["problem"]
        page.store.close()
        assert page.rows() == before
        assert "problem" not in page.judge(view)
        assert page.rows()["judgments"] == before["judgments"] + 1


@pytest.mark.skipif(sys.platform != "linux", reason="gives up root's rights the Linux way")
def test_a_program_over_a_read_only_folder_says_so(tmp_path):
    path = tmp_path / "data" / "rankloop.db"
    store = Database(path)
    fill(store, 2)
    store.close()
    with as_anybody(), read_only(path.parent), pytest.raises(StoreError, match="Check the folder's permissions"):
        Database(path)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_reported_and_the_judgment_can_be_sent_again(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no small disk may be mounted here")
    try:
        with serving(disk / "rankloop.db") as page:
            view = page.shown()
            before = page.rows()
            with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
                while ballast.write(bytes(4096)):
                    pass
            replies = []
            # What the write-ahead log has reserved may hold one or two judgments yet.
            while "next" in (reply := page.judge(view)):
                replies.append(reply)
                view = reply["next"]
                assert len(replies) < 20
            assert NOT_SAVED in reply["problem"] and "disk" in reply["problem"]
            assert page.rows()["judgments"] == before["judgments"] + len(replies)
            assert NOT_SAVED in page.call("next_comparison", {})["problem"]
            (disk / "ballast").unlink()
            assert "problem" not in page.judge(view)
            assert page.rows()["judgments"] == before["judgments"] + len(replies) + 1
            assert page.sound()
    finally:
        subprocess.run(["umount", disk], check=True)


HOLD = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
other.execute("ROLLBACK")
"""

PAGE_PATIENCE_S = 15
"""After so long without a reply the page says that the server does not answer: `TIMEOUT_MS` in server.js."""


@pytest.mark.slow
def test_a_store_that_another_process_holds_for_long(tmp_path):
    """With the timeouts that are shipped. The page hears why before its patience ends, as often as it asks."""
    with serving(tmp_path / "rankloop.db") as page:
        view = page.shown()
        before = page.rows()
        command = [sys.executable, "-c", HOLD, page.store.path]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout.readline() == b"held\n"
            took = []
            for _ in range(2):
                began = time.monotonic()
                reply = page.judge(view)
                took.append(time.monotonic() - began)
                assert "locked by another write" in reply["problem"]
                assert page.rows() == before
            # One busy moment of the machine is no fault of the app's.
            assert min(took) < PAGE_PATIENCE_S
            other.communicate(b"let go\n")
        assert "next" in page.judge(view)
        assert page.rows()["judgments"] == before["judgments"] + 1
        assert page.sound()
