"""What every answer of the web app has, and streams that end with their session."""

import asyncio
import time
from types import SimpleNamespace

import pytest
from waiting import until

from feedback_ui.server import access
from feedback_ui.server.web import QUEUE_POLL_S
from feedback_ui.shared.scripts import modules
from storage.people import accounts


def test_every_answer_has_the_security_headers(site):
    for reply in (site.get(), site.get("/nowhere"), site.get(host="evil.example"), site.get("/sign-in"), site.say()):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert "server" not in reply.headers
    assert site.get().headers["cache-control"] == "no-store"


def test_an_idle_queue_sleeps(site, monkeypatch):
    """Counts how often Gradio's queue wakes up: a thousand times a second by itself."""
    naps = []

    async def nap(seconds):
        naps.append(seconds)
        await sleep(seconds)

    sleep = asyncio.sleep
    site.get()
    monkeypatch.setattr("gradio.queueing.asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": nap}))
    until(lambda: len(naps) > 20)
    assert min(naps) >= QUEUE_POLL_S


@pytest.fixture
def quick_recheck(monkeypatch):
    monkeypatch.setattr(access, "RECHECK_S", 0.02)


@pytest.mark.parametrize("way", ["sign out", "expire"])
def test_a_stream_ends_with_its_session(site, ann, quick_recheck, way):
    with site.streaming("/gradio_api/heartbeat/s", ann) as received:
        assert received[0] == 200
        time.sleep(0.2)
        assert None not in received
        if way == "sign out":
            accounts.sign_out(site.store, ann.split("=")[1])
        else:
            with site.store.atomic() as connection:
                connection.conn.execute("UPDATE sessions SET expires_at = '2020-01-01'")
        until(lambda: None in received)


def test_a_generator_that_streams_is_cut_off_with_its_session(site, ann, quick_recheck):
    joined = site.post("/gradio_api/queue/join", {"fn_index": 1, "data": [], "session_hash": "g"}, cookie=ann)
    assert joined.status_code == 200
    with site.streaming("/gradio_api/queue/data?session_hash=g", ann) as received:
        until(lambda: len(received) > 20)
        accounts.disable(site.store, site.account("Bob", "lead").id)
        assert None not in received
        accounts.sign_out(site.store, ann.split("=")[1])
        until(lambda: None in received)
    assert site.get("/gradio_api/queue/data?session_hash=g").status_code == 401


def test_a_session_in_use_is_renewed_by_any_request(site, ann):
    soon = time.strftime("%Y-%m-%dT%H:%M:%S.000+00:00", time.gmtime(time.time() + 3600))
    with site.store.atomic() as connection:
        connection.conn.execute("UPDATE sessions SET expires_at = ?", [soon])
    site.say(ann)
    assert site.store.value("SELECT expires_at FROM sessions") > soon


def test_a_store_that_cannot_be_read_is_reported(site):
    with site.store.atomic() as connection:
        connection.conn.execute("PRAGMA legacy_alter_table=ON")
        connection.conn.execute("ALTER TABLE accounts RENAME TO elsewhere")
    reply = site.get("/config")
    assert reply.status_code == 503 and "cannot be read" in reply.json()["error"]


def test_modules_are_kept_by_the_browser_and_only_under_their_own_version(site):
    path = f"/{modules().path('judging.js')}"
    assert path[1:] in site.get().text
    reply = site.get(path)
    assert reply.headers["content-type"] == "text/javascript; charset=utf-8"
    assert reply.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert "export function start(" in reply.text
    others = [path.replace(modules().version, "0" * 16), *(path.replace("judging.js", name) for name in ("start.js", "..%2fstart.js"))]
    for other in others:
        refused = site.get(other)
        assert refused.status_code == 404 and refused.headers["cache-control"] == "no-store", other
