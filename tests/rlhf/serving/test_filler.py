"""The queue of comparisons: who meets whom, which prompts come first, and that nothing ends the filling for good."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from learning import user

from rlhf.serving import filler as module
from rlhf.serving.client import PolicyClient, PolicyServerDown
from rlhf.serving.filler import (
    COLLECTING,
    ComparisonGenerator,
    EndpointSource,
    GeneratedCompletion,
    least_used,
    policies_for_pair,
    requeue_prompts,
    round_robin,
    route_by_collector,
    write_comparisons,
)
from storage.content import batches, comparisons, policies, prompts
from storage.core.records import PolicyVersion, Prompt, Sampling
from storage.judging import queue
from storage.project import runs


def version(n, kind="tuned"):
    return PolicyVersion(n, f"v{n}", kind, "m", None, None, "2026-01-01")


class FakeModel:
    """Answers with verbs: it says what it is told to, always something new otherwise, and fails on demand."""

    def __init__(self):
        self.asked = []
        self.says: dict[str, str] = {}
        self.fails: list[Exception] = []
        self.n = 0

    def __call__(self, asked, sampling, seed, on_progress=lambda: None):
        if self.fails:
            raise self.fails.pop(0)
        self.asked.append(asked)
        on_progress()
        drawn = []
        for _, prompt in asked:
            self.n += 1
            drawn.append(GeneratedCompletion(self.says.get(prompt.text, f"answer {self.n}"), "stop", 0.1))
        return drawn


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture
def asked(store):
    def add(*texts):
        prompts.add(store, [prompts.NewPrompt(user(t), "test", "train") for t in texts], source="test")
        return prompts.of_split(store)

    return add


@contextmanager
def running(filler):
    """Pauses are a hundredth as long, so that a test of them takes no seconds."""
    wait = filler._stopping.wait
    filler._stopping.wait = lambda seconds: wait(seconds / 100)
    filler.start()
    try:
        yield filler
    finally:
        filler.stop()


def until(what, seconds=10):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def test_the_tuned_policy_meets_the_base_every_second_time():
    base, tuned = version(1, "base"), version(2)
    assert policies_for_pair(base, None, 0) == policies_for_pair(base, None, 1) == (base, base)
    assert [policies_for_pair(base, tuned, i) for i in range(3)] == [(tuned, base), (tuned, tuned), (tuned, base)]


def test_comparisons_hold_what_was_drawn(store, asked, model):
    prompt = asked("Q")[0]
    base, other = policies.ensure_base(store, "m"), policies.ensure_external(store, "x")
    sampling = Sampling(temperature=0.5, max_new_tokens=7)
    assert write_comparisons(store, model, [(prompt, other, base), (prompt, base, base)], sampling=sampling, seed=11) == []
    first, second = comparisons.many(store, [1, 2])
    assert (first.purpose, second.purpose) == ("versus", "collect")
    assert [(c.text, c.policy_version_id) for c in first.completions] == [("answer 1", other.id), ("answer 2", base.id)]
    assert [c.text for c in second.completions] == ["answer 3", "answer 4"]
    assert first.completions[0].sampling == sampling and first.completions[0].seed == 11


def test_answers_that_cannot_be_told_apart_or_read_are_dropped(store, asked):
    every = asked("same", "space", "empty", "blank", "good")
    texts = iter(["a", "a", "b", " b\n", "", "c", "d", "  ", "e", "f"])

    def generate(asked, sampling, seed, on_progress):
        return [GeneratedCompletion(next(texts), "stop", 0.1) for _ in asked]

    base = policies.ensure_base(store, "m")
    assert write_comparisons(store, generate, [(p, base, base) for p in every], sampling=COLLECTING, seed=0) == every[:4]
    assert [c.text for c in comparisons.get(store, 1).completions] == ["e", "f"]
    assert store.value("SELECT count(*) FROM completions") == 2


def test_prompts_with_the_fewest_comparisons_come_first(store, asked, model):
    one, two, three = asked("one", "two", "three")
    base = policies.ensure_base(store, "m")
    write_comparisons(store, model, [(one, base, base), (three, base, base), (three, base, base)], sampling=COLLECTING, seed=0)
    assert least_used(store, 3, {}) == [two, one, three]
    assert least_used(store, 5, {}) == [two, one, three, two, one]
    places = {}
    requeue_prompts(store, places, [two])
    assert least_used(store, 3, places) == [one, three, two], "one that is asked in vain does not stay first in line"
    requeue_prompts(store, places, [one])
    assert least_used(store, 3, places) == [three, two, one]


def test_without_prompts_nothing_is_asked(store):
    assert least_used(store, 3, {}) == []


def test_the_queue_is_filled_to_its_target_and_no_further(store, asked, model):
    asked(*(f"Q{i}" for i in range(5)))
    with running(ComparisonGenerator(store, model, "m")) as filler:
        until(lambda: queue.depth(store) == module.QUEUE_TARGET and not filler.filling)
        assert filler.note == "" and filler.seconds_per_comparison > 0
        calls = len(model.asked)
        time.sleep(0.1)
        assert len(model.asked) == calls
    batches = [len(a) // 2 for a in model.asked]
    assert batches == [1, 2, 4, 8, 8, 1], "the first is there soon"
    usage = comparisons.prompt_usage(store)
    assert sorted(usage.values()) == [4, 5, 5, 5, 5]


def test_once_there_is_a_tuned_policy_it_is_in_every_comparison(store, asked, model):
    asked("Q")
    runs.create(store, "r1", config={}, seed=0, versions={})
    policies.register_tuned(store, name="m-r1", base_model="m", adapter_path="runs/r1/policy", run_id="r1")
    with running(ComparisonGenerator(store, model, "m")):
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
    kinds = [tuple(policy.kind for policy, _ in batch[i : i + 2]) for batch in model.asked for i in range(0, len(batch), 2)]
    assert kinds.count(("tuned", "base")) == kinds.count(("tuned", "tuned")) == 12


def test_no_prompts_are_said_and_prompts_that_come_are_taken(store, asked, model):
    with running(ComparisonGenerator(store, model, "m")) as filler:
        until(lambda: filler.note)
        assert filler.note == "There are no prompts yet: import some."
        asked("Q")
        until(lambda: queue.depth(store) == module.QUEUE_TARGET and filler.note == "")


def test_failures_are_told_and_do_not_end_the_filling(store, asked, model, caplog):
    asked("Q")
    model.fails = [ZeroDivisionError("first"), PolicyServerDown("second"), KeyError("third")]
    notes = []
    real = module.ComparisonGenerator.__setattr__

    class Watched(ComparisonGenerator):
        def __setattr__(self, name, value):
            if name == "note":
                notes.append(value)
            real(self, name, value)

    with running(Watched(store, model, "m")) as filler:
        until(lambda: queue.depth(store) == module.QUEUE_TARGET and filler.note == "")
    # Of the message only the log may speak: who judges blind reads the note, and it may name a policy version.
    said = "The last answers could not be written ({}): the policy server's log, logs/policy-server.log, says why."
    assert [n for n in notes if n] == [said.format(kind) for kind in ("ZeroDivisionError", "PolicyServerDown", "KeyError")]
    assert all(message in caplog.text for message in ("first", "second", "third"))


def test_prompts_that_always_get_the_same_answer_do_not_starve_the_rest(store, asked, model):
    stubborn = [f"Say {i}" for i in range(module.LARGEST_BATCH + 2)]
    asked(*stubborn, "Q1", "Q2")
    model.says = {text: "as you wish" for text in stubborn}
    with running(ComparisonGenerator(store, model, "m")) as filler:
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
    assert filler.seconds_per_comparison is not None


def test_a_model_that_says_one_thing_only_is_told(store, asked, model):
    asked("Q")
    model.says = {"Q": "yes"}
    with running(ComparisonGenerator(store, model, "m")) as filler:
        until(lambda: filler.note)
        assert "alike" in filler.note


def test_a_stop_breaks_off_a_batch_in_the_middle(store, asked, caplog):
    asked("Q")
    began, stopping = threading.Event(), threading.Event()

    def generate(asked, sampling, seed, on_progress):
        began.set()
        stopping.wait(5)
        on_progress()
        raise AssertionError("the tick ends it")

    with running(ComparisonGenerator(store, generate, "m")) as filler:
        began.wait(5)
        filler._stopping.set()
        stopping.set()
    assert not filler._thread.is_alive()
    assert caplog.text == "", "an ordered end is no failure"
    assert queue.depth(store) == 0


# Batches that a lead asked for.


@pytest.fixture
def versions(store):
    return [policies.ensure_base(store, "m"), policies.ensure_external(store, "x")]


@pytest.fixture
def ask(store, versions):
    def asked(of=versions, *, answers=2, count=1, temperature=0.7, priority=0):
        sampling = Sampling(temperature=temperature, max_new_tokens=9)
        return batches.request(store, [v.id for v in of], completions=answers, sampling=sampling, count=count, priority=priority, by=None)

    return asked


def of_batch(store, batch):
    ids = [row[0] for row in store.rows("SELECT id FROM comparisons WHERE batch_id = ? ORDER BY id", [batch.id])]
    return comparisons.many(store, ids)


def saying(*texts):
    """A model that says these one after the other; what it was asked is in `.asked`."""
    left = list(texts)

    def generate(asked, sampling, seed, on_progress=lambda: None):
        generate.asked.append(([policy.name for policy, _ in asked], seed))
        return [GeneratedCompletion(left.pop(0), "stop", 0.1) for _ in asked]

    generate.asked = []
    return generate


def test_the_versions_of_a_batch_answer_in_turn(ask, versions):
    base, other = versions
    assert round_robin(ask(answers=4), versions, 0) == [base, other, base, other]
    odd = ask(answers=3)
    assert [round_robin(odd, versions, i) for i in range(2)] == [[base, other, base], [other, base, other]]


def test_a_batch_is_written_before_the_queue_is_filled(store, asked, model, ask, versions):
    asked("Q1", "Q2", "Q3")
    batch = ask(answers=4, count=3, priority=2)
    with running(ComparisonGenerator(store, model, "m")):
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
    written = of_batch(store, batch)
    assert [c.id for c in written] == [1, 2, 3]
    assert batches.get(store, batch.id).generated == 3
    base, other = (v.id for v in versions)
    assert [sorted(c.policy_version_id for c in w.completions) for w in written] == [[base, base, other, other]] * 3
    assert {c.sampling for w in written for c in w.completions} == {batch.sampling}
    assert {w.purpose for w in written} == {"batch"}
    assert {row[0] for row in store.rows("SELECT priority FROM comparisons WHERE batch_id IS NOT NULL")} == {2}
    assert {row[0] for row in store.rows("SELECT priority FROM comparisons WHERE batch_id IS NULL")} == {0}


def test_the_more_urgent_batch_goes_first(store, asked, model, ask):
    asked("Q")
    later, urgent = ask(count=2), ask(count=2, priority=1)
    with running(ComparisonGenerator(store, model, "m")):
        until(lambda: not batches.unfinished(store))
    assert [c.id for c in of_batch(store, urgent)] == [1, 2] and [c.id for c in of_batch(store, later)] == [3, 4]


def test_repeated_and_empty_answers_are_drawn_anew(store, asked, ask):
    prompt = asked("Q")[0]
    batch = ask(answers=4)
    base, other = policies.all_versions(store)
    model = saying("a", "a ", "b", "", "c", "c", "d")
    assert write_comparisons(store, model, [(prompt, base, other, base, other)], sampling=batch.sampling, seed=5, batch=batch) == []
    # The second and the fourth; then the fourth alone, which had said what the second says now.
    assert model.asked == [(["m", "x", "m", "x"], 5), (["x", "x"], 6), (["x"], 7)]
    assert sorted(c.text for c in of_batch(store, batch)[0].completions) == ["a", "b", "c", "d"]


def test_a_comparison_does_without_what_stays_repeated_but_has_two_answers(store, asked, ask):
    one, two = asked("one", "two")
    batch = ask(answers=3, count=2)
    base = policies.all_versions(store)[0]
    model = saying("a", "b", "b", "c", "c", "c", *"bcc", *"bcc")
    chosen = [(one, base, base, base), (two, base, base, base)]
    assert write_comparisons(store, model, chosen, sampling=batch.sampling, seed=0, batch=batch) == [two]
    assert [[c.text for c in w.completions] for w in of_batch(store, batch)] == [["a", "b"]]
    assert batches.get(store, batch.id).generated == 1
    assert store.value("SELECT count(*) FROM completions") == 2


def test_answers_that_cannot_come_out_otherwise_are_not_drawn_anew(store, asked, ask):
    prompt = asked("Q")[0]
    batch = ask(answers=3, temperature=0.0)
    base, other = policies.all_versions(store)
    model = saying("a", "b", "a")
    assert write_comparisons(store, model, [(prompt, base, other, base)], sampling=batch.sampling, seed=0, batch=batch) == []
    assert len(model.asked) == 1


def test_what_was_cancelled_while_it_was_written_is_thrown_away(store, asked, ask, versions):
    prompt = asked("Q")[0]
    batch = ask()

    def generate(asked, sampling, seed, on_progress):
        batches.cancel(store, batch.id)
        return [GeneratedCompletion("a", "stop", 0.1), GeneratedCompletion("b", "stop", 0.1)]

    assert write_comparisons(store, generate, [(prompt, *versions)], sampling=batch.sampling, seed=0, batch=batch) == []
    assert store.value("SELECT count(*) FROM completions") == 0


def test_a_version_that_cannot_answer_stops_its_own_batch_only(store, asked, model, ask, versions):
    asked("Q")
    stuck, fine = ask(priority=1), ask(versions[:1])
    with running(ComparisonGenerator(store, model, "m", refusal_reason=lambda v: "x is gone." if v.name == "x" else "")) as filler:
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
        assert filler.batch_notes == {stuck.id: "x is gone."}
        assert "x" not in filler.note, "who judges blind reads this one"
    assert batches.get(store, stuck.id).generated == 0 and batches.get(store, fine.id).generated == 1


def test_a_batch_that_gets_nowhere_rests_and_is_tried_again(store, asked, ask, versions, monkeypatch):
    asked("Q")
    monkeypatch.setattr(module, "PAUSE_S", 0.2)
    stuck, fine = ask(count=1, temperature=0.0), ask(versions[:1], count=2)
    changed = threading.Event()
    numbers = iter(range(10_000))

    def generate(asked, sampling, seed, on_progress):
        same = sampling.temperature == 0 and not changed.is_set()
        return [GeneratedCompletion("same" if same else f"{next(numbers)}", "stop", 0.1) for _ in asked]

    with running(ComparisonGenerator(store, generate, "m")) as filler:
        until(lambda: batches.get(store, fine.id).generated == 2)
        assert "alike" in filler.batch_notes[stuck.id]
        changed.set()
        until(lambda: batches.get(store, stuck.id).generated == 1)
        until(lambda: filler.batch_notes == {})


def test_what_goes_wrong_in_a_batch_is_told_and_the_queue_is_filled(store, asked, model, ask):
    asked("Q")
    batch = ask()
    model.fails = [PolicyServerDown("the endpoint is down")]
    with running(ComparisonGenerator(store, model, "m")) as filler:
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
        assert filler.batch_notes == {batch.id: "the endpoint is down"}
        batches.cancel(store, batch.id)
        until(lambda: filler.batch_notes == {})


def test_many_answers_are_written_a_few_comparisons_at_a_time(store, asked, model, ask):
    asked("Q")
    batch = ask(answers=9, count=3)
    with running(ComparisonGenerator(store, model, "m")):
        until(lambda: batches.get(store, batch.id).generated == 3)
    assert [len(a) for a in model.asked][:3] == [9, 9, 9]


def test_each_version_is_asked_where_it_speaks(versions):
    here, there = saying("h1", "h2"), saying("t1")
    base, other = versions
    prompt = Prompt(1, user("Q"), "test", "train")
    drawn = route_by_collector(other, there, here)([(base, prompt), (other, prompt), (base, prompt)], COLLECTING, 7)
    assert [d.text for d in drawn] == ["h1", "t1", "h2"]
    assert here.asked == [(["m", "m"], 7)] and there.asked == [(["x"], 7)]


# An endpoint that is not ours.


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, body))
        status, reply = self.server.replies[min(len(self.server.asked), len(self.server.replies)) - 1]
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def says(text, reason="stop"):
    message = {"role": "assistant", "content": text}
    return 200, {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
    }


@pytest.fixture
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.asked, server.replies = [], [says("hello")]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoint_is_asked_once_for_each_answer(endpoint):
    endpoint.replies = [says("one"), says("two", "length")]
    ticks = []
    asked = [(version(1, "external"), Prompt(i, user(f"Q{i}"), "test", "train")) for i in range(2)]
    drawn = EndpointSource(PolicyClient(endpoint.url), "their-model")(
        asked, Sampling(temperature=0.3, top_p=0.9, top_k=5, max_new_tokens=17), 40, lambda: ticks.append(1)
    )
    assert [(d.text, d.finish_reason) for d in drawn] == [("one", "stop"), ("two", "length")]
    assert all(d.latency_s > 0 for d in drawn) and len(ticks) == 2
    path, body = endpoint.asked[1]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "their-model",
        "messages": [{"role": "user", "content": "Q1"}],
        "temperature": 0.3,
        "top_p": 0.9,
        "max_tokens": 17,
        "seed": 41,
        "top_k": 5,
    }
    assert [d.seed for d in drawn] == [40, 41]


@pytest.mark.parametrize(
    "reply, said",
    [
        ((500, {"error": {"message": "out of order"}}), "refused \\(500\\)"),
        ((200, {"choices": []}), "answered without a choice"),
        ((404, {"error": {"message": "no such model"}}), "no such model"),
    ],
)
def test_what_an_endpoint_does_wrong_is_told(endpoint, reply, said):
    endpoint.replies = [reply]
    generate = EndpointSource(PolicyClient(endpoint.url), "their-model")
    with pytest.raises(PolicyServerDown, match=said) as caught:
        generate([(version(1), Prompt(1, user("Q"), "test", "train"))], COLLECTING, 0)
    assert endpoint.url in str(caught.value)


def test_an_endpoint_that_is_not_there_is_told():
    with pytest.raises(PolicyServerDown, match=r"no answer from the policy server at http://127\.0\.0\.1:9/v1"):
        EndpointSource(PolicyClient("http://127.0.0.1:9/v1"), "m")([(version(1), Prompt(1, user("Q"), "test", "train"))], COLLECTING, 0)


def test_answers_of_an_endpoint_are_marked_as_its_own(store, asked, endpoint):
    asked("Q1", "Q2")
    endpoint.replies = [says(f"answer {i}") for i in range(2 * module.QUEUE_TARGET)]
    collector = policies.ensure_external(store, "their-model")
    generate = EndpointSource(PolicyClient(endpoint.url), "their-model")
    with running(ComparisonGenerator(store, generate, "m", collector)):
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
    found = comparisons.many(store, list(range(1, 25)))
    assert {c.policy_version_id for f in found for c in f.completions} == {collector.id}
    assert {f.purpose for f in found} == {"collect"}
