"""Somebody who knows the name of another one's session, with two accounts and a Demo that writes for a while."""

import asyncio
import time
from contextlib import suppress

import argon2
import gradio as gr
import httpx2
import pytest

from feedback_ui.server.auth import Auth
from feedback_ui.server.serving import Serving
from feedback_ui.server.web import Web
from storage.people import accounts

PASSWORD = "correct horse"


@pytest.fixture
def site(store, monkeypatch):
    """The clients of two annotators, at an app that counts aloud."""
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    gate = Auth(store)

    def count(kept: int, request: gr.Request):
        name = gate.reads(request, "annotator").annotator.name
        for number in range(20):
            yield f"{name} counts {number}", number
            time.sleep(0.05)

    def keep(request: gr.Request):
        return gate.reads(request, "annotator").annotator.name

    def kept(value: str, request: gr.Request):
        return f"kept: {value}"

    async def made() -> Web:
        with gr.Blocks(analytics_enabled=False) as pages:
            text, state, last = gr.Textbox(), gr.State(""), gr.State(0)
            gr.Button().click(count, last, [text, last], api_visibility="private", concurrency_limit=8)
            gr.Button().click(keep, None, state, queue=False, api_visibility="private")
            gr.Button().click(kept, state, text, queue=False, api_visibility="private")
        return Web(pages, gate)

    serving = Serving(asyncio.run(made()), "127.0.0.1", 0)
    accounts.create(store, "lead", PASSWORD, ["lead"])
    clients = []
    for name in ("Ann", "Eve"):
        accounts.create(store, name, PASSWORD, ["annotator"])
        cookie = f"{gate.cookie}={accounts.sign_in(store, name, PASSWORD)}"
        clients.append(httpx2.Client(base_url=serving.url, headers={"cookie": cookie}, timeout=20))
    yield clients
    for client in clients:
        client.close()
    serving.stop()


def begin(client) -> str:
    body = {"fn_index": 0, "data": [None], "session_hash": "known"}
    return client.post("/gradio_api/queue/join", json=body).json()["event_id"]


def stats(client, most: int = 10_000) -> str:
    text = ""
    # Gradio breaks a stream off that is of no session.
    with suppress(httpx2.RemoteProtocolError):
        with client.stream("GET", "/gradio_api/queue/data?session_hash=known") as reply:
            for line in reply.iter_lines():
                text += line
                if "process_completed" in line or "close_stream" in line or len(text) > most:
                    break
    return text


def test_nobody_receives_the_events_of_another_visitors_page(site):
    ann, eve = site
    begin(ann)
    assert "Ann counts" not in stats(eve, 300)
    assert "Ann counts 19" in stats(ann)


def test_nobody_cancels_the_events_of_another_visitors_page(site):
    ann, eve = site
    begin(ann)
    assert eve.post("/gradio_api/cancel", json={"session_hash": "known", "fn_index": 0, "event_id": "guessed"}).status_code == 200
    with eve.stream("GET", "/gradio_api/heartbeat/known"):
        pass
    assert "Ann counts 19" in stats(ann)


def test_nobody_reads_or_changes_the_state_of_another_visitors_page(site):
    ann, eve = site

    def said(client, number: int) -> list:
        data = [None] if number == 2 else []
        return client.post("/gradio_api/run/predict", json={"fn_index": number, "data": data, "session_hash": "known"}).json()["data"]

    said(ann, 1)
    assert said(eve, 2) == ["kept: "]
    said(eve, 1)
    assert said(ann, 2) == ["kept: Ann"] and said(eve, 2) == ["kept: Eve"]
