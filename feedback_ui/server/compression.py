"""Compresses the page and its modules, whose text is most of what a first visit loads. Gradio compresses its own assets alone.

What is compressed holds nothing secret beside what a visitor sends, so that its length tells an onlooker nothing; answers of handlers
and streams pass through as they are.
"""

from __future__ import annotations

from gradio.brotli_middleware import BrotliResponder, Mode
from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipResponder
from starlette.types import ASGIApp, Receive, Scope, Send

from feedback_ui.shared.scripts import ROUTE as MODULES

MIN_BYTES = 1000

QUALITY = 4
"""Brotli's: the page of 650 kB becomes 84 kB in 6 ms of a processor; 5 takes half as long again for a tenth less."""

LEVEL = 5
"""gzip's, for browsers that reach the app over plain HTTP from another machine: these do not ask for Brotli."""

PREFIX = MODULES.partition("{")[0]
"""What the paths of all modules begin with."""


class PageCompression:
    """ASGI middleware: compresses the page itself and the JavaScript modules, as the browser takes it."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http" and (scope["path"] == "/" or scope["path"].startswith(PREFIX)):
            accepted = Headers(scope=scope).get("accept-encoding", "")
            if "br" in accepted:
                app = BrotliResponder(self.app, QUALITY, Mode.text, 22, 0, MIN_BYTES)
            elif "gzip" in accepted:
                app = GZipResponder(self.app, MIN_BYTES, LEVEL)
        await app(scope, receive, send)
