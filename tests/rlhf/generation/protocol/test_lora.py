"""Adapters that a client loads while the policy server runs, over real HTTP; and token ids with log-probabilities, which go with them."""

import json
import threading

import httpx2
import pytest
from learning import plain_logprob, scramble
from rollout_server import own_server

from rlhf.config import AdapterConfig
from rlhf.generation import policy_service
from rlhf.models.backbone import Backbone
from storage.content import policies
from storage.core.database import Database

KEY = "k" * 24


class Lora:
    """A server that takes adapters from `folder`."""

    def __init__(self, url, folder, model):
        self.http = httpx2.Client(base_url=url, timeout=60)
        self.folder, self.model = folder, model

    def adapter(self, name, *, seed=0, rank=4):
        """The folder of a new adapter."""
        maker = Backbone.load(self.model, "cpu", "float32")
        maker.add_adapter("policy", AdapterConfig(rank=rank), seed=seed)
        scramble(maker, "policy", seed=seed, scale=0.3)
        maker.save_adapter("policy", self.folder / name)
        return self.folder / name

    def load(self, name, path, **more):
        return self.http.post("/load_lora_adapter", json={"lora_name": name, "lora_path": str(path)} | more)

    def unload(self, name):
        return self.http.post("/unload_lora_adapter", json={"lora_name": name})

    def sampled(self, model, **more):
        body = {
            "model": model,
            "prompt": [70, 71, 72],
            "max_tokens": 8,
            "temperature": 0.7,
            "seed": 3,
            "logprobs": 0,
            "return_token_ids": True,
        }
        return self.http.post("/completions", json=body | more)

    def names(self):
        return [model["id"] for model in self.http.get("/models").json()["data"]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory, tiny_folder):
    store = Database(tmp_path_factory.mktemp("lora") / "rankloop.db")
    folder = tmp_path_factory.mktemp("adapters")
    with own_server(store, tiny_folder, folder) as url:
        lora = Lora(url, folder, tiny_folder)
        with lora.http:
            yield lora
    store.close()


@pytest.fixture
def lora(shared):
    yield shared
    for name in shared.names():
        if name not in ("current", "tiny"):
            assert shared.unload(name).status_code == 200


def message(reply, status):
    assert reply.status_code == status, reply.text
    return reply.json()["error"]["message"]


def test_an_adapter_answers_under_its_name_from_loading_to_unloading(lora):
    base = lora.sampled("tiny").json()["choices"][0]["token_ids"]
    assert lora.load("mine", lora.adapter("a")).text == "Success: LoRA adapter 'mine' added successfully."
    listed = {model["id"]: model for model in lora.http.get("/models").json()["data"]}
    assert (
        listed["mine"]["parent"] == "tiny" and listed["tiny"]["parent"] is None and listed["mine"] == lora.http.get("/models/mine").json()
    )
    assert lora.sampled("mine").json()["choices"][0]["token_ids"] != base
    assert lora.unload("mine").text == "Success: LoRA adapter 'mine' removed successfully."
    assert lora.names() == ["current", "tiny"]
    assert "no model 'mine'" in message(lora.sampled("mine"), 404)
    assert "no adapter 'mine' was loaded here" in message(lora.unload("mine"), 404)
    assert "no adapter 'tiny' was loaded here" in message(lora.unload("tiny"), 404), "what the store has stays"


def test_token_ids_come_with_the_log_probabilities_of_the_distribution_they_are_sampled_from(lora):
    """By the plain definition: softmax of the logits over the temperature, of a plain model with this adapter."""
    lora.load("mine", lora.adapter("b", seed=1))
    plain = Backbone.load(lora.model, "cpu", "float32")
    plain.load_adapter("mine", lora.folder / "b")
    # This seed's answer has a token that ends it, which the text does not show.
    end = lora.sampled("mine").json()["choices"][0]["token_ids"][4]
    choice = lora.sampled("mine", stop_token_ids=[end]).json()["choices"][0]
    ids = choice["token_ids"]
    assert ids.index(end) == len(ids) - 1 and choice["finish_reason"] == "stop" and len(choice["logprobs"]["tokens"]) == len(ids)
    with plain.adapter_set.applied("mine"):
        expected = plain_logprob(plain.base, [70, 71, 72], ids, temperature=0.7)
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(expected.tolist(), abs=1e-5)
    assert "token_ids" not in lora.sampled("mine", return_token_ids=False).json()["choices"][0]


def test_where_one_token_can_be_sampled_it_is_certain(lora):
    alone = lora.sampled("tiny", top_k=1, max_tokens=4).json()["choices"][0]
    assert alone["logprobs"]["token_logprobs"] == [0.0] * 4
    # At temperature 0 nothing is divided, and nothing is left out.
    greedy = lora.sampled("tiny", temperature=0, max_tokens=4).json()["choices"][0]
    assert greedy["token_ids"] == alone["token_ids"]
    plain = Backbone.load(lora.model, "cpu", "float32")
    expected = plain_logprob(plain.base, [70, 71, 72], greedy["token_ids"]).tolist()
    assert greedy["logprobs"]["token_logprobs"] == pytest.approx(expected, abs=1e-5)


