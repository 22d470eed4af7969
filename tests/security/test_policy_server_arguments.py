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

from rlhf.generation.engine import Engine
from rlhf.generation.server import build_server
from rlhf.models.backbone import Backbone
from rlhf.serving.filler import ComparisonGenerator

ROUTES = {"GET /status", "GET /v1/models", "POST /v1/chat/completions"}

REQUEST = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "temperature": 0.7, "seed": 1}
FIELDS = [
    *({name: PLACE} for name in ("model", "messages", "temperature", "top_p", "max_tokens", "seed", "stream", "something_else")),
    {"messages": [PLACE]},
    {"messages": [{"role": PLACE, "content": "Hi"}]},
    {"messages": [{"role": "user", "content": PLACE}]},
    {"messages": [{"role": "user", "content": PLACE}], "stream": True},
]
MAX_SECONDS = 8.0


@pytest.fixture
def tiny_folder(tmp_path):
    return tiny.write(tmp_path / "tiny")


@pytest.fixture
def server(store, tiny_folder):
    engine = Engine(store, str(tiny_folder), Backbone.load(tiny_folder, "cpu", "float32"))
    return build_server(engine, ComparisonGenerator(store, engine.generate, str(tiny_folder)))


def test_every_route_of_the_policy_server_is_walked(server):
    assert {f"{method} {path}" for method, path in routes_of(server) if method != "HEAD"} == ROUTES


@pytest.mark.slow
def test_the_policy_server_takes_no_harm_from_any_argument(server, store, tmp_path, tiny_folder):
    secret = tmp_path / "secret.txt"
    secret.write_text("canary-5f0c1d7e")
    wrong, sent = [], 0
    with TestClient(server, base_url="http://127.0.0.1:80", client=("127.0.0.1", 50_000), raise_server_exceptions=False) as client:
        for kind in kinds(str(secret), "http://127.0.0.1:1/x"):
            bodies = [put(REQUEST | field, kind) for field in FIELDS[: 1 if kind.large else None]]
            for body in (*bodies, put(PLACE, kind)):
                begun = time.monotonic()
                reply = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
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
