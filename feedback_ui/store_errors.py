"""What the store cannot do, as the page shows it: its own sentence, instead of an error without words."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr

from storage.database import StoreError


class NotDone(gr.Error):
    """A handler could not read or write the store. Gradio shows the message on the page."""

    def __init__(self, error: StoreError):
        super().__init__(str(error), print_exception=False)


def told(app: gr.Blocks) -> gr.Blocks:
    """The app, with every handler's StoreError shown on the page. Call it once all handlers are there."""
    for handler in app.fns.values():
        if handler.fn is not None:
            handler.fn = _telling(handler.fn)
    return app


def _telling(function: Callable) -> Callable:
    @wraps(function)
    def call(*given: Any) -> Any:
        try:
            return function(*given)
        except StoreError as error:
            raise NotDone(error) from error

    @wraps(function)
    def stream(*given: Any) -> Any:
        try:
            yield from function(*given)
        except StoreError as error:
            raise NotDone(error) from error

    return stream if inspect.isgeneratorfunction(function) else call
