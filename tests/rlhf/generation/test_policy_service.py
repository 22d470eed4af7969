"""Policy versions over one engine: in the order in which they were asked, loaded as needed, and never from an old adapter."""

import shutil
import threading
import time
from pathlib import Path

import pytest
import tiny
from learning import scramble, user
from policy_server import Server

from rlhf.config import AdapterConfig
from rlhf.generation import policy_service
from rlhf.generation.policy_service import PolicyService
from rlhf.generation.request import GenerationRequest
from rlhf.models.backbone import Backbone
from rlhf.models.chat_template import ChatTemplateError
from rlhf.safe_files import ModelError
from rlhf.serving.client import PolicyServerDown
from rlhf.serving.completion_source import PromptRefused
from storage.content import policies, prompts, refusals
from storage.core.records import ProjectSettings, Sampling
from storage.judging import queue
from storage.project import runs, settings

SYSTEM = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a fruit"})
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + tiny.TEMPLATE
GREEDY = Sampling(temperature=0, max_new_tokens=12)


@pytest.fixture
def service(store, backbone, tiny_folder):
    made = PolicyService(store, str(tiny_folder), backbone)
    yield made
    if made.engine.is_running:
        made.close()


def save_adapter(service, folder, *, seed, config=AdapterConfig(rank=4)):
    maker = Backbone.load(Path(service.model), "cpu", "float32")
    maker.add_adapter("policy", config, seed=seed)
    scramble(maker, "policy", seed=seed, scale=0.3)
    maker.save_adapter("policy", folder)


def tuned(service, name, *, seed=0):
    runs.create(service.store, f"run-{name}", config={}, seed=0, versions={})
    folder = service.store.path.parent / "runs" / f"run-{name}"
    save_adapter(service, folder, seed=seed)
    version = policies.register_tuned(service.store, name=name, base_model=service.model, adapter_path=folder, run_id=f"run-{name}")
    return version, folder


def answer(service, version, *, text="Hi", **fields):
    ids = tuple(service.prompt(user(text)))
    return [output.id for output in service.submit(version, GenerationRequest(ids, GREEDY, **fields))]


def test_completions_come_in_the_order_in_which_they_were_asked(store, service):
    prompts.add(store, [prompts.NewPrompt(user(f"Q{i}"), "test", "train") for i in range(3)], source="test")
    first, second, third = prompts.of_split(store)
    version, _ = tuned(service, "t")
    asked = [(version, first), (service.base, second), (version, third), (service.base, first)]
    together = [completion.text for completion in service.generate(asked, GREEDY, 0)]
    assert together == [service.generate([one], GREEDY, 0)[0].text for one in asked]
    assert len(set(together)) == 4
    sampling = Sampling(temperature=1.0, max_new_tokens=12)
    again = [[completion.text for completion in service.generate(asked, sampling, seed)] for seed in (3, 3, 4)]
    assert again[0] == again[1] != again[2]


def test_eight_versions_answer_side_by_side_as_each_does_alone(service):
    versions = [tuned(service, f"v{i}", seed=i)[0] for i in range(8)]
    service.start()
    alone = [answer(service, version) for version in (*versions, service.base)]
    ids = tuple(service.prompt(user("Hi")))
    streams = [service.submit(version, GenerationRequest(ids, GREEDY)) for version in (*versions, service.base)]
    assert [[output.id for output in stream] for stream in streams] == alone
    assert len({tuple(one) for one in alone}) == 9


def test_a_version_whose_adapter_is_replaced_never_answers_from_the_old_one(service):
    version, folder = tuned(service, "t", seed=1)
    other, other_folder = tuned(service, "other", seed=2)
    service.start()
    before, expected = answer(service, version), answer(service, other)
    assert before != expected
    # A stream that has begun goes on with the adapter it began with.
    tiny.favour(service.backbone, service.backbone.eos_id, -100.0)
    long = GenerationRequest(tuple(service.prompt(user("Hi"))), Sampling(temperature=0, max_new_tokens=200))
    stream = service.submit(version, long)
    begun = [next(iter(stream)).id]
    (folder / "adapter_model.safetensors").unlink()
    shutil.copy(other_folder / "adapter_model.safetensors", folder / "adapter_model.safetensors")
    assert answer(service, version)[: len(expected) - 1] == expected[:-1]
    begun += [output.id for output in stream]
    assert begun[: len(before) - 1] == before[:-1] and len(begun) == 200
    # The old one is dropped as soon as no request uses it.
    answer(service, other)
    assert len(service.backbone.adapters) == 2


