"""Each route of the policy server with each kind of argument in each field of its body.

Its document of the protocol is tried at random elsewhere; this one knows what an attacker would send.
"""

import json
import time

import pytest
import tiny
from argument_kinds import PLACE, kinds, put
from fastapi.testclient import TestClient
from walk import routes_of

from rlhf.generation.policy_service import PolicyService
from rlhf.generation.server import build_server
from rlhf.models.backbone import Backbone
from rlhf.serving.filler import ComparisonGenerator

ROUTES = {
    *("GET /health", "GET /metrics", "GET /status", "GET /v1/models", "GET /v1/models/{name:path}"),
    *("POST /v1/chat/completions", "POST /v1/completions"),
}

REQUEST = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "temperature": 0.7, "seed": 1}
TEXT = {"model": "tiny", "prompt": "Hi", "max_tokens": 2, "seed": 1}
BOTH = ("temperature", "top_p", "top_k", "max_tokens", "seed", "stream", "n", "stop", "logprobs", "logit_bias", "presence_penalty",
        "frequency_penalty", "stream_options", "something_else")  # fmt: skip
FIELDS = [
    *({name: PLACE} for name in ("model", "messages", *BOTH, "top_logprobs", "max_completion_tokens")),
    {"messages": [PLACE]},
    {"messages": [{"role": PLACE, "content": "Hi"}]},
    {"messages": [{"role": "user", "content": PLACE}]},
    {"messages": [{"role": "user", "content": PLACE}], "stream": True},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": PLACE}]}]},
    {"messages": [{"role": "assistant", "tool_calls": [PLACE]}]},
]
TEXT_FIELDS = [*({name: PLACE} for name in ("model", "prompt", *BOTH)), {"prompt": [PLACE]}, {"prompt": [[PLACE]]}]
MAX_SECONDS = 8.0


@pytest.fixture
def tiny_folder(tmp_path):
    return tiny.write(tmp_path / "tiny")


@pytest.fixture
def server(store, tiny_folder):
    service = PolicyService(store, str(tiny_folder), Backbone.load(tiny_folder, "cpu", "float32"))
    return build_server(service, ComparisonGenerator(store, service.generate, str(tiny_folder)))


LORA_ROUTES = {"POST /v1/load_lora_adapter", "POST /v1/unload_lora_adapter"}
LOAD = {"lora_name": "x", "lora_path": "y", "load_inplace": False}
LORA_FIELDS = [*({name: PLACE} for name in (*LOAD, "is_3d_lora_weight", "something_else"))]


def test_every_route_of_the_policy_server_is_walked(server):
    assert {f"{method} {path}" for method, path in routes_of(server) if method != "HEAD"} == ROUTES


@pytest.mark.slow
def test_the_policy_server_takes_no_harm_from_any_argument(server, store, tmp_path, tiny_folder):
    secret = tmp_path / "secret.txt"
    secret.write_text("canary-5f0c1d7e")
    wrong, sent = [], 0
    with TestClient(server, base_url="http://127.0.0.1:80", client=("127.0.0.1", 50_000), raise_server_exceptions=False) as client:
        for kind in kinds(str(secret), "http://127.0.0.1:1/x"):
            few = 1 if kind.large else None
            chats = [("chat/completions", put(REQUEST | field, kind)) for field in FIELDS[:few]]
            texts = [("completions", put(TEXT | field, kind)) for field in TEXT_FIELDS[:few]]
            for path, body in (*chats, *texts, ("chat/completions", put(PLACE, kind))):
                begun = time.monotonic()
                reply = client.post(f"/v1/{path}", content=body, headers={"content-type": "application/json"})
                sent += 1
                said = f"{kind.name}, {body[:100]}: {reply.status_code} {reply.text[:200]}"
                if reply.status_code >= 500 or time.monotonic() - begun > MAX_SECONDS:
                    wrong.append(said)
                if any(hidden in reply.text for hidden in (str(store.path.parent), str(tiny_folder), "canary-5f0c1d7e", "Traceback")):
                    wrong.append(f"tells too much: {said}")
        assert client.get("/status").json()["ready"]
        answer = client.post("/v1/chat/completions", content=json.dumps(REQUEST), headers={"content-type": "application/json"})
        assert answer.status_code == 200
    print(f"\n{sent} requests, {len(wrong)} wrong")
    assert sent > 300 and not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_the_routes_that_load_adapters_take_no_harm_from_any_argument(store, tmp_path, tiny_folder):
    secret, allowed = tmp_path / "secret.txt", tmp_path / "adapters"
    secret.write_text("canary-5f0c1d7e")
    service = PolicyService(store, str(tiny_folder), Backbone.load(tiny_folder, "cpu", "float32"))
    server = build_server(service, None, lora_folder=allowed)
    assert {f"{method} {path}" for method, path in routes_of(server) if method != "HEAD"} == ROUTES | LORA_ROUTES
    wrong, sent = [], 0
    with TestClient(server, base_url="http://127.0.0.1:80", client=("127.0.0.1", 50_000), raise_server_exceptions=False) as client:
        for kind in kinds(str(secret), "http://127.0.0.1:1/x"):
            fields = [put(LOAD | field, kind) for field in LORA_FIELDS[: 1 if kind.large else None]]
            for path in ("load_lora_adapter", "unload_lora_adapter"):
                for body in (*fields, put(PLACE, kind)):
                    reply = client.post(f"/v1/{path}", content=body, headers={"content-type": "application/json"})
                    sent += 1
                    if not 400 <= reply.status_code < 500:
                        wrong.append(f"{kind.name}, {body[:100]}: {reply.status_code} {reply.text[:200]}")
                    if any(hidden in reply.text for hidden in (str(allowed), str(tiny_folder), "canary-5f0c1d7e", "Traceback")):
                        wrong.append(f"tells too much: {kind.name}, {body[:100]}: {reply.text[:200]}")
        assert client.get("/status").json()["ready"] and service.backbone.adapters == []
    assert sent > 300 and not wrong, "\n".join(wrong)
