"""Errors as OpenAI's protocol has them: a status, and an object with message, type, code and param."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
"""The type of each status below 500 that has one of its own; of others it is `invalid_request_error`."""


class ApiError(Exception):
    """A request is refused, or cannot be answered.

    Args:
        status: the HTTP status.
        message: the cause, the number and the remedy.
        param: the field of the request that is wrong.
        code: a short name of the cause, for programs.
        retry_after_s: after how many seconds the same request may succeed.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: int | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after_s = status, message, param, code, retry_after_s


def error_object(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The body of an error."""
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(error: ApiError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as a response."""
    retry = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    body = error_object(error.status, error.message, param=error.param, code=error.code)
    return JSONResponse(body, error.status, headers={**retry, **(headers or {})})


MAX_ERRORS = 8
"""Most validation errors of one request that the response lists."""


def validation_error(errors: Sequence[Any]) -> ApiError:
    """pydantic's errors of one request, as one: the message names each field, and `param` the first.

    Args:
        errors: as `RequestValidationError.errors()` has them; the first part of a place is `body`.
    """
    described = dict.fromkeys(map(_described, errors))
    first = errors[0]
    context = first["ctx"] if first["type"] == "refused" else {}
    code = {"missing": "missing_required_parameter", "json_invalid": "invalid_json"}.get(first["type"], "invalid_value")
    param = ".".join(filter(None, (_place(first), context.get("param"))))
    return ApiError(400, "; ".join([*described][:MAX_ERRORS]), param=param or None, code=context.get("code", code))


def _described(error: Mapping[str, Any]) -> str:
    place: str = _place(error)
    if error["type"] == "refused" and place:
        place += f".{error['ctx']['param']}"
    return ": ".join(filter(None, (place, error["msg"])))


def _place(error: Mapping[str, Any]) -> str:
    """A field's place in the request, `messages.0.content`. pydantic adds the names of the types that it tried."""
    # Of a body that is no JSON, the place is a number of characters.
    parts = () if error["type"] == "json_invalid" else error["loc"][1:]
    return ".".join(str(part) for part in parts if not isinstance(part, str) or _is_field(part))


def _is_field(part: str) -> bool:
    return part.isidentifier() and part not in ("str", "int", "float", "bool")
