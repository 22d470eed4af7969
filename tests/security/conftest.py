"""The whole app, served once for all tests of this folder, and a client for each kind of visitor."""

import asyncio
from pathlib import Path

import argon2
import httpx2
import pytest

from feedback_ui.app import build_app
from feedback_ui.server.auth import Auth
from feedback_ui.server.serving import Serving
from feedback_ui.server.web import Web
from rlhf.config import RoundConfig
from rlhf.serving.client import PolicyClient, PolicyServerDown
from storage.core.database import Database
from storage.core.records import ACCOUNT_ROLES
from storage.people import accounts


class NoJobs:
    def start(self, config, by=None):
        raise PolicyServerDown("no rounds here")

    cancel = resume = start

    def log_tail(self, run_id, lines=40):
        return ""


NOBODY_THERE = "http://127.0.0.1:9/v1"
"""An endpoint at which nothing answers: the discard port."""


@pytest.fixture(scope="module")
def uploads(tmp_path_factory) -> Path:
    """The folder of Gradio's uploads and copies."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def pages(tmp_path_factory, uploads):
    store = Database(tmp_path_factory.mktemp("walk") / "rankloop.db")

    # In a running event loop: without one, Gradio opens one and never closes it.
    async def made() -> Web:
        auth = Auth(store)
        return Web(build_app(store, NoJobs(), PolicyClient(NOBODY_THERE), auth, default_config=RoundConfig()), auth)

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GRADIO_TEMP_DIR", str(uploads))
        yield asyncio.run(made())
    store.close()


@pytest.fixture(scope="module")
def visitors(pages):
    """The served app, and a client for each visitor, signed in with that role alone."""
    store = pages.auth.store
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        # A lead whose account no test changes.
        accounts.create(store, "first lead", "correct horse", ["lead"])
        serving = Serving(pages, "127.0.0.1", 0)
        clients = {"nobody": httpx2.Client(base_url=serving.url, timeout=10)}
        for role in ACCOUNT_ROLES:
            accounts.create(store, f"the {role}", "correct horse", [role])
            cookie = f"{pages.auth.cookie}={accounts.sign_in(store, f'the {role}', 'correct horse')}"
            clients[role] = httpx2.Client(base_url=serving.url, headers={"cookie": cookie}, timeout=10)
        yield clients
        for client in clients.values():
            client.close()
        serving.stop()
