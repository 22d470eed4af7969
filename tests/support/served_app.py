"""The whole app, served on a free port, with a client for nobody and for an account of each role."""

import asyncio
import socket
from contextlib import contextmanager
from pathlib import Path

import argon2
import httpx2
import pytest
from waiting import PATIENCE_S

from feedback_ui.app import build_app
from feedback_ui.server.auth import Auth
from feedback_ui.server.serving import Serving
from feedback_ui.server.web import Web
from rlhf.config import RoundConfig
from rlhf.runs.jobs import RoundError
from rlhf.serving.client import PolicyServerDown
from storage.core.database import Database
from storage.core.records import ACCOUNT_ROLES
from storage.people import accounts

PASSWORD = "correct horse"


class NoJobs:
    """Starts no round: a stand-in for the worker."""

    def start(self, config, by=None):
        raise RoundError("no rounds here")

    cancel = resume = start

    def log_tail(self, run_id, lines=40):
        return ""


class NoServer:
    """A stand-in for a policy server that is down."""

    def models(self):
        raise PolicyServerDown("no models here")

    status = models


class Served:
    """A served app, and requests of its visitors."""

    def __init__(self, web: Web, serving: Serving):
        self.web, self.serving, self.url = web, serving, serving.url
        self.store, self.pages, self.auth = web.auth.store, web.pages, web.auth
        self.folder = web.auth.store.path.parent
        self.clients: dict[str, httpx2.Client] = {}

    def add_accounts(self) -> None:
        """`nobody`, each role, and a second lead."""
        self.clients["nobody"] = httpx2.Client(base_url=self.url, timeout=PATIENCE_S)
        # The first account has to be a lead's.
        for name, role in (("other lead", "lead"), *((role, role) for role in ACCOUNT_ROLES)):
            accounts.create(self.store, name, PASSWORD, [role])
            self.clients[name] = httpx2.Client(base_url=self.url, headers={"cookie": self.cookie(name)}, timeout=PATIENCE_S)

    def cookie(self, name: str) -> str:
        return f"{self.auth.cookie}={accounts.sign_in(self.store, name, PASSWORD)}"

    def handler(self, name: str) -> int:
        """The number by which a browser calls the handler whose qualified name ends with `name`."""
        found = [number for number, event in self.pages.fns.items() if event.fn and event.fn.__qualname__.endswith(name)]
        return found[0]

    def predict(self, who: str, handler: str | int, data: list, **more) -> httpx2.Response:
        number = self.handler(handler) if isinstance(handler, str) else handler
        return self.clients[who].post("/gradio_api/run/predict", json={"fn_index": number, "data": data, "session_hash": "session"} | more)

    def component(self, name: str) -> int:
        return next(number for number, block in self.pages.blocks.items() if getattr(block, "elem_id", None) == name)

    def ask(self, who: str, component: str, function: str, data) -> httpx2.Response:
        """Calls a server function as the page's script does."""
        asked = {"data": data, "component_id": self.component(component), "fn_name": function, "session_hash": "session"}
        return self.clients[who].post("/gradio_api/component_server", json=asked)

    def upload(self, who: str, content: bytes, name: str = "prompts.jsonl") -> httpx2.Response:
        return self.clients[who].post("/gradio_api/upload", files={"files": (name, content)})

    def uploads(self) -> list[Path]:
        """Every file that is in the folder for uploads."""
        return [path for path in (self.folder / "uploads").rglob("*") if not path.is_dir()]

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.serving.port), timeout=PATIENCE_S)
        return made


@contextmanager
def served(folder: Path, **options):
    """Serves a new store in `folder`; `options` go to `Serving`."""
    store = Database(folder / "rankloop.db")

    # In a loop that runs: Gradio opens one and never closes it where there is none.
    async def made() -> Web:
        auth = Auth(store)
        return Web(build_app(store, NoJobs(), NoServer(), auth, default_config=RoundConfig()), auth)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        serving = Serving(web := asyncio.run(made()), "127.0.0.1", 0, **options)
        site = Served(web, serving)
        try:
            yield site
        finally:
            for client in site.clients.values():
                client.close()
            serving.stop()
            store.close()
