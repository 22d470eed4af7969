"""A rollout server: rankloop's own over real HTTP, and one whose every response is a function of the request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import uvicorn
from waiting import PATIENCE_S, until

from rlhf.generation.policy_service import PolicyService
from rlhf.generation.server import build_server
from rlhf.models.backbone import Backbone
from rlhf.serving import supervisor

Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]


@contextmanager
def own_server(store, model: Path, lora_folder: Path | None, *, port: int | None = None, processed: bool = True, api_key: str = ""):
    """rankloop's policy server as `policy-server --lora-folder DIR --logprobs-mode processed_logprobs` starts it; yields its address."""
    service = PolicyService(store, str(model), Backbone.load(model, "cpu", "float32"))
    app = build_server(service, None, api_key=api_key, lora_folder=lora_folder, processed_logprobs=processed)
    port = port or supervisor.free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


class ScriptedServer:
    """`behave(path, body) -> (status, reply)`; a body of bytes is sent as it is. `asked` holds (path, body), `keys` the authorization."""

    def __init__(self, behave: Callable[[str, Any], Reply]):
        self.behave = behave
        self.asked: list[tuple[str, Any]] = []
        self.keys: list[str | None] = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def _answer(self, body: Any) -> None:
                scripted.asked.append((self.path, body))
                scripted.keys.append(self.headers.get("authorization"))
                status, reply, *headers = scripted.behave(self.path, body)
                data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                for name, value in (headers[0] if headers else {}).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
