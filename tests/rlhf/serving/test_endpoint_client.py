"""An external endpoint: the requests it gets, its refusals, and when it is not asked."""

import json

import pytest
from chat_endpoint import ChatEndpoint, error, says
from learning import user

from rlhf.serving import comparison_plan, filler
from rlhf.serving import endpoint_client as module
from rlhf.serving.completion_source import GeneratedCompletion, PromptRefused, route_by_version
from rlhf.serving.endpoint_client import EndpointClient, EndpointDown, EndpointSource, RequestBudget
from rlhf.serving.endpoints import Endpoint
from storage.content import comparisons, policies, prompts
from storage.core.records import PolicyVersion, Prompt, Sampling

SAMPLING = Sampling(temperature=0.3, top_p=0.9, top_k=5, max_new_tokens=17)


@pytest.fixture
def endpoint():
    started = ChatEndpoint(lambda body, headers: says("hello"))
    yield started
    started.close()


@pytest.fixture
def slept():
    return []


@pytest.fixture
def client(endpoint, slept):
    return EndpointClient(Endpoint(endpoint.url, "their-model"), sleep=slept.append)


def prompt(text, number=1):
    return Prompt(number, user(text), "test", "train")


def external(number=1, name="their-model"):
    return PolicyVersion(number, name, "external", name, None, None, "2026-01-01")


def in_turn(*replies):
    """Each reply once, then the last one for good."""
    left = list(replies)
    return lambda body, headers: left.pop(0) if len(left) > 1 else left[0]


# ---- what is sent and what is kept


def test_one_request_is_sent_for_each_answer(endpoint, client):
    endpoint.behave = lambda body, headers: says("to " + body["messages"][0]["content"], "length" if "Q1" in str(body) else "stop")
    ticks = []
    requests = [(external(), prompt(f"Q{i}", i)) for i in range(2)]
    answers = EndpointSource(client)(requests, SAMPLING, 40, lambda: ticks.append(1))
    assert [(a.text, a.finish_reason, a.seed) for a in answers] == [("to Q0", "stop", 40), ("to Q1", "length", 41)]
    assert all(a.latency_s > 0 for a in answers) and len(ticks) >= 2
    assert sorted(endpoint.asked, key=lambda body: body["seed"])[1] == {
        "model": "their-model", "messages": [{"role": "user", "content": "Q1"}], "temperature": 0.3, "top_p": 0.9, "max_tokens": 17,
        "seed": 41, "top_k": 5,
    }  # fmt: skip
    assert endpoint.paths == ["/v1/chat/completions"] * 2


def test_what_the_server_says_it_used_is_kept(endpoint, client):
    usage = {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}
    endpoint.behave = in_turn(says("a", model="their-model-2026-11", system_fingerprint="fp_1", usage=usage), says("b"))
    assert client.complete(user("Q"), SAMPLING, 1).reported == {
        "model": "their-model-2026-11", "system_fingerprint": "fp_1", "prompt_tokens": 3, "completion_tokens": 7,
    }  # fmt: skip
    assert client.complete(user("Q"), SAMPLING, 1).reported == {"model": "m"}


def test_the_key_goes_to_the_server_and_nowhere_else(endpoint, monkeypatch):
    for name in ("API_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", "of-the-environment")
    sent = []
    endpoint.behave = lambda body, headers: sent.append(str(headers)) or says("hello")
    EndpointClient(Endpoint(endpoint.url, "m", api_key="sk-right")).complete(user("Q"), SAMPLING, 1)
    EndpointClient(Endpoint(endpoint.url, "m")).complete(user("Q"), SAMPLING, 1)
    assert endpoint.keys == ["Bearer sk-right", "Bearer unused"] and "of-the-environment" not in "".join(sent)
    assert "sk-right" not in repr(Endpoint(endpoint.url, "m", api_key="sk-right"))


