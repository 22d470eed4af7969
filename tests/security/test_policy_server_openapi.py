"""Schemathesis against the policy server's own description: requests that fit it and requests that do not, over real HTTP."""

import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_server import Server

from storage.core.database import Database

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install -e '.[test]'")

from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import negative_data_rejection, unsupported_method  # noqa: E402

CHAT = "/v1/chat/completions"

EXAMPLES = 60
"""Of each kind and operation: about 20 s together."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    store = Database(tmp_path_factory.mktemp("data") / "rankloop.db")
    started = Server(store, tiny.write(tmp_path_factory.mktemp("models") / "tiny"))
    # An answer of a thousand tokens says no more than one of a few.
    tiny.favour(started.service.backbone, started.service.backbone.eos_id, 20.0)
    yield started
    started.stop()
    store.close()


def described(server):
    found = server.app.openapi()
    # Without this hardly any request would name a model that there is.
    for request in ("ChatRequest", "CompletionRequest"):
        found["components"]["schemas"][request]["properties"]["model"]["enum"] = ["tiny"]
    schema = schemathesis.openapi.from_dict(found)
    schema.config.update(base_url=f"http://127.0.0.1:{server.port}")
    return schema


def test_every_route_is_described(server):
    # FastAPI adds none of its own: the document is not published.
    assert set(server.app.openapi()["paths"]) == {
        "/health",
        "/metrics",
        "/status",
        "/v1/models",
        "/v1/models/{name}",
        CHAT,
        "/v1/completions",
    }
    assert {route.path.replace(":path", "") for route in server.app.routes} == set(server.app.openapi()["paths"])


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_brings_the_server_down_and_none_that_is_wrong_is_taken(server, mode):
    schema, answered = described(server), set()
    operations = [result.ok() for result in schema.get_all_operations()]
    wanted = [operation for operation in operations if mode is GenerationMode.POSITIVE or operation.method == "post"]

    @settings(max_examples=EXAMPLES * len(wanted), deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=st.one_of([operation.as_strategy(generation_mode=mode) for operation in wanted]))
    def ask(case):
        reply = case.call(timeout=60)
        # Too long a body is refused before it is looked at, which Schemathesis does not count as a rejection.
        if reply.status_code != 413:
            case.validate_response(reply, checks=[not_a_server_error, negative_data_rejection, unsupported_method])
        answered.add(reply.status_code)
        if reply.status_code >= 400 and reply.status_code != 405:
            assert reply.json()["error"]["message"], reply.text

    ask()
    assert server.client.status().ready
    if mode is GenerationMode.POSITIVE:
        # 400: all messages together are too long, or the prompt has too many tokens; 404: no model has that name. The description cannot
        # say so.
        assert {200} <= answered <= {200, 400, 404}
    else:
        assert {400} <= answered <= {400, 404, 405, 413, 415}
