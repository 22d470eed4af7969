"""The client of a rollout server, against servers that misbehave over real HTTP."""

import pytest
from rollout_server import ScriptedServer

from rlhf.serving import rollout_client
from rlhf.serving.rollout_client import Ask, RolloutClient, RolloutServerError, SampledTokens
from storage.core.records import Sampling

ASK = Ask([5, 6], Sampling(temperature=0.7, max_new_tokens=3), seed=2**62)
BASE = {"id": "base", "object": "model", "root": "org/base", "parent": None, "max_model_len": 64}


def listed(*entries):
    return 200, {"object": "list", "data": list(entries)}


def answer(ids, logprobs, reason):
    return 200, {"choices": [{"text": "", "token_ids": ids, "logprobs": {"token_logprobs": logprobs}, "finish_reason": reason}]}


GOOD = answer([7, 8, 9], [-1.0, -0.5, 0.0], "length")


def error(status, message):
    return status, {"error": {"message": message, "type": "x", "code": status}}


@pytest.fixture
def start():
    started = []

    def start(behave, **options):
        started.append(ScriptedServer(behave if callable(behave) else lambda path, body: behave))
        client = RolloutClient(
            started[-1].url + "/v1/", vocabulary=100, end_tokens=[2], **{"attempts": 2, "first_pause_s": 0.001} | options
        )
        return client, started[-1]

    yield start
    for server in started:
        server.close()


def test_a_request_says_everything_that_decides_the_distribution(start):
    client, server = start(GOOD, api_key="sk-1")
    came = []
    assert client.complete("m", [ASK], came.append) == [SampledTokens([7, 8, 9], [-1.0, -0.5, 0.0])]
    assert came == [3] and server.keys == ["Bearer sk-1"]
    assert server.asked == [
        (
            "/v1/completions",
            {
                "model": "m", "prompt": [5, 6], "max_tokens": 3, "temperature": 0.7, "top_p": 1.0, "top_k": 0, "min_p": 0,
                "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0, "seed": 2**62, "stop_token_ids": [2],
                "logprobs": 0, "return_token_ids": True,
            },
        )
    ]  # fmt: skip


def test_answers_come_in_the_order_of_the_asks(start):
    client, _ = start(lambda path, body: answer([body["seed"], 2], [-1, -2], "stop"))
    asks = [Ask([1], Sampling(max_new_tokens=3), seed) for seed in range(30, 50)]
    assert [sampled.ids[0] for sampled in client.complete("m", asks)] == list(range(30, 50))


@pytest.mark.parametrize(
    "reply, said",
    [
        ((200, {"choices": []}), "does not follow the protocol of completions"),
        ((200, b"<html>"), "does not follow the protocol of completions"),
        ((200, {"choices": [{"text": "x", "finish_reason": "stop"}]}), "no token ids or no log-probabilities.*vLLM 0.10.2 or newer"),
        (answer([7, 100], [-1, -1], "length"), "a token that this run's model does not have: it has 100"),
        (answer([7, True], [-1, -1], "length"), "a token that this run's model does not have"),
        (answer([7, 8, 9], [-1, -1], "length"), "its 3 tokens have 2 log-probabilities"),
        (answer([7, 8, 9], [-1, -1, 0.5], "length"), "or some that are none"),
        (answer([7, 8, 9], [-1, -1, None], "length"), "or some that are none"),
        (
            (200, b'{"choices": [{"token_ids": [7, 2], "logprobs": {"token_logprobs": [-1, NaN]}, "finish_reason": "stop"}]}'),
            "that are none",
        ),
        (answer([], [], "stop"), "an answer of 0 tokens, of 3 at most, ended with 'stop'"),
        (answer([7, 8], [-1, -1], "stop"), "an answer of 2 tokens, of 3 at most, ended with 'stop', and not by an end token"),
        (answer([7, 8], [-1, -1], "length"), "an answer of 2 tokens, of 3 at most, ended with 'length'"),
        (answer([2, 8, 9], [-1, -1, -1], "length"), "ended with 'length', and not by an end token"),
        (answer([7, 8, 9], [-1, -1, -1], "abort"), "ended with 'abort'"),
        (error(400, "top_k: no\nthanks"), r"refuses a request \(400: top_k: no thanks\)"),
        (error(404, "The model `m` does not exist."), "refuses a request .404: The model"),
        ((302, {}, {"location": "http://127.0.0.1:1/elsewhere"}), r"redirects to another address \(302\), which is not followed"),
        (error(500, "out of memory"), "it answers 500: out of memory, after 2 attempts.*the run can be resumed then"),
        ((401, {"error": "Unauthorized"}), r"it wants a key \(401: Unauthorized\).*--rollouts-key-env, --rollouts-key-file"),
    ],
)
def test_an_answer_that_cannot_be_trained_on_is_an_error_with_its_cause(start, reply, said):
    client, _ = start(reply)
    with pytest.raises(RolloutServerError, match=f"^the rollout server {client.url}: .*{said}"):
        client.complete("m", [ASK])