def test_max_completion_tokens_is_sent_where_max_tokens_is_refused(endpoint, client):
    def newer(body, headers):
        if "max_tokens" in body:
            return error(400, "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                         "unsupported_parameter")  # fmt: skip
        return says("yes")

    endpoint.behave = newer
    assert client.complete(user("Q"), SAMPLING, 1).sampling["max_new_tokens"] == 17
    client.complete(user("Q"), SAMPLING, 1)
    assert ["max_tokens" in body for body in endpoint.asked] == [True, False, False], "and remembered"
    assert endpoint.asked[1]["max_completion_tokens"] == 17


@pytest.mark.parametrize("param", [None, "temperature"])
def test_a_parameter_that_is_refused_is_neither_sent_nor_stored(endpoint, client, param):
    def fixed(body, headers):
        if "temperature" in body:
            return error(400, "Unsupported value: 'temperature' does not support 0.3 with this model.", "unsupported_value", param)
        if "seed" in body:
            return error(422, "body.seed: Extra inputs are not permitted", param="seed" if param else None)
        return says("yes")

    endpoint.behave = fixed
    reply = client.complete(user("Q"), SAMPLING, 9)
    assert reply.sampling == {"top_p": 0.9, "top_k": 5, "max_new_tokens": 17} and reply.seed is None
    assert "temperature" not in endpoint.asked[-1] and "seed" not in endpoint.asked[-1]


# ---- a prompt that is refused, and an endpoint that is down


@pytest.mark.parametrize(
    "reply",
    [error(400, "content_filter: the prompt was refused", "content_filter"),
     error(400, "The response was filtered due to the prompt triggering the content management policy."),
     error(400, "This model's maximum context length is 4096 tokens.", "context_length_exceeded"),
     error(400, "invalid prompt", "invalid_prompt"), says(None, "content_filter")],
)  # fmt: skip
def test_a_refused_prompt_is_told_apart_and_the_others_are_answered(endpoint, client, reply):
    endpoint.behave = lambda body, headers: reply if "poison" in str(body) else says("fine")
    answers = EndpointSource(client)([(external(), prompt(text)) for text in ("a", "poison", "b")], SAMPLING, 0)
    assert [getattr(a, "text", None) for a in answers] == ["fine", None, "fine"]
    assert isinstance(answers[1], PromptRefused) and "their-model" in str(answers[1])
    assert len(endpoint.asked) == 3, "a refusal is not asked again"
    assert client.down_reason() == ""


def test_a_refusal_without_a_reason_is_about_the_prompt_if_a_harmless_one_is_answered(endpoint, client):
    endpoint.behave = lambda body, headers: error(400, "bad request") if "odd" in str(body) else says("fine")
    with pytest.raises(PromptRefused, match="their-model: 400: bad request"):
        client.complete(user("odd"), SAMPLING, 0)
    assert endpoint.asked[-1]["messages"] == list(module.PROBE)
    endpoint.behave = lambda body, headers: error(400, "bad request")
    with pytest.raises(EndpointDown, match="bad request"):
        EndpointClient(client.endpoint).complete(user("odd"), SAMPLING, 0)


@pytest.mark.parametrize(
    "reply, said, attempts",
    [(error(401, "Incorrect API key provided"), "it wants a key.*--endpoint-key-env", 1),
     (error(403, "no access"), "it wants a key", 1),
     (error(404, "no such model"), "no such model.*has a model 'their-model'", 1),
     (error(429, "You exceeded your quota", "insufficient_quota"), "no credit", 1),
     (error(429, "slow down"), "slow down", 4),
     (error(500, "out of order"), r"refused \(500\): out of order", 4),
     (error(503, "busy"), "busy", 4),
     ((200, {"choices": []}), "answered without a choice", 1)],
)  # fmt: skip
def test_an_endpoint_that_does_not_work_says_why_and_what_to_do(endpoint, client, reply, said, attempts):
    endpoint.behave = lambda body, headers: reply
    with pytest.raises(EndpointDown, match=said) as caught:
        client.complete(user("Q"), SAMPLING, 0)
    assert endpoint.url in str(caught.value) and len(endpoint.asked) == attempts
    assert client.down_reason() == str(caught.value)
    # The probe is for a refusal that may be the prompt's.
    assert all(body["messages"][0]["content"] == "Q" for body in endpoint.asked)


def test_a_wrong_key_is_not_called_a_missing_one(endpoint):
    endpoint.behave = lambda body, headers: error(401, "Incorrect API key provided")
    with pytest.raises(EndpointDown, match="its key was refused") as caught:
        EndpointClient(Endpoint(endpoint.url, "m", api_key="sk-wrong")).complete(user("Q"), SAMPLING, 0)
    assert "sk-wrong" not in str(caught.value)


def test_an_endpoint_that_is_not_there_is_told(slept):
    with pytest.raises(EndpointDown, match=r"http://127\.0\.0\.1:9/v1: no answer"):
        EndpointClient(Endpoint("http://127.0.0.1:9/v1", "m"), sleep=slept.append).complete(user("Q"), SAMPLING, 0)
    assert sum(slept) == pytest.approx(1 + 2 + 4)


def test_an_overloaded_server_is_asked_again_when_it_says(endpoint, client, slept):
    endpoint.behave = in_turn(error(429, "slow down", retry_after="7"), error(503, "busy"), says("at last"))
    assert client.complete(user("Q"), SAMPLING, 0).text == "at last"
    # What the server asks for; then the second pause of 1, 2, 4, ...
    assert sum(slept) == pytest.approx(7 + 2)
    assert client.down_reason() == ""


def test_an_endpoint_that_stays_down_is_asked_less_and_less(endpoint, client, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    endpoint.behave = lambda body, headers: error(401, "no")
    waits = []
    for _ in range(7):
        with pytest.raises(EndpointDown):
            client.complete(user("Q"), SAMPLING, 0)
        began = now[0]
        while client.down_reason():
            now[0] += 1.0
        waits.append(now[0] - began)
    assert waits == [10, 20, 40, 80, 160, 300, 300]
    endpoint.behave = lambda body, headers: says("back")
    client.complete(user("Q"), SAMPLING, 0)
    endpoint.behave = lambda body, headers: error(401, "no")
    with pytest.raises(EndpointDown):
        client.complete(user("Q"), SAMPLING, 0)
    now[0] += 10.0
    assert client.down_reason() == "", "a success makes the next pause the first one again"


def test_a_budget_allows_so_many_requests_in_any_minute():
    now, waited = [0.0], []

    def sleep(seconds):
        waited.append(seconds)
        now[0] += seconds

    budget = RequestBudget(3, clock=lambda: now[0], sleep=sleep)
    moments = []
    for _ in range(7):
        budget.wait()
        moments.append(now[0])
    assert moments == [0, 0, 0, 60, 60, 60, 120]
    with pytest.raises(InterruptedError):
        budget.wait(stop := lambda: (_ for _ in ()).throw(InterruptedError()))
        budget.wait(stop)
        budget.wait(stop)


# ---- in the store


def test_answers_of_an_endpoint_are_stored_as_its_own_with_what_was_used(store, endpoint, client):
    prompts.add(store, [prompts.NewPrompt(user("Q1"))], source="test")
    numbers = iter(range(100))

    def fixed(body, headers):
        return error(400, "unknown parameter: 'seed'") if "seed" in body else says(f"answer {next(numbers)}", model="real-name")

    endpoint.behave = fixed
    collector = policies.ensure_external(store, "their-model")

    def nobody_here(*_):
        raise AssertionError("asked here")

    generate = route_by_version({collector.id: EndpointSource(client)}, nobody_here)
    assignments = comparison_plan.assign_prompts(store, [(collector, collector)], {})
    assert filler.write_comparisons(store, generate, assignments, sampling=Sampling(temperature=0.5, max_new_tokens=9), seed=3).stored == 1
    stored = comparisons.get(store, 1).completions
    assert {c.policy_version_id for c in stored} == {collector.id}
    assert [(c.sampling, c.seed) for c in stored] == [({"temperature": 0.5, "top_p": 1.0, "max_new_tokens": 9}, None)] * 2
    assert [json.loads(row[0])["model"] for row in store.rows("SELECT reported FROM completions")] == ["real-name"] * 2


def test_one_model_behind_two_endpoints_is_compared_with_itself(store, endpoint, client):
    """Both give the same answer to the same seed, and two equal answers are no comparison."""
    prompts.add(store, [prompts.NewPrompt(user(f"Q{i}")) for i in range(4)], source="test")
    endpoint.behave = lambda body, headers: says(f"answer of seed {body['seed']}")
    first, second = (policies.ensure_external(store, name) for name in ("first", "second"))
    generate = route_by_version({version.id: EndpointSource(client) for version in (first, second)}, None)
    assignments = comparison_plan.assign_prompts(store, [(first, second)] * 4, {})
    written = filler.write_comparisons(store, generate, assignments, sampling=Sampling(temperature=0.5, max_new_tokens=9), seed=2**31 - 3)
    assert written.stored == 4 and not written.dropped


def test_answers_from_here_and_from_elsewhere_keep_their_order():
    def source(name):
        return lambda requests, *_: [GeneratedCompletion(f"{name} {p.text}", "stop", 0.1) for _, p in requests]

    generate = route_by_version({2: source("two"), 3: source("three")}, source("here"))
    requests = [(external(number), prompt(f"Q{i}")) for i, number in enumerate([1, 3, 2, 1, 3])]
    assert [a.text for a in generate(requests, SAMPLING, 0)] == ["here Q0", "three Q1", "two Q2", "here Q3", "three Q4"]
