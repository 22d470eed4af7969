"""The policy server over HTTP, and as a process of its own."""

import asyncio
import shutil
import signal
import subprocess
import sys
import threading

import httpx2
import openai
import pytest
from learning import user
from policy_server import streamed, until

from rlhf.runs.environment import engine_environment
from rlhf.serving import filler, supervisor
from rlhf.serving.client import PolicyClient, PolicyServerDown
from rlhf.serving.filler import QUEUE_TARGET
from storage.content import comparisons, policies, prompts
from storage.core.records import Sampling
from storage.judging import queue
from storage.project import rounds


def test_the_base_is_listed_and_a_version_as_soon_as_it_is_registered(server):
    assert server.client.models() == ["current", "tiny"]
    server.register("tiny-r1")
    assert server.client.models() == ["current", "tiny", "tiny-r1"]
    policies.ensure_external(server.store, "elsewhere")
    policies.ensure_base(server.store, "another/base")
    assert server.client.models() == ["current", "tiny", "tiny-r1"], "only those that this backbone can speak as"


def decide(server, version, act="promoted"):
    rounds.decide(server.store, version, act, decided_by="person", reason="Because.")


def test_current_follows_promotions_and_rollbacks_at_the_next_request(server):
    base = server.says("tiny", seed=4)
    first, second = server.register("tiny-r1"), server.register("tiny-r2", seed=1)
    one, two = (server.says(version.name, seed=4) for version in (first, second))
    assert len({base.text, one.text, two.text}) == 3 and server.says("current", seed=4).text == base.text
    for version, said in ((first, one), (second, two)):
        decide(server, version)
        assert server.says("current", seed=4).text == said.text
    rounds.roll_back(server.store, server.model, reason="It swears.")
    assert server.says("current", seed=4).text == one.text
    with httpx2.Client(base_url=server.client.base_url) as http:
        listed = {model["id"]: model for model in http.get("/models").json()["data"]}
        assert (listed["current"]["root"], listed["tiny-r1"]["root"]) == ("tiny-r1", "tiny-r1")
        assert http.get("/models/current").json() == listed["current"]
        body = {"model": "current", "messages": user("Hello"), "max_tokens": 3}
        assert http.post("/chat/completions", json=body).json()["model"] == "tiny-r1", "an answer names its version"


def test_a_decision_breaks_no_stream(server):
    first, second = server.register("tiny-r1"), server.register("tiny-r2", seed=1)
    decide(server, first)
    whole = server.says("tiny-r1", seed=4, max_tokens=60)
    with openai.OpenAI(base_url=server.client.base_url, api_key="x", max_retries=0) as raw:
        stream = raw.chat.completions.create(
            model="current", messages=list(user("Hello")), temperature=1, max_tokens=60, seed=4, stream=True
        )
        chunks = [next(iter(stream))]
        decide(server, second)
        chunks += list(stream)
    assert {chunk.model for chunk in chunks} == {"tiny-r1"}
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).strip() == whole.text.strip()
    assert server.says("current", seed=4, max_tokens=60).text == server.says("tiny-r2", seed=4, max_tokens=60).text != whole.text


def test_an_answer_comes_whole_or_in_pieces_and_is_the_same(server):
    whole = server.says("tiny", seed=4)
    assert whole.text and whole.finish_reason in ("stop", "length")
    with openai.OpenAI(base_url=server.client.base_url, api_key="x", max_retries=0) as raw:
        chunks = list(
            raw.chat.completions.create(model="tiny", messages=list(user("Hello")), temperature=1, max_tokens=30, seed=4, stream=True)
        )
    pieces = [c.choices[0].delta.content for c in chunks if c.choices[0].delta.content]
    assert len(pieces) > 3
    assert "".join(pieces).strip() == whole.text
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == [whole.finish_reason]


def test_a_seed_gives_the_same_answer_again_and_another_seed_another(server):
    assert server.says("tiny", seed=4) == server.says("tiny", seed=4)
    assert server.says("tiny", seed=4).text != server.says("tiny", seed=5).text


def test_an_unknown_model_is_refused_with_the_names_there_are(server):
    server.register("tiny-r1")
    for ask in (
        lambda: server.says("gpt-9"),
        lambda: streamed(server.client.stream("gpt-9", user("Q"), Sampling(max_new_tokens=5), seed=0)),
    ):
        with pytest.raises(PolicyServerDown) as caught:
            ask()
        assert "no model 'gpt-9'; there are: current, tiny, tiny-r1" in str(caught.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"seed": -1}, "seed"),
        ({"top_p": 0}, "top_p"),
    ],
)
def test_a_wrong_request_is_refused_by_field(server, change, message):
    request = {"model": "tiny", "messages": list(user("Q"))} | change
    reply = httpx2.post(f"{server.client.base_url}/chat/completions", json=request)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith(message)


