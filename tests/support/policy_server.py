"""A policy server over real HTTP in this process, and functions that read its streams."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import uvicorn
from learning import scramble, user
from waiting import PATIENCE_S, until

from rlhf.config import AdapterConfig
from rlhf.generation.engine import Engine
from rlhf.generation.server import build_server
from rlhf.models.backbone import Backbone
from rlhf.serving import supervisor
from rlhf.serving.client import PolicyClient
from rlhf.serving.endpoint_client import EndpointClient
from rlhf.serving.endpoints import Endpoint
from rlhf.serving.filler import ComparisonGenerator
from storage.content import policies
from storage.core.records import Sampling
from storage.project import runs


def streamed(pieces):
    """The text of a whole stream."""

    async def read():
        return [piece async for piece in pieces]

    return asyncio.run(read())


class Server:
    """A running policy server, and requests to it."""

    def __init__(self, store, folder):
        self.store, self.model = store, str(folder)
        self.engine = Engine(store, self.model, Backbone.load(folder, "cpu", "float32"))
        self.filler = ComparisonGenerator(store, self.engine.generate, self.model)
        self.app = build_server(self.engine, self.filler)
        self.port = supervisor.free_port()
        self._uvicorn = uvicorn.Server(uvicorn.Config(self.app, host="127.0.0.1", port=self.port, log_level="error"))
        self._thread = threading.Thread(target=self._uvicorn.run)
        self._thread.start()
        until(lambda: self._uvicorn.started)
        self.client = PolicyClient(f"http://127.0.0.1:{self.port}/v1")

    def stop(self):
        self._uvicorn.should_exit = True
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def register(self, name, *, seed=0):
        """Registers a policy version, as a finished round does."""
        run_id = f"run-{name}"
        runs.create(self.store, run_id, config={}, seed=0, versions={})
        maker = Backbone.load(Path(self.model), "cpu", "float32")
        maker.add_adapter("policy", AdapterConfig(rank=4), seed=seed)
        scramble(maker, "policy", seed=seed, scale=0.3)
        folder = self.store.path.parent / "runs" / run_id / "policy"
        maker.save_adapter("policy", folder)
        return policies.register_tuned(self.store, name=name, base_model=self.model, adapter_path=folder, run_id=run_id)

    def says(self, model, text="Hello", *, seed=1, max_tokens=30, temperature=1.0):
        client = EndpointClient(Endpoint(self.client.base_url, model))
        return client.complete(user(text), Sampling(temperature=temperature, max_new_tokens=max_tokens), seed)
