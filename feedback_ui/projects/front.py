"""The front of several projects: one address, one sign-in, a list of the projects that the visitor may enter, and their pages.

Every request is checked here before anything else: where it comes from, whose session it is, and whether that account has a role in the
project that it names, and the role that the route needs. A project that somebody may not enter is answered like one that does not
exist. What is allowed goes to the project's own process (`feedback_ui.projects.upstream`), which checks session and role again from the
same cookie: no header says who the visitor is, so that none can be forged.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from feedback_ui.projects.list_page import ListPage
from feedback_ui.projects.running import RunningProject, RunningProjects
from feedback_ui.projects.upstream import ProjectDown
from feedback_ui.server import bodies
from feedback_ui.server.access import (
    PASSWORD,
    PROXY_HEADERS,
    ROUTES,
    SIGN_IN,
    SIGN_OUT,
    Route,
    matching,
    not_signed_in,
    refusal,
    refused_body,
    with_headers,
)
from feedback_ui.server.auth import Auth, Visitor
from feedback_ui.server.auth_routes import AuthRoutes
from feedback_ui.server.bodies import BadBody
from feedback_ui.shared.errors import browser_message
from feedback_ui.shared.i18n import translator_for
from rlhf.serving.http_origin import is_from_elsewhere
from storage.core.database import Database, StoreError
from storage.people import accounts

IN_PROJECT = re.compile(r"/p/([^/]+)(/.*)?", re.DOTALL)
"""An address within a project: its name, and the path that its process gets."""

PROJECT_ROUTES = tuple(route for route in ROUTES if route.path not in (SIGN_OUT, PASSWORD))
"""The routes of a project's own process. Signing out and the password are the front's."""

Handler = Callable[[Request], Awaitable[Response]]


class Front:
    """The ASGI app at the one address."""

    def __init__(self, shared: Database, projects: RunningProjects):
        self.auth = Auth(shared)
        self.projects = projects
        self._list = ListPage()
        routes = AuthRoutes(self.auth)
        self._public: dict[tuple[str, str], Handler] = {("GET", SIGN_IN): routes.show, ("POST", SIGN_IN): routes.sign_in}
        self._own: dict[tuple[str, str], Handler] = {
            ("GET", "/"): self._show_list,
            ("POST", SIGN_OUT): routes.sign_out,
            ("GET", PASSWORD): routes.show_password,
            ("POST", PASSWORD): routes.change_password,
        }

    def end_streams(self) -> None:
        """Ends all streams, which would otherwise keep the server from stopping. Call it in the server's event loop."""
        self.projects.end_streams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for moment in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{moment}.complete"})
        elif scope["type"] == "http":
            headers = [header for header in scope["headers"] if header[0] not in PROXY_HEADERS]
            await self._http({**scope, "headers": headers}, receive, with_headers(send))
        else:
            # No page uses a websocket, and the server answers this with 403.
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        try:
            response = await self._answer(scope, receive, send)
        except BadBody as error:
            response = refused_body(request, error)
        except StoreError as error:
            response = refusal(503, browser_message(error))
        if response:
            await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """The response; None if a project has sent it."""
        request = Request(scope)
        if is_from_elsewhere(request.method, request.headers):
            return refusal(403, translator_for(request)("access.elsewhere"))
        asked = ("GET" if request.method == "HEAD" else request.method, scope["path"])
        if asked in self._public:
            return await self._handled(self._public[asked], scope, receive)
        visitor = self.auth.visitor(request)
        if visitor is None:
            return not_signed_in(request)
        if visitor.due and (token := self.auth.token(request)):
            # A full disk must not prevent reading.
            with suppress(StoreError):
                await run_in_threadpool(accounts.renew, self.auth.store, token)
        if asked in self._own:
            return await self._handled(self._own[asked], scope, receive)
        entered = self._entered(request, visitor)
        if isinstance(entered, Response):
            return entered
        project, path, route = entered
        try:
            body = bodies.limited(receive, route.body, request.headers)
            await project.upstream.forward(scope, path, body, send, stream=route.stream)
        except ProjectDown:
            return self._notice(request, visitor, "projects.starting", 503)
        return None

    async def _handled(self, handler: Handler, scope: Scope, receive: Receive) -> Response:
        return await handler(Request(scope, bodies.limited(receive, "form", Request(scope).headers)))

    def _entered(self, request: Request, visitor: Visitor) -> tuple[RunningProject, str, Route] | Response:
        """The project, the path in it and the route there, if all of this is open to the visitor; otherwise the response that refuses."""
        place = IN_PROJECT.fullmatch(request.scope["path"])
        if place is None:
            return self._notice(request, visitor, "access.no_such_route", 404)
        entered = self.projects.entered(place[1], visitor.annotator.name)
        if entered is None:
            return self._notice(request, visitor, "projects.no_such_project", 404)
        project, account = entered
        if place[2] is None:
            return RedirectResponse(f"/p/{project.name}/", 303)
        within = Request({**request.scope, "path": place[2]})
        route = next(matching(PROJECT_ROUTES, within), None)
        if route is None:
            return self._notice(request, visitor, "access.no_such_route", 404)
        if not route.admits(Visitor(account.annotator, account.roles, True)):
            return refusal(403, translator_for(request)("access.without_role"))
        return project, place[2], route

    async def _show_list(self, request: Request) -> Response:
        visitor = self.auth.visitor(request)
        if visitor is None:
            return not_signed_in(request)
        return self._list.render(translator_for(request), visitor.annotator.name, self.projects.all_entered(visitor.annotator.name))

    def _notice(self, request: Request, visitor: Visitor, key: str, status: int) -> Response:
        """A refusal: the list with a notice for somebody who opens a page, JSON for scripts."""
        translate = translator_for(request)
        if request.method not in ("GET", "HEAD") or "text/html" not in request.headers.get("accept", ""):
            return refusal(status, translate(key))
        entered = self.projects.all_entered(visitor.annotator.name)
        return self._list.render(translate, visitor.annotator.name, entered, problem=translate(key), status=status)