def test_a_tuned_version_speaks_with_its_own_adapter(server, tiny_folder):
    server.register("tiny-r1", seed=1)
    server.register("tiny-r2", seed=2)
    text_of = {name: server.says(name, temperature=0.0).text for name in ("tiny", "tiny-r1", "tiny-r2")}
    assert len(set(text_of.values())) == 3
    assert {name: server.says(name, temperature=0.0).text for name in reversed(text_of)} == text_of, "in any order"


def test_a_version_whose_adapter_is_damaged_is_refused_every_time_and_the_others_speak(server):
    version = server.register("tiny-r1")
    base = server.says("tiny")
    file = policies.adapter_folder(server.store, version) / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    for _ in range(2):
        with pytest.raises(PolicyServerDown, match=r"refused \(503\).*the adapter cannot be read"):
            server.says("tiny-r1")
        with pytest.raises(PolicyServerDown, match=r"refused \(503\).*the adapter cannot be read"):
            streamed(server.client.stream("tiny-r1", user("Q"), Sampling(max_new_tokens=5), seed=0))
    assert server.says("tiny") == base


@pytest.mark.slow
def test_two_chats_at_once_while_the_queue_fills_say_what_they_say_alone(server, monkeypatch):
    monkeypatch.setattr(filler, "COLLECTING", Sampling(temperature=1.0, max_new_tokens=24))
    server.register("tiny-r1")
    alone = {name: server.says(name, seed=7, max_tokens=60).text for name in ("tiny", "tiny-r1")}
    prompts.add(server.store, [prompts.NewPrompt(user(f"Q{i}"), "test", "train") for i in range(6)], source="test")
    together: dict[str, list[str]] = {"tiny": [], "tiny-r1": []}

    def chat(name):
        for _ in range(3):
            together[name].append(server.says(name, seed=7, max_tokens=60).text)

    threads = [threading.Thread(target=chat, args=(name,)) for name in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == {name: [text] * 3 for name, text in alone.items()}
    until(lambda: queue.depth(server.store) >= QUEUE_TARGET)
    until(lambda: not server.client.status().filling)
    status = server.client.status()
    assert status.ready and status.note == "" and status.seconds_per_comparison > 0
    base_id = policies.ensure_base(server.store, server.model).id
    # The new version is not decided about: the queue's answers are those of the current policy, the base.
    versions = {c.policy_version_id for f in comparisons.many(server.store, range(1, 25)) for c in f.completions}
    assert versions == {base_id}


@pytest.mark.slow
def test_a_reader_who_leaves_frees_the_server(server):
    async def leaves():
        pieces = server.client.stream("tiny", user("Hello"), Sampling(temperature=1.5, max_new_tokens=1000), seed=0)
        await anext(pieces)
        assert sum(server.service.metrics().values()) == 1
        await pieces.aclose()

    asyncio.run(leaves())
    until(lambda: sum(server.service.metrics().values()) == 0, 10)
    prompts.add(server.store, [prompts.NewPrompt(user("Q"), "test", "train")], source="test")
    until(lambda: queue.depth(server.store) > 0)


# The process.


def served(data, model, *options):
    port = supervisor.free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "rlhf.generation.server",
            "--data",
            str(data),
            "--port",
            str(port),
            "--model",
            str(model),
            "--device",
            "cpu",
            *options,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=engine_environment(),
    )
    return process, PolicyClient(f"http://127.0.0.1:{port}/v1")


def answers(client):
    try:
        return client.models()
    except PolicyServerDown:
        return None


@pytest.mark.slow
def test_the_process_serves_until_it_is_told_to_stop(tmp_path, tiny_folder):
    process, client = served(tmp_path / "data", tiny_folder)
    until(lambda: answers(client) == ["current", "tiny"], 120)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert "policy server ready" in output and "Traceback" not in output


@pytest.mark.slow
def test_the_process_ends_with_its_parent(tmp_path, tiny_folder):
    parent = subprocess.Popen(["sleep", "600"])
    process, client = served(tmp_path / "data", tiny_folder, "--parent", str(parent.pid))
    until(lambda: answers(client) == ["current", "tiny"], 120)
    parent.kill()
    # It stays a zombie until this test collects it, as under a careless init: gone all the same.
    process.communicate(timeout=20)
    parent.wait()


@pytest.mark.slow
def test_an_endpoint_that_is_given_the_name_of_the_base_ends_the_process_with_its_reason(tmp_path, tiny_folder):
    file = tmp_path / "endpoints.toml"
    file.write_text('[[endpoint]]\nurl = "http://127.0.0.1:1/v1"\nmodel = "other"\nname = "tiny"\n', encoding="utf-8")
    process, _ = served(tmp_path / "data", tiny_folder, "--endpoints", str(file))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and "tiny is a policy version of this store" in output and "Traceback" not in output


@pytest.mark.slow
def test_a_model_that_cannot_be_had_ends_the_process_with_its_reason(tmp_path, tiny_folder):
    broken = shutil.copytree(tiny_folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"x" * 100)
    process, _ = served(tmp_path / "data", broken)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and "cannot be read as a causal language model" in output and "Traceback" not in output
