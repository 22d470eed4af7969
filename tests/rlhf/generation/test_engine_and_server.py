"""The policy server over real HTTP, with the tiny model: who is listed, what is said, and several talking at once."""

import asyncio
import shutil
import signal
import subprocess
import sys
import threading
import time

import httpx2
import openai
import pytest
from learning import scramble, user
from policy_server import Server, streamed, until

from rlhf.config import AdapterConfig
from rlhf.generation.engine import Engine
from rlhf.models.backbone import Backbone
from rlhf.runs.environment import engine_environment
from rlhf.serving import filler, supervisor
from rlhf.serving.client import PolicyClient, PolicyServerDown
from rlhf.serving.filler import QUEUE_TARGET
from storage.content import comparisons, policies, prompts
from storage.core.records import Sampling
from storage.judging import queue
from storage.project import runs


@pytest.fixture
def server(store, tiny_folder):
    started = Server(store, tiny_folder)
    yield started
    started.stop()


def test_the_base_is_listed_and_a_version_as_soon_as_it_is_registered(server):
    assert server.client.models() == ["tiny"]
    server.register("tiny-r1")
    assert server.client.models() == ["tiny", "tiny-r1"]
    policies.ensure_external(server.store, "elsewhere")
    policies.ensure_base(server.store, "another/base")
    assert server.client.models() == ["tiny", "tiny-r1"], "only those that this backbone can speak as"


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


def test_the_clients_stream_is_pieces_of_text(server):
    pieces = streamed(server.client.stream("tiny", user("Hello"), temperature=0.0, max_tokens=20))
    assert all(isinstance(p, str) and p for p in pieces) and len(pieces) > 1
    assert "".join(pieces).strip() == server.says("tiny", temperature=0.0, max_tokens=20).text


def test_an_unknown_model_is_refused_with_the_names_there_are(server):
    server.register("tiny-r1")
    for ask in (lambda: server.says("gpt-9"), lambda: streamed(server.client.stream("gpt-9", user("Q"), temperature=1.0, max_tokens=5))):
        with pytest.raises(PolicyServerDown) as caught:
            ask()
        assert "refused (404)" in str(caught.value) and "no model 'gpt-9'; there are: tiny, tiny-r1" in str(caught.value)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"seed": -1}, "seed"),
        ({"top_p": 0}, "top_p"),
    ],
)
def test_a_wrong_request_is_refused_by_field(server, change, said):
    request = {"model": "tiny", "messages": list(user("Q"))} | change
    reply = httpx2.post(f"{server.client.base_url}/chat/completions", json=request)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith(said)


def test_a_tuned_version_speaks_with_its_own_adapter(server, tiny_folder):
    server.register("tiny-r1", seed=1)
    server.register("tiny-r2", seed=2)
    said = {name: server.says(name, temperature=0.0).text for name in ("tiny", "tiny-r1", "tiny-r2")}
    assert len(set(said.values())) == 3
    assert {name: server.says(name, temperature=0.0).text for name in reversed(said)} == said, "in any order"


def test_a_version_whose_adapter_is_damaged_is_refused_every_time_and_the_others_speak(server):
    version = server.register("tiny-r1")
    base = server.says("tiny")
    file = policies.adapter_folder(server.store, version) / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    for _ in range(2):
        with pytest.raises(PolicyServerDown, match=r"refused \(503\).*the adapter cannot be read"):
            server.says("tiny-r1")
        with pytest.raises(PolicyServerDown, match=r"refused \(503\).*the adapter cannot be read"):
            streamed(server.client.stream("tiny-r1", user("Q"), temperature=1.0, max_tokens=5))
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
    versions = {c.policy_version_id for f in comparisons.many(server.store, range(1, 25)) for c in f.completions}
    assert len(versions) == 2 and base_id in versions


@pytest.mark.slow
def test_a_reader_who_leaves_frees_the_server(server):
    async def leaves():
        pieces = server.client.stream("tiny", user("Hello"), temperature=1.5, max_tokens=1000)
        await anext(pieces)
        assert server.engine._active_chats == 1
        await pieces.aclose()

    asyncio.run(leaves())
    until(lambda: server.engine._active_chats == 0, 10)
    prompts.add(server.store, [prompts.NewPrompt(user("Q"), "test", "train")], source="test")
    until(lambda: queue.depth(server.store) > 0)


def test_nothing_listens_is_told_with_what_to_do():
    client = PolicyClient("http://127.0.0.1:9/v1")
    for ask in (client.models, client.status, lambda: streamed(client.stream("m", user("Q"), temperature=1.0, max_tokens=5))):
        with pytest.raises(PolicyServerDown, match=r"no answer from the policy server at http://127\.0\.0\.1:9/v1") as caught:
            ask()
        assert "--endpoint" in str(caught.value)


def test_an_answer_that_breaks_off_is_told(server, monkeypatch):
    real = server.engine.stream_text

    def breaks(*args):
        pieces = real(*args)
        yield next(pieces)
        raise RuntimeError("the machine burns")

    monkeypatch.setattr(server.engine, "stream_text", breaks)
    with pytest.raises(PolicyServerDown):
        streamed(server.client.stream("tiny", user("Q"), temperature=1.0, max_tokens=50))


