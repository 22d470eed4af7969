"""While a round needs the accelerator, the policy server's weights are elsewhere; afterwards it answers as before."""

import threading
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
import torch
from learning import scramble, user
from policy_server import Server
from waiting import until

from rlhf.config import AdapterConfig
from rlhf.generation.device_sharing import DeviceSharing, needs_device
from rlhf.generation.policy_service import PolicyService
from rlhf.generation.request import GenerationRequest, ModelReleased
from rlhf.models.backbone import Backbone
from storage.content import prompts
from storage.core.records import Sampling
from storage.project import runs


@pytest.fixture
def service(store, backbone, tiny_folder):
    made = PolicyService(store, str(tiny_folder), backbone)
    made.start()
    yield made
    made.close()


def start_run(store, number=1, **config):
    runs.create(store, f"run-{number}", config=config, seed=0, versions={})
    return f"run-{number}"


def answer(service, new_tokens=12):
    ids = tuple(service.prompt(user("Hi")))
    return service.submit(service.base, GenerationRequest(ids, Sampling(max_new_tokens=new_tokens), seed=3))


def test_requests_are_refused_while_a_round_runs_and_answered_as_before_afterwards(store, service):
    sharing = DeviceSharing(service, store)
    before = [output.id for output in answer(service)]
    sharing.poll()
    run = start_run(store, device="auto")
    sharing.poll()
    with pytest.raises(ModelReleased, match=f"round {run} has this server's accelerator until it ends: try again after it"):
        answer(service)
    assert not service.engine.call(lambda: service.engine._lanes)
    runs.finish(store, run, "done")
    sharing.poll()
    assert [output.id for output in answer(service)] == before


def test_an_answer_that_has_begun_is_completed_first(store, service):
    stream = answer(service, 300)
    next(iter(stream))
    assert not service.release("a round"), "it is still computed"
    with pytest.raises(ModelReleased):
        answer(service)
    list(stream)
    until(lambda: service.release("a round"))
    service.restore()
    assert list(answer(service))


def test_completions_for_the_queue_wait_for_the_end_of_the_round(store, service):
    prompts.add(store, [prompts.NewPrompt(user("Q"), "test", "train")], source="test")
    (prompt,) = prompts.of_split(store)
    assert service.release("a round")
    done = []
    sampling = Sampling(max_new_tokens=4)
    thread = threading.Thread(target=lambda: done.extend(service.generate([(service.base, prompt)], sampling, seed=1)))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive() and not done
    service.restore()
    thread.join(60)
    assert len(done) == 1 and done[0].finish_reason


def test_a_generator_that_is_stopped_does_not_wait(store, service, monkeypatch):
    monkeypatch.setattr("rlhf.generation.policy_service.RELEASED_WAIT_S", 0.01)
    prompts.add(store, [prompts.NewPrompt(user("Q"), "test", "train")], source="test")
    (prompt,) = prompts.of_split(store)
    service.release("a round")

    def stopped():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        service.generate([(service.base, prompt)], Sampling(), seed=1, on_progress=stopped)


def test_which_runs_need_the_device(store):
    now = datetime.now(UTC)
    auto, cpu = (runs.get(store, start_run(store, number, device=device)) for number, device in enumerate(("auto", "cpu")))
    assert needs_device(auto, now) and not needs_device(cpu, now)
    # A worker that died leaves its row as it was.
    assert not needs_device(auto, now + timedelta(seconds=61))
    runs.mark_started(store, auto.id, 1)
    assert needs_device(runs.get(store, auto.id), now)


def test_a_client_hears_why_and_when_to_try_again(store, tiny_folder):
    server = Server(store, tiny_folder)
    try:
        server.service.release("round r1 has this server's accelerator until it ends: try again after it")
        body = {"model": server.service.base.name, "messages": [{"role": "user", "content": "Hi"}]}
        reply = httpx2.post(f"http://127.0.0.1:{server.port}/v1/chat/completions", json=body)
        assert reply.status_code == 503 and reply.headers["Retry-After"] == "60"
        error = reply.json()["error"]
        assert error["code"] == "model_released" and error["message"].startswith("round r1 has this server's accelerator")
        server.service.restore()
        assert httpx2.post(f"http://127.0.0.1:{server.port}/v1/chat/completions", json=body | {"max_tokens": 2}).status_code == 200
    finally:
        server.stop()


def test_the_thread_looks_at_the_runs_and_ends_with_the_server(store, service, monkeypatch):
    monkeypatch.setattr("rlhf.generation.device_sharing.POLL_S", 0.01)
    sharing = DeviceSharing(service, store)
    sharing.start()
    run = start_run(store)
    until(lambda: service._offloaded)
    runs.finish(store, run, "failed")
    until(lambda: not service._offloaded)
    sharing.stop()
    assert not sharing._thread.is_alive()


def test_all_weights_move_with_those_of_adapters_that_are_not_attached(tiny_folder):
    """To torch's device without memory, so that each weight that stays behind is seen."""
    backbone = Backbone.load(tiny_folder, "cpu", "float32")
    for name, kind in (("lora", "lora"), ("ia3", "ia3"), ("prompt", "prompt")):
        backbone.add_adapter(name, AdapterConfig(kind=kind, virtual_tokens=3), seed=0)
    scramble(backbone, "lora")
    backbone.device = torch.device("meta")
    backbone.restore()
    weights = [*backbone.base.parameters(), *(p for name in backbone.adapters for p in backbone.parameters(name).values())]
    assert len(weights) > 30 and {weight.device.type for weight in weights} == {"meta"}
