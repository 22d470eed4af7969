"""How a browser calls the pages' handlers: which there are, what they take, and what is said when one fails.

Gradio passes on whatever a browser sends, and answers 500 to whatever goes wrong. Here a call is compared with the handler's
inputs before Gradio sees it, and each error has the status and the words that it means. Whether somebody may call a handler is
asked in the handler: `feedback_ui.server.auth`.
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

from feedback_ui.server.auth import Refused
from feedback_ui.server.bodies import BadBody, file_claims
from feedback_ui.server.sessions import session_name
from feedback_ui.shared.errors import browser_message
from feedback_ui.shared.i18n import translator_for
from storage.core.database import StoreError

log = logging.getLogger(__name__)

RUN, JOIN = "/gradio_api/run/predict", "/gradio_api/queue/join"

ARGUMENT_ERRORS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""How Python says that it cannot work with a value. From a handler that was sent what no page sends they mean that; the log has
the traceback, in case it was the handler's fault."""


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


TAKES: dict[type[Component], Callable[[Any, Any], bool]] = {
    gr.Textbox: _text,
    gr.HTML: _text,
    gr.Number: _number,
    gr.Slider: _number,
    gr.Checkbox: _yes_or_no,
    gr.Dropdown: _chosen,
    gr.CheckboxGroup: _choices,
    gr.Dataset: _sample,
    gr.UploadButton: _file,
    # The server's own; what a browser says of it is not read.
    gr.State: lambda *_: True,
}
"""Which values a component takes from a browser, by its class. A class that is not here takes nothing."""


class HandlerCalls:
    """The handlers and server functions of the pages, as a browser may call them."""

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
        """What is passed on of a call: the fields that a page sends, with values that the handler's inputs take.

        Raises:
            BadBody: there is no such handler, or it does not take this.
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
        """Calls a component's server function with `data` and the request. It has no session, and so none is made."""
        sent = await request.json()
        number, name = (sent.get("component_id"), sent.get("fn_name")) if isinstance(sent, dict) else (None, None)
        function = self._functions.get((number, name)) if type(number) is int and isinstance(name, str) else None
        if function is None:
            raise BadBody(404, "body.no_handler")
        try:
            return JSONResponse(await run_in_threadpool(function, sent.get("data"), request))
        except Exception as error:
            told = to_http_error(error, request)
            return JSONResponse({"error": told.message, "detail": told.message, "title": told.title}, told.status)

    async def _process_api(self, *arguments: Any, request: Any = None, **options: Any) -> dict[str, Any]:
        try:
            return await self._process(*arguments, request=request, **options)
        except Exception as error:
            told = to_http_error(error, request)
            # Gradio's route answers 500 whatever it was; the guard puts this in its place.
            inner = request.request if isinstance(request, gr.Request) else None
            if inner is not None:
                inner.scope.setdefault("state", {})["status"] = told.status
            raise told from error


def _check(block: Any, value: Any) -> None:
    takes = next((takes for kind, takes in TAKES.items() if isinstance(block, kind)), None)
    if takes is None or not takes(block, value):
        raise BadBody(400, "body.no_value", kind=type(block).__name__)
    if not isinstance(block, gr.UploadButton) and file_claims(value):
        raise BadBody(400, "body.not_uploaded")


def to_http_error(error: Exception, request: Any) -> Refused:
    """The error as a browser hears of it: with a status that says whose fault it was, and no path of this machine."""
    words = translator_for(request)
    if isinstance(error, Refused):
        return error
    title = words("body.title")
    if isinstance(error, gr.Error):
        return Refused(browser_message(error), status=400, title=error.title)
    if isinstance(error, StoreError):
        return Refused(browser_message(error), status=503, title=title)
    log.error("a handler failed", exc_info=error)
    if isinstance(error, ARGUMENT_ERRORS):
        return Refused(words("body.no_call"), status=400, title=title)
    return Refused(words("body.failed"), status=500, title=title)
