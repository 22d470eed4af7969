"""The web app: the routes of `feedback_ui.server.auth_routes` and the Gradio pages, behind the access middleware.

Access rules are in `feedback_ui.server.access`, authentication is in `feedback_ui.server.auth`, and starting and stopping the server
in `feedback_ui.server.serving`.
"""

from __future__ import annotations

import os
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.routes import App
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount

from feedback_ui.server.access import PASSWORD, SIGN_IN, SIGN_OUT, AccessMiddleware, refusal, refused_body
from feedback_ui.server.auth import AccessRefused, Auth
from feedback_ui.server.auth_routes import AuthRoutes
from feedback_ui.server.bodies import MAX_UPLOAD_BYTES, BadBody
from feedback_ui.server.calls import HandlerCalls
from feedback_ui.server.compression import PageCompression
from feedback_ui.server.download_files import ROUTE as DOWNLOADS
from feedback_ui.server.downloads import Downloads
from feedback_ui.server.run_downloads import ADAPTER, METRICS, RunDownloads
from feedback_ui.server.sessions import Sessions
from feedback_ui.server.uploads import Uploads
from feedback_ui.shared.errors import browser_message
from feedback_ui.shared.html import fragment, tag
from feedback_ui.shared.i18n import translator_for
from feedback_ui.shared.scripts import ROUTE as MODULES
from feedback_ui.shared.scripts import modules
from feedback_ui.shared.theme import launch_options
from storage.core.database import StoreError

QUEUE_POLL_S = 0.05
"""How often Gradio's queue looks for events while it has none, in seconds. Its own millisecond costs an idle app 4% of a processor; on
Windows it takes 50 ms too. Judging does not pass through the queue."""


class Web(FastAPI):
    """The whole app, served by `feedback_ui.server.serving`. One per process, because Gradio's folder for files is a setting of the
    process.

    Raises:
        OSError: the folder for uploads or that for downloads cannot be made or emptied.
    """

    def __init__(self, pages: gr.Blocks, auth: Auth):
        super().__init__(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
        self.pages = pages
        self.auth = auth
        self.uploads = Uploads(auth)
        self._keep_files_in(str(self.uploads.root))
        self.calls = HandlerCalls(pages)
        # Where several projects share their accounts, `feedback_ui.projects.front` has these pages.
        if not auth.shared:
            auth_routes = AuthRoutes(auth)
            self.add_api_route(SIGN_IN, auth_routes.show, methods=["GET", "HEAD"])
            self.add_api_route(SIGN_IN, auth_routes.sign_in, methods=["POST"])
            self.add_api_route(SIGN_OUT, auth_routes.sign_out, methods=["POST"])
            self.add_api_route(PASSWORD, auth_routes.show_password, methods=["GET", "HEAD"])
            self.add_api_route(PASSWORD, auth_routes.change_password, methods=["POST"])
        run_downloads = RunDownloads(auth)
        self.add_api_route(ADAPTER, run_downloads.adapter, methods=["GET", "HEAD"])
        self.add_api_route(METRICS, run_downloads.metrics, methods=["GET", "HEAD"])
        self.add_api_route(MODULES, send_module, methods=["GET", "HEAD"])
        self.add_api_route(DOWNLOADS, Downloads(auth).send, methods=["GET", "HEAD"])
        options = launch_options()
        gr.mount_gradio_app(
            self,
            pages,
            "/",
            root_path=auth.shared.path if auth.shared else None,
            show_error=False,
            max_file_size=MAX_UPLOAD_BYTES,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            **options | {"head": fragment(tag("meta", name="roles-cookie", content=auth.roles_cookie), options["head"])},
        )
        mounted = self.router.routes[-1]
        assert isinstance(mounted, Mount) and isinstance(mounted.app, App)
        self.gradio = mounted.app
        pages._queue.sleep_when_free = pages._queue.progress_update_sleep_when_free = QUEUE_POLL_S
        # Gradio checks the files that a call names only in a launched app, and does not count a mounted app as launched.
        pages.has_launched = True
        self.sessions = self.gradio.state_holder = Sessions(pages)
        self._put_before_gradio(self.sessions)
        for kind, answer in ((AccessRefused, refused), (StoreError, store_failed), (BadBody, bad_body), (HTTPException, http_error)):
            self.add_exception_handler(kind, answer)
        self.access_middleware: AccessMiddleware | None = None

    def _keep_files_in(self, folder: str) -> None:
        """Makes Gradio store files in this folder instead of the machine's shared temporary folder."""
        os.environ["GRADIO_TEMP_DIR"] = folder
        for block in self.pages.blocks.values():
            block.GRADIO_CACHE = folder

    def _put_before_gradio(self, sessions: Sessions) -> None:
        """Replaces Gradio's routes for server functions, files and heartbeats with our own, under the same paths."""
        mounted = self.router.routes.pop()
        for path in ("/gradio_api/component_server", "/gradio_api/component_server/"):
            self.add_api_route(path, self.calls.server_function, methods=["POST"])
        self.add_api_route("/gradio_api/heartbeat/{session_hash}", sessions.heartbeat, methods=["GET"])
        self.add_api_route("/gradio_api/upload", self.uploads.receive, methods=["POST"])
        self.add_api_route("/gradio_api/file={path_or_url:path}", self.uploads.send, methods=["GET", "HEAD"])
        self.router.routes.append(mounted)

    def build_middleware_stack(self) -> AccessMiddleware:
        # The outermost middleware, before Starlette's error pages too.
        self.access_middleware = AccessMiddleware(
            PageCompression(super().build_middleware_stack()), self.auth, self.uploads, self.calls.checked
        )
        return self.access_middleware

    def end_streams(self) -> None:
        """Ends Gradio's event queue and all streams before the server stops. Call it in the server's event loop."""
        self.pages.is_running = False
        self.gradio.stop_event.set()
        if self.access_middleware:
            self.access_middleware.end_streams()


async def send_module(request: Request, version: str, name: str) -> Response:
    """A JavaScript module of the judging pages. A page of another version of the app has to be reloaded."""
    source = modules().sources.get(name) if version == modules().version else None
    if source is None:
        return refusal(404, translator_for(request)("access.no_such_module"))
    return Response(source, media_type="text/javascript", headers={"Cache-Control": "private, max-age=31536000, immutable"})


async def refused(_: Request, error: Any) -> JSONResponse:
    """The response to a request that is not allowed."""
    return JSONResponse({"error": error.message, "detail": error.message, "title": error.title}, error.status)


async def store_failed(_: Request, error: Any) -> Response:
    """The response after an error of the store, which has written nothing."""
    return refusal(503, browser_message(error))


async def bad_body(request: Request, error: Any) -> Response:
    """The response to a body that is too long, too slow or not valid for the route."""
    return refused_body(request, error)


async def http_error(_: Request, error: Any) -> Response:
    """The response to an HTTP error that Starlette raises."""
    return refusal(error.status_code, str(error.detail))
