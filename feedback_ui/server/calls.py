"""Validates calls of the pages' handlers and maps handlers' errors to HTTP responses.

Gradio passes any value from a browser to a handler, and answers every error with 500. Here each value of a call is checked
against the handler's input component before Gradio reads it, and each error gets its own status and message. Permission to call
a handler is checked in the handler (`feedback_ui.server.auth`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import gradio as gr
from gradio.components import Component
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from feedback_ui.server.auth import AccessRefused
from feedback_ui.server.bodies import BadBody, file_claims
from feedback_ui.server.sessions import session_name
from feedback_ui.shared.errors import browser_message
from feedback_ui.shared.i18n import translator_for
from storage.core.database import StoreError

log = logging.getLogger(__name__)

RUN, JOIN = "/gradio_api/run/predict", "/gradio_api/queue/join"

ARGUMENT_ERRORS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""Exceptions that unexpected argument values cause in a handler. They are answered with 400; the traceback is logged in case the
handler itself was at fault."""


def _text(_: Any, value: Any) -> bool:
    return value is None or isinstance(value, str)


def _number(_: Any, value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _choice(_: Any, value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _choices(_: Any, value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(_choice(_, each) for each in value))


def _chosen(block: gr.Dropdown, value: Any) -> bool:
    return _choices(block, value) if block.multiselect else _choice(block, value)


def _yes_or_no(_: Any, value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _sample(block: gr.Dataset, value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < len(block.raw_samples))


def _file(_: Any, value: Any) -> bool:
    return value is None or isinstance(value, dict)


VALUE_CHECKS: dict[type[Component], Callable[[Any, Any], bool]] = {
    gr.Textbox: _text,
    gr.HTML: _text,
    gr.Number: _number,
    gr.Slider: _number,
    gr.Checkbox: _yes_or_no,
    gr.Dropdown: _chosen,
    gr.CheckboxGroup: _choices,
    gr.Dataset: _sample,
    gr.UploadButton: _file,
    # State lives on the server; Gradio ignores the value from the browser.
    gr.State: lambda *_: True,
}
"""For each component class, the check of a value from the browser. Components of other classes take no values."""


class HandlerCalls:
    """Checks and runs browsers' calls of the pages' handlers and server functions."""

    def __init__(self, pages: gr.Blocks):
        self.pages = pages
        self._functions = {
            (number, name): function
            for number, block in pages.blocks.items()
            for name, function in vars(block).items()
            if getattr(function, "_is_server_fn", False) is True
        }
        self._process: Callable[..., Awaitable[dict[str, Any]]] = pages.process_api
        pages.process_api = self._process_api  # type: ignore[method-assign]  # Gradio has no hook around a handler's call

    def checked(self, path: str, sent: Any) -> Any:
        """The call to pass on to Gradio: only the fields that a page sends, with values that the handler's inputs accept.

        Raises:
            BadBody: there is no such handler, or it does not accept these values.
        """
        if path not in (RUN, JOIN):
            return sent
        if not isinstance(sent, dict):
            raise BadBody(400, "body.no_call")
        number, data, trigger = sent.get("fn_index"), sent.get("data"), sent.get("trigger_id")
        event = self.pages.fns.get(number) if type(number) is int else None
        if event is None or (event.fn is None and not event.cancels):
            raise BadBody(404, "body.no_handler")
        if not isinstance(data, list) or (trigger is not None and type(trigger) is not int):
            raise BadBody(400, "body.no_call")
        if not event.cancels:
            if len(data) != len(event.inputs):
                raise BadBody(400, "body.no_call")
            for block, value in zip(event.inputs, data, strict=True):
                _check(block, value)
        return {
            "fn_index": number,
            "data": data,
            "event_data": sent.get("event_data"),
            "trigger_id": trigger,
            "session_hash": session_name(sent.get("session_hash")),
        }

    async def server_function(self, request: Request) -> Response:
        """Calls a component's server function with `data` and the request. Such a call needs no session, and creates none."""
        sent = await request.json()
        number, name = (sent.get("component_id"), sent.get("fn_name")) if isinstance(sent, dict) else (None, None)
        function = self._functions.get((number, name)) if type(number) is int and isinstance(name, str) else None
        if function is None:
            raise BadBody(404, "body.no_handler")
        try:
            return JSONResponse(await run_in_threadpool(function, sent.get("data"), request))
        except Exception as error:
            refused = to_http_error(error, request)
            return JSONResponse({"error": refused.message, "detail": refused.message, "title": refused.title}, refused.status)

    async def _process_api(self, *arguments: Any, request: Any = None, **options: Any) -> dict[str, Any]:
        try:
            return await self._process(*arguments, request=request, **options)
        except Exception as error:
            refused = to_http_error(error, request)
            # Gradio's route answers every error with 500; the access middleware replaces that with this status.
            inner = request.request if isinstance(request, gr.Request) else None
            if inner is not None:
                inner.scope.setdefault("state", {})["status"] = refused.status
            raise refused from error


def _check(block: Any, value: Any) -> None:
    takes = next((takes for kind, takes in VALUE_CHECKS.items() if isinstance(block, kind)), None)
    if takes is None or not takes(block, value):
        raise BadBody(400, "body.no_value", kind=type(block).__name__)
    if not isinstance(block, gr.UploadButton) and file_claims(value):
        raise BadBody(400, "body.not_uploaded")


def to_http_error(error: Exception, request: Any) -> AccessRefused:
    """The error for a browser: with the fitting HTTP status, and without paths of this machine."""
    translate = translator_for(request)
    if isinstance(error, AccessRefused):
        return error
    title = translate("body.title")
    if isinstance(error, gr.Error):
        return AccessRefused(browser_message(error), status=400, title=error.title)
    if isinstance(error, StoreError):
        return AccessRefused(browser_message(error), status=503, title=title)
    log.error("a handler failed", exc_info=error)
    if isinstance(error, ARGUMENT_ERRORS):
        return AccessRefused(translate("body.no_call"), status=400, title=title)
    return AccessRefused(translate("body.failed"), status=500, title=title)
