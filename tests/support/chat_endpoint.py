"""A server of OpenAI's chat protocol over real HTTP, whose behaviour is a function of the request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, Any]] | tuple[int, dict[str, Any], dict[str, str]]


def says(text: str | None, reason: str = "stop", **fields: Any) -> Reply:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]} | fields


def error(status: int, message: str, code: str | None = None, param: str | None = None, **headers: str) -> Reply:
    return status, {"error": {"message": message, "type": "invalid_request_error", "code": code, "param": param}}, headers


class ChatEndpoint:
    """Start it with a behaviour: `behave(body, headers) -> Reply`. `asked` holds the bodies, `keys` the authorization headers."""

    def __init__(self, behave: Callable[[dict[str, Any], Any], Reply]):
        self.behave = behave
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.paths: list[str] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                endpoint.asked.append(body)
                endpoint.keys.append(self.headers.get("authorization"))
                endpoint.paths.append(self.path)
                status, reply, *headers = endpoint.behave(body, self.headers)
                data = json.dumps(reply).encode()
                self.send_response(status)
                for name, value in (headers[0] if headers else {}).items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
