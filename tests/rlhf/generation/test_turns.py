"""Chats and the queue on one model: neither starves the other. And what a chat is told whose prompt the template refuses."""

import threading
import time

import pytest
import tiny
from learning import user
from policy_server import Server

from rlhf.generation.engine import Engine
from rlhf.models.backbone import Backbone
from rlhf.models.chat_template import ChatTemplateError
from rlhf.serving.client import PolicyServerDown
from rlhf.serving.completion_source import PromptRefused
from storage.content import prompts, refusals
from storage.core.records import ProjectSettings, Sampling
from storage.judging import queue
from storage.project import settings

SYSTEM = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a fruit"})
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + tiny.TEMPLATE


@pytest.fixture
def engine(store, tiny_folder):
    made = Engine(store, str(tiny_folder), Backbone.load(tiny_folder, "cpu", "float32"))
    # No end token is sampled, so that each answer has all its tokens.
    tiny.favour(made.backbone, made.backbone.eos_id, -100.0)
    return made


@pytest.fixture
def prompt(store):
    prompts.add(store, [prompts.NewPrompt(user("Q"), "test", "train")], source="test")
    return prompts.of_split(store)[0]


def test_a_constant_stream_of_chats_delays_the_queue_by_no_more_than_its_patience(engine, prompt, monkeypatch):
    monkeypatch.setattr("rlhf.generation.engine.MOST_YIELDED_S", 0.5)
    engine._add_active_chats(1)
    started = time.monotonic()
    (answer,) = engine.generate([(engine.base, prompt)], Sampling(max_new_tokens=40), 0)
    # A quarter of a second before each of 40 tokens would be 10 s.
    assert answer.text and 0.5 <= time.monotonic() - started < 5


def test_a_chat_gets_a_token_for_each_of_the_queues(engine, prompt, monkeypatch):
    monkeypatch.setattr("rlhf.generation.engine.MOST_YIELDED_S", 0.0)
    over, steps = threading.Event(), []

    def fill():
        while not over.is_set():
            engine.generate([(engine.base, prompt)] * 8, Sampling(max_new_tokens=100), 0, lambda: steps.append(1))

    filling = threading.Thread(target=fill)
    filling.start()
    try:
        while len(steps) < 5:
            time.sleep(0.01)
        before = len(steps)
        pieces = list(engine.stream_text(engine.base, engine.prompt(user("Hi")), Sampling(max_new_tokens=30), 0))
        # In turns: about one step of the queue for each step of the chat, and a few around its begin and end.
        assert pieces[-1] == ("", "length") and len(steps) - before <= 30 + 15
    finally:
        over.set()
        filling.join()


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
        return [piece async for piece in server.client.stream("no-system", messages, temperature=1.0, max_tokens=5)]

    return asyncio.run(read())


def test_a_chat_whose_prompt_the_template_refuses_gets_the_reason(server):
    asks(server, SYSTEM)
    settings.change(server.store, ProjectSettings(fold_system=False), None)
    with pytest.raises(PolicyServerDown, match=r"400.*the chat template has no system role"):
        asks(server, SYSTEM)
    asks(server, user("Hi"))


def test_one_prompt_that_cannot_be_answered_does_not_stop_the_others(server):
    settings.change(server.store, ProjectSettings(fold_system=False), None)
    with pytest.raises(ChatTemplateError, match="no system role"):
        server.engine.prompt(SYSTEM)
    new = [prompts.NewPrompt(messages, "test", "train") for messages in (SYSTEM, user("Name a tree"), user("Name a city"))]
    prompts.add(server.store, new, source="poison")
    until = time.monotonic() + 60
    while queue.depth(server.store) < 4 and time.monotonic() < until:
        time.sleep(0.05)
    assert queue.depth(server.store) >= 4
    (refused,) = refusals.all_refusals(server.store)
    assert (refused.prompt_id, "no system role" in refused.reason) == (1, True)
    (answer,) = server.engine.generate([(server.engine.base, prompts.get(server.store, 1))], Sampling(max_new_tokens=3), 0)
    assert isinstance(answer, PromptRefused)
    settings.change(server.store, ProjectSettings(fold_system=True), None)
    (answer,) = server.engine.generate([(server.engine.base, prompts.get(server.store, 1))], Sampling(max_new_tokens=3), 0)
    assert not isinstance(answer, PromptRefused)