@pytest.mark.parametrize("damage", ["missing", "half", "other model"])
def test_an_adapter_that_cannot_be_used_is_an_error_and_stops_nobody(service, tmp_path, damage):
    version, folder = tuned(service, "t", seed=1)
    healthy, _ = tuned(service, "healthy", seed=2)
    file = folder / "adapter_model.safetensors"
    if damage == "missing":
        shutil.rmtree(folder)
    elif damage == "half":
        file.write_bytes(file.read_bytes()[:100])
    else:
        tokenizer = tiny.tokenizer()
        foreign = Backbone(tiny.model(len(tokenizer), layers=3), tokenizer)
        foreign.add_adapter("policy", AdapterConfig(rank=4), seed=0)
        foreign.save_adapter("policy", folder)
    service.start()
    expected = answer(service, healthy)
    with pytest.raises(ModelError) as refused:
        answer(service, version)
    assert str(folder) not in service.without_paths(version, refused.value)
    assert answer(service, healthy) == expected


def test_adapters_unused_for_longest_are_dropped(service, monkeypatch):
    monkeypatch.setattr(policy_service, "MAX_ADAPTERS", 2)
    versions = [tuned(service, f"v{i}", seed=i)[0] for i in range(4)]
    service.start()
    first = [answer(service, version) for version in versions]
    assert len(service.backbone.adapters) == 2
    assert [answer(service, version) for version in versions] == first


def test_an_unknown_name_is_a_key_error(service):
    with pytest.raises(KeyError):
        service.named("nobody")


def test_chats_and_the_queue_are_answered_side_by_side(store, service):
    tiny.favour(service.backbone, service.backbone.eos_id, -100.0)
    prompts.add(store, [prompts.NewPrompt(user("Q"), "test", "train")], source="test")
    (prompt,) = prompts.of_split(store)
    service.start()
    steps, answers = [], []
    filling = threading.Thread(
        target=lambda: answers.extend(
            service.generate([(service.base, prompt)] * 8, Sampling(max_new_tokens=200), 0, lambda: steps.append(1))
        )
    )
    filling.start()
    while not steps:
        time.sleep(0.01)
    chat = GenerationRequest(tuple(service.prompt(user("Hi"))), Sampling(max_new_tokens=30))
    assert len(list(service.submit(service.base, chat))) == 30
    # The chat was over long before the queue's completions, which went on beside it.
    assert filling.is_alive()
    filling.join(60)
    assert len(answers) == 8


@pytest.fixture
def server(store, tmp_path):
    folder = tiny.write(tmp_path / "no-system")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = NO_SYSTEM
    tokenizer.save_pretrained(folder)
    made = Server(store, folder)
    yield made
    made.stop()


def asks(server, messages):
    import asyncio

    async def read():
        return [piece async for piece in server.client.stream("no-system", messages, Sampling(max_new_tokens=5), seed=0)]

    return asyncio.run(read())


def test_a_chat_whose_prompt_the_template_refuses_gets_the_reason(server):
    asks(server, SYSTEM)
    settings.change(server.store, ProjectSettings(fold_system=False), None)
    with pytest.raises(PolicyServerDown, match=r"400.*the chat template has no system role"):
        asks(server, SYSTEM)
    asks(server, user("Hi"))


def test_a_collected_prompt_leaves_room_for_an_answer_and_not_for_the_longest_one(store, service):
    context = service.backbone.context
    one, two = (len(service.prompt(user(times * "Hi "))) for times in (1, 2))
    asked = "Hi " * (1 + (context - policy_service.LEAST_ROOM - one) // (two - one) + 1)
    new = [prompts.NewPrompt(user(text), "test", "train") for text in ("Hi", asked)]
    prompts.add(store, new, source="test")
    short, long = prompts.of_split(store)
    sampling = Sampling(temperature=0, max_new_tokens=context)
    answered, refused = service.generate([(service.base, short), (service.base, long)], sampling, 0)
    assert not isinstance(answered, PromptRefused)
    assert isinstance(refused, PromptRefused) and f"with an answer of 96 that is more than the model's context of {context}" in str(refused)
    # A limit below that needs no more room than itself.
    (answered,) = service.generate([(service.base, long)], Sampling(temperature=0, max_new_tokens=3), 0)
    assert not isinstance(answered, PromptRefused)


def test_one_prompt_that_cannot_be_answered_does_not_stop_the_others(server):
    settings.change(server.store, ProjectSettings(fold_system=False), None)
    with pytest.raises(ChatTemplateError, match="no system role"):
        server.service.prompt(SYSTEM)
    new = [prompts.NewPrompt(messages, "test", "train") for messages in (SYSTEM, user("Name a tree"), user("Name a city"))]
    prompts.add(server.store, new, source="poison")
    until = time.monotonic() + 60
    while queue.depth(server.store) < 4 and time.monotonic() < until:
        time.sleep(0.05)
    assert queue.depth(server.store) >= 4
    (refused,) = refusals.all_refusals(server.store)
    assert (refused.prompt_id, "no system role" in refused.reason) == (1, True)
    (one,) = server.service.generate([(server.service.base, prompts.get(server.store, 1))], Sampling(max_new_tokens=3), 0)
    assert isinstance(one, PromptRefused)
    settings.change(server.store, ProjectSettings(fold_system=True), None)
    (one,) = server.service.generate([(server.service.base, prompts.get(server.store, 1))], Sampling(max_new_tokens=3), 0)
    assert not isinstance(one, PromptRefused)