def test_a_wrong_key_is_told_apart_from_a_missing_one(start):
    client, _ = start((401, {"error": "Unauthorized"}), api_key="sk-old")
    with pytest.raises(RolloutServerError, match="it refuses the key"):
        client.base_model()


def test_a_response_without_end_is_cut_off(start, monkeypatch):
    monkeypatch.setattr(rollout_client, "MAX_BODY_BYTES", 10_000)
    client, _ = start((200, b" " * 20_000))
    with pytest.raises(RolloutServerError, match="a response has more than 10,000 bytes"):
        client.complete("m", [ASK])


def test_a_server_that_is_away_is_asked_again_and_then_named():
    client = RolloutClient("http://127.0.0.1:9", vocabulary=100, end_tokens=[2], attempts=3, first_pause_s=0.001)
    with pytest.raises(RolloutServerError, match=r"no answer \(ConnectError\), after 3 attempts. To mend it: check that it runs, and that"):
        client.base_model()


def test_a_server_that_comes_back_within_the_attempts_goes_on(start):
    replies = [error(503, "loading"), error(429, "busy"), GOOD]
    client, server = start(lambda path, body: replies.pop(0), attempts=3)
    assert client.complete("m", [ASK])[0].ids == [7, 8, 9] and len(server.asked) == 3


def test_whoever_waits_can_end_it(start):
    class Stop(Exception):
        pass

    def stop():
        raise Stop

    client, _ = start(error(503, "loading"), attempts=100, first_pause_s=5.0, on_wait=stop)
    with pytest.raises(Stop):
        client.complete("m", [ASK])


# ---- models and adapters


def test_the_base_is_the_model_without_a_parent_and_not_another_name_of_one(start):
    tuned = {"id": "base-r1", "parent": "base", "root": "base-r1"}
    client, _ = start(listed({"id": "current", "root": "base", "parent": None}, BASE, tuned))
    found = client.base_model()
    assert (found.id, found.root, found.max_length) == ("base", "org/base", 64)
    assert client.adapters() == ["current", "base", "base-r1"]


def test_of_several_bases_one_must_be_named(start):
    client, _ = start(listed(BASE, {"id": "other"}))
    assert client.base_model("other").id == "other"
    with pytest.raises(RolloutServerError, match="it serves more than one base model; there are: base, other.*--rollouts-model"):
        client.base_model()
    with pytest.raises(RolloutServerError, match="it has no base model 'third'; there are: base, other"):
        client.base_model("third")
    for wrong in ((200, []), (200, {"data": [{"id": 3}]}), (200, {"data": {}})):
        with pytest.raises(RolloutServerError, match="does not follow OpenAI's protocol"):
            start(wrong)[0].base_model()
    with pytest.raises(RolloutServerError, match="it lists no models .404: Not Found"):
        start((404, {"detail": "Not Found"}))[0].base_model()


@pytest.mark.parametrize(
    "reply, said",
    [
        ((404, {"detail": "Not Found"}), "it loads no adapters while it runs.*VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
        (error(404, "Not Found"), "it loads no adapters while it runs"),
        (error(500, "Call to add_lora method failed: LoRA is not enabled. Use --enable-lora"), "it serves no adapters.*--enable-lora"),
        (
            error(500, "LoRA rank 32 is greater than max_lora_rank 16."),
            "the adapter has rank 32, and the server was started for 16 at most.*--max-lora-rank 32, or train with --adapter-rank 16",
        ),
        (
            error(404, "Loading lora a failed: No adapter found for /x"),
            "it did not load the adapter in .*No adapter found.*read that folder",
        ),
    ],
)
def test_why_an_adapter_is_not_loaded(start, tmp_path, reply, said):
    client, server = start(reply)
    with pytest.raises(RolloutServerError, match=said):
        client.load("a", tmp_path)
    assert len(server.asked) == 1, "another attempt would end as this one"


def test_unloading_what_is_gone_is_no_error(start):
    client, server = start(error(404, "The lora adapter 'a' cannot be found."))
    client.unload("a")
    assert server.asked == [("/v1/unload_lora_adapter", {"lora_name": "a"})]
    with pytest.raises(RolloutServerError, match="it did not unload a .400: no"):
        start(error(400, "no"))[0].unload("a")


def test_a_server_that_lost_the_adapter_gets_it_again_once(start, tmp_path):
    loads = []

    def behave(path, body):
        if path.endswith("load_lora_adapter"):
            loads.append(body)
            return 200, b"Success"
        return GOOD if len(loads) > 1 else error(404, "The model `a` does not exist.")

    client, _ = start(behave)
    client.load("a", tmp_path)
    assert len(client.complete("a", [ASK] * 20)) == 20
    assert loads == [{"lora_name": "a", "lora_path": str(tmp_path)}] * 2