# The speakers themselves.


@pytest.fixture
def engine(store, backbone, tiny_folder):
    return Engine(store, str(tiny_folder), backbone)


def test_a_batch_is_answered_in_the_order_it_was_asked(store, engine):
    prompts.add(store, [prompts.NewPrompt(user(f"Q{i}"), "test", "train") for i in range(3)], source="test")
    first, second, third = prompts.of_split(store)
    maker = Backbone.load(engine.model, "cpu", "float32")
    maker.add_adapter("policy", AdapterConfig(rank=4), seed=0)
    scramble(maker, "policy", scale=0.3)
    runs.create(store, "r1", config={}, seed=0, versions={})
    maker.save_adapter("policy", store.path.parent / "runs" / "r1")
    tuned = policies.register_tuned(store, name="t", base_model=engine.model, adapter_path="runs/r1", run_id="r1")
    greedy = Sampling(temperature=0, max_new_tokens=12)
    asked = [(tuned, first), (engine.base, second), (tuned, third), (engine.base, first)]
    together = [d.text for d in engine.generate(asked, greedy, 0)]
    assert together == [engine.generate([one], greedy, 0)[0].text for one in asked]
    assert len(set(together)) == 4
    again = Sampling(temperature=1.0, max_new_tokens=12)
    assert [d.text for d in engine.generate(asked, again, 3)] == [d.text for d in engine.generate(asked, again, 3)]


def test_pieces_are_whole_characters_and_add_up(engine, monkeypatch):
    # Greek is two bytes a letter, and the tiny model has one token a byte.
    ids = [*engine.backbone.encode_answer("\u03b1\u03b2\u03b3 caf\u00e9"), engine.backbone.eos_id]
    import rlhf.generation.engine as module

    class Token:
        def __init__(self, i):
            self.i = i

        def __getitem__(self, _):
            return self.i

    monkeypatch.setattr(module, "stream", lambda *_, **__: iter([(Token(i), None) for i in ids]))
    pieces = list(engine.stream_text(engine.base, engine.prompt(user("Q")), Sampling(), 0))
    assert [p for p, _ in pieces] == ["\u03b1", "\u03b2", "\u03b3", " ", "c", "a", "f", "\u00e9", ""]
    assert pieces[-1] == ("", "stop") and {r for _, r in pieces[:-1]} == {None}


def test_nobody_chats_after_a_chat_however_it_ended(engine):
    for leave in (lambda p: list(p), lambda p: (next(p), p.close())):
        leave(engine.stream_text(engine.base, engine.prompt(user("Q")), Sampling(max_new_tokens=5), 0))
        assert engine._active_chats == 0


def test_an_unknown_name_is_a_key_error(engine):
    with pytest.raises(KeyError):
        engine.named("nobody")


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
        env=engine_environment() | {"OMP_NUM_THREADS": "1"},
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
    until(lambda: answers(client) == ["tiny"], 120)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=20)
    assert "policy server ready" in said and "Traceback" not in said


@pytest.mark.slow
def test_the_process_ends_with_its_parent(tmp_path, tiny_folder):
    parent = subprocess.Popen(["sleep", "600"])
    process, client = served(tmp_path / "data", tiny_folder, "--parent", str(parent.pid))
    until(lambda: answers(client) == ["tiny"], 120)
    parent.kill()
    # It stays a zombie until this test collects it, as under a careless init: gone all the same.
    process.communicate(timeout=20)
    parent.wait()


@pytest.mark.slow
def test_a_model_that_cannot_be_had_ends_the_process_with_its_reason(tmp_path, tiny_folder):
    broken = shutil.copytree(tiny_folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"x" * 100)
    process, _ = served(tmp_path / "data", broken)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and "cannot be read as a causal language model" in said and "Traceback" not in said


class Sleeper(supervisor.PolicyServer):
    """A stand-in process that dies when told."""

    def __init__(self, tmp_path, code):
        super().__init__(tmp_path, tmp_path / "logs" / "server.log", [])
        self._command = [sys.executable, "-c", code]


def test_a_server_that_dies_is_started_again(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "QUICK_DEATH_S", 0.0)
    kept = Sleeper(tmp_path, "import time; time.sleep(600)")
    kept.start()
    first = kept._process
    first.kill()
    until(lambda: kept._process is not first and kept._process.poll() is None, 10)
    kept.stop()
    assert kept._process.poll() is not None and not kept._thread.is_alive()


def test_a_server_that_dies_at_once_is_not_started_in_a_loop(tmp_path):
    kept = Sleeper(tmp_path, "print('no luck')")
    kept.start()
    until(lambda: "no luck" in kept.log_file.read_text(), 10)
    time.sleep(1.8)
    kept.stop()
    assert kept.log_file.read_text().count("no luck") == 1


def test_a_server_that_will_not_go_is_killed(tmp_path):
    kept = Sleeper(tmp_path, "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)")
    kept.start()
    until(lambda: "up" in kept.log_file.read_text(), 10)
    real = kept._process.wait
    kept._process.wait = lambda timeout=None: real(timeout and 0.3)
    kept.stop()
    assert kept._process.returncode == -signal.SIGKILL
