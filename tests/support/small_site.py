"""A served app with small pages, and verbs for its visitors."""

import asyncio
import http.client
import threading
import time
from contextlib import contextmanager

import gradio as gr
import httpx2
from waiting import PATIENCE_S, until

from feedback_ui.server.auth import Auth
from feedback_ui.server.serving import Serving
from feedback_ui.server.web import Web
from storage.people import accounts

PASSWORD = "correct horse"


def pages(gate: Auth) -> gr.Blocks:
    """One event that goes round the queue, one that streams through it, one server function."""

    def say(request: gr.Request) -> str:
        return gate.reads(request, "annotator").annotator.name

    def count(request: gr.Request):
        gate.reads(request, "annotator")
        for number in range(10_000):
            yield str(number)
            time.sleep(0.05)

    def lead_only(_: dict, request: gr.Request) -> str:
        return gate.acts(request, "lead").annotator.name

    with gr.Blocks(analytics_enabled=False) as made:
        text = gr.Textbox()
        gr.Button().click(say, outputs=text, queue=False, api_visibility="private")
        gr.Button().click(count, outputs=text, api_visibility="private")
        gr.HTML("", server_functions=[lead_only], elem_id="component")
    return made


class Site:
    """A served app with methods for its visitors' actions."""

    def __init__(self, serving: Serving, gate: Auth):
        self.serving, self.auth, self.store, self.url = serving, gate, gate.store, serving.url

    def get(self, path="/", **headers):
        return httpx2.get(self.url + path, headers=headers, timeout=PATIENCE_S)

    def post(self, path, body=None, **headers):
        return httpx2.post(self.url + path, json=body or {}, headers=headers, timeout=PATIENCE_S)

    def form(self, path="/sign-in", cookie="", **fields):
        return httpx2.post(self.url + path, data=fields, headers={"cookie": cookie}, timeout=PATIENCE_S)

    def account(self, name="Ann", *roles):
        return accounts.create(self.store, name, PASSWORD, roles or ["lead", "annotator"])

    def cookie(self, name="Ann") -> str:
        return f"{self.auth.cookie}={accounts.sign_in(self.store, name, PASSWORD)}"

    def say(self, cookie=""):
        return self.post("/gradio_api/run/predict", {"fn_index": 0, "data": [], "session_hash": "s"}, cookie=cookie)

    def call(self, function, cookie=""):
        component = next(c["id"] for c in self.get("/config", cookie=cookie).json()["components"] if c["props"].get("elem_id"))
        asked = {"data": {}, "component_id": component, "fn_name": function, "session_hash": "s"}
        return self.post("/gradio_api/component_server", asked, cookie=cookie)

    def raw(self, method: str, path: str, **headers) -> http.client.HTTPResponse:
        """Sends a request without normalising its path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.serving.port, timeout=PATIENCE_S)
        connection.putrequest(method, path, skip_host="host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        return connection.getresponse()

    @contextmanager
    def streaming(self, path, cookie=""):
        """Reads a stream in the background into the returned list, with None at its end."""
        heard = []

        def listen():
            with httpx2.stream("GET", self.url + path, headers={"cookie": cookie}, timeout=PATIENCE_S) as reply:
                heard.append(reply.status_code)
                for line in reply.iter_lines():
                    heard.append(line)
            heard.append(None)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        until(lambda: len(heard) > 1)
        yield heard
        thread.join(PATIENCE_S)


def serve(store) -> Site:
    # Inside a running event loop: without one, Gradio opens one and never closes it.
    async def made() -> tuple[Web, Auth]:
        gate = Auth(store)
        return Web(pages(gate), gate), gate

    web, gate = asyncio.run(made())
    return Site(Serving(web, "127.0.0.1", 0), gate)
