"""Errors in the protocol's words."""

import json

import pytest

from rlhf.generation.protocol.errors import ApiError, error_object, error_response, validation_error


@pytest.mark.parametrize(
    "status, kind",
    [(400, "invalid_request_error"), (401, "authentication_error"), (404, "not_found_error"), (413, "invalid_request_error"),
     (429, "rate_limit_error"), (500, "server_error"), (503, "server_error")],
)  # fmt: skip
def test_each_status_has_its_type(status, kind):
    assert error_object(status, "why", param="n") == {"error": {"message": "why", "type": kind, "param": "n", "code": None}}


def test_an_error_says_when_to_come_back():
    reply = error_response(ApiError(503, "full", code="engine_busy", retry_after_s=5))
    assert reply.status_code == 503 and reply.headers["retry-after"] == "5"
    assert json.loads(reply.body)["error"] == {"message": "full", "type": "server_error", "param": None, "code": "engine_busy"}
    assert "retry-after" not in error_response(ApiError(400, "no")).headers


def test_validation_errors_become_one():
    found = validation_error(
        [
            {"type": "string_type", "loc": ("body", "stop", "constrained-str"), "msg": "should be a string"},
            {"type": "list_type", "loc": ("body", "stop", "list[constrained-str]"), "msg": "should be a list"},
            {"type": "refused", "loc": ("body", "messages", 0), "msg": "not so", "ctx": {"param": "name", "code": "x"}},
        ]
    )
    assert (found.status, found.param, found.code) == (400, "stop", "invalid_value")
    assert found.message == "stop: should be a string; stop: should be a list; messages.0.name: not so"
    many = validation_error([{"type": "missing", "loc": ("body", f"f{i}"), "msg": "required"} for i in range(20)])
    assert many.message.count("required") == 8 and many.code == "missing_required_parameter"