def test_a_stream_has_the_token_ids_of_the_whole_answer(lora):
    whole = lora.sampled("tiny").json()["choices"][0]["token_ids"]
    with lora.http.stream("POST", "/completions", json={
        "model": "tiny", "prompt": [70, 71, 72], "max_tokens": 8, "temperature": 0.7, "seed": 3, "return_token_ids": True, "stream": True,
    }) as reply:  # fmt: skip
        lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line.startswith("data: {")]
    assert [token for line in lines for token in json.loads(line)["choices"][0]["token_ids"]] == whole


def test_a_name_is_taken_once_unless_it_is_to_be_replaced(lora):
    first, second = lora.adapter("c", seed=2), lora.adapter("d", seed=3)
    lora.load("mine", first)
    one = lora.sampled("mine").json()["choices"][0]["token_ids"]
    assert "an adapter mine is loaded already: set load_inplace" in message(lora.load("mine", second), 400)
    assert lora.load("mine", second, load_inplace=True).status_code == 200
    two = lora.sampled("mine").json()["choices"][0]["token_ids"]
    lora.load("other", second)
    assert two == lora.sampled("other").json()["choices"][0]["token_ids"] != one
    for name in ("tiny", "current"):
        assert f"{name} is a model of this server: choose another name" in message(lora.load(name, first), 400)


def test_no_more_adapters_than_the_limit(lora, monkeypatch):
    monkeypatch.setattr(policy_service, "MAX_PUSHED", 1)
    folder = lora.adapter("e")
    lora.load("one", folder)
    assert "1 adapters are loaded, which is the limit: unload one first" in message(lora.load("two", folder), 400)


def test_an_adapter_is_read_from_the_folder_alone(lora, tmp_path):
    inside = lora.adapter("f")
    outside = tmp_path / "outside"
    inside.rename(outside)
    (lora.folder / "link").symlink_to(outside)
    said = {
        message(lora.load("x", path), 400)
        for path in (outside, lora.folder / "link", lora.folder / ".." / outside.name, "/etc", "/nowhere", lora.folder, "a\0b", "f")
    }
    assert said == {"lora_path: adapters are read from the folder of the server's --lora-folder alone"}, "nothing tells what is there"
    (lora.folder / "link").unlink()
    missing = lora.folder / "missing"
    assert message(lora.load("x", missing), 404) == f"Loading lora x failed: No adapter found for {missing}"
    assert lora.names() == ["current", "tiny"]


def test_a_damaged_adapter_is_refused_and_leaves_nothing(lora):
    folder = lora.adapter("g")
    (folder / "adapter_model.safetensors").write_bytes(b"x" * 100)
    assert "the adapter cannot be read" in message(lora.load("x", folder), 400)
    assert lora.names() == ["current", "tiny"] and lora.sampled("tiny").status_code == 200


@pytest.mark.parametrize(
    "body, said",
    [
        ({"lora_name": "", "lora_path": "x"}, "lora_name"),
        ({"lora_name": "x" * 201, "lora_path": "x"}, "lora_name"),
        ({"lora_name": "x"}, "lora_path"),
        ({"lora_name": "x", "lora_path": 3}, "lora_path"),
        ({"lora_name": "x", "lora_path": "x", "is_3d_lora_weight": True}, "not supported by this server: 'is_3d_lora_weight'"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_field(lora, body, said):
    assert said in message(lora.http.post("/load_lora_adapter", json=body), 400)


def test_answers_that_run_keep_an_adapter_that_is_unloaded(lora):
    lora.load("mine", lora.adapter("h", seed=4))
    replies = []
    thread = threading.Thread(target=lambda: replies.append(lora.sampled("mine", max_tokens=300, temperature=1.5)))
    thread.start()
    metrics = lora.http.base_url.copy_with(path="/metrics")
    while "rankloop_streams_running 1" not in httpx2.get(metrics).text and thread.is_alive():
        pass
    lora.unload("mine")
    thread.join(60)
    assert replies[0].status_code == 200 and replies[0].json()["choices"][0]["token_ids"]
    assert "mine" not in httpx2.get(metrics).text, "names of clients make no rows of their own"


def test_without_the_option_there_are_no_such_routes(server):
    for route in ("load_lora_adapter", "unload_lora_adapter"):
        assert httpx2.post(f"{server.client.base_url}/{route}", json={}).status_code == 404


def test_the_routes_need_the_servers_key(store, tiny_folder, tmp_path):
    with own_server(store, tiny_folder, tmp_path / "adapters", api_key=KEY) as url:
        for route in ("load_lora_adapter", "unload_lora_adapter"):
            assert httpx2.post(f"{url}/{route}", json={"lora_name": "x", "lora_path": "y"}).status_code == 401
        assert (
            httpx2.post(f"{url}/unload_lora_adapter", json={"lora_name": "x"}, headers={"authorization": f"Bearer {KEY}"}).status_code
            == 404
        )
    assert [version.name for version in policies.all_versions(store)] == ["tiny"], "the store knows nothing of adapters that were loaded"
