"""The queue of comparisons: who meets whom, which prompts come first, and that nothing ends the filling for good."""

import random
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise

import pytest
from learning import user
from waiting import PATIENCE_S, until

from rlhf.runs import memory
from rlhf.serving import filler as module
from rlhf.serving.client import PolicyServerDown
from rlhf.serving.comparison_plan import assign_prompts
from rlhf.serving.completion_source import GeneratedCompletion, PromptRefused, route_by_version
from rlhf.serving.filler import (
    COLLECTING,
    ComparisonGenerator,
    pair_of_collectors,
    requeue_prompts,
    round_robin,
    write_comparisons,
)
from storage.content import batches, comparisons, policies, prompts, refusals
from storage.core.records import PolicyVersion, ProjectSettings, Prompt, PromptFilter, Sampling
from storage.judging import queue
from storage.project import rounds, runs, settings


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


def test_the_estimate_of_memory_and_time_knows_the_limit_of_collected_answers():
    assert COLLECTING.max_new_tokens == memory.COLLECTED_TOKENS


def test_comparisons_hold_what_was_drawn(store, asked, model):
    prompt = asked("Q")[0]
    base, other = policies.ensure_base(store, "m"), policies.ensure_external(store, "x")
    sampling = Sampling(temperature=0.5, max_new_tokens=7)
    written = write_comparisons(store, model, [(prompt, other, base), (prompt, base, base)], sampling=sampling, seed=11)
    assert written == (2, [], [])
    first, second = comparisons.many(store, [1, 2])
    assert (first.purpose, second.purpose) == ("versus", "collect")
    assert [(c.text, c.policy_version_id) for c in first.completions] == [("answer 1", other.id), ("answer 2", base.id)]
    assert [c.text for c in second.completions] == ["answer 3", "answer 4"]
    assert first.completions[0].sampling == asdict(sampling) and first.completions[0].seed == 11


def test_answers_that_cannot_be_told_apart_or_read_are_dropped(store, asked):
    every = asked("same", "space", "empty", "blank", "good")
    texts = iter(["a", "a", "b", " b\n", "", "c", "d", "  ", "e", "f"])

    def generate(asked, sampling, seed, on_progress):
        return [GeneratedCompletion(next(texts), "stop", 0.1) for _ in asked]

    base = policies.ensure_base(store, "m")
    assert write_comparisons(store, generate, [(p, base, base) for p in every], sampling=COLLECTING, seed=0) == (1, every[:4], [])
    assert [c.text for c in comparisons.get(store, 1).completions] == ["e", "f"]
    assert store.value("SELECT count(*) FROM completions") == 2


def next_prompts(store, count, queue_positions, version=None):
    base = version or policies.ensure_base(store, "m")
    return [prompt for prompt, *_ in assign_prompts(store, [(base, base)] * count, queue_positions)]


def test_prompts_with_the_fewest_comparisons_come_first(store, asked, model):
    one, two, three = asked("one", "two", "three")
    base = policies.ensure_base(store, "m")
    write_comparisons(store, model, [(one, base, base), (three, base, base), (three, base, base)], sampling=COLLECTING, seed=0)
    assert next_prompts(store, 3, {}) == [two, one, three]
    assert next_prompts(store, 5, {}) == [two, one, three, two, one]
    positions = {}
    requeue_prompts(store, positions, [two])
    assert next_prompts(store, 3, positions) == [one, three, two], "one that is asked in vain does not stay first"
    requeue_prompts(store, positions, [one])
    assert next_prompts(store, 3, positions) == [three, two, one]


def test_without_prompts_nothing_is_asked(store):
    assert next_prompts(store, 3, {}) == []


# ---- prompts that a model refuses


class Picky(FakeModel):
    """Refuses prompts that speak of poison, as one of its versions."""

    def __init__(self, who="m"):
        super().__init__()
        self.who = who

    def __call__(self, asked, sampling, seed, on_progress=lambda: None):
        answers = super().__call__(asked, sampling, seed, on_progress)
        return [
            PromptRefused(f"no {prompt.text}") if policy.base_model == self.who and "poison" in prompt.text else answer
            for (policy, prompt), answer in zip(asked, answers, strict=True)
        ]


def test_a_prompt_that_is_refused_is_set_aside_with_its_reason_and_the_others_are_answered(store, asked):
    poison, *fine = asked("poison 1", "fine 1", "fine 2")
    model = Picky()
    with running(ComparisonGenerator(store, model, "m")) as filler:
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
        assert filler.note == ""
    assert [(r.prompt_id, r.base_model, r.reason) for r in refusals.all_refusals(store)] == [(poison.id, "m", "no poison 1")]
    assert {c.prompt.id for c in comparisons.many(store, range(1, 25))} == {p.id for p in fine}
    assert sum(prompt.id == poison.id for batch in model.asked for _, prompt in batch) == 2, "asked for one comparison and never again"
    assert refusals.clear(store) == 1 and next_prompts(store, 1, {}) == [poison]


def test_a_prompt_that_one_model_refuses_is_left_to_the_others(store, asked):
    poison = asked("poison", "fine")[0]
    base, other = policies.ensure_base(store, "m"), policies.ensure_external(store, "x")
    assert write_comparisons(store, Picky(), [(poison, base, other)], sampling=COLLECTING, seed=0) == (0, [], [poison])
    assert store.value("SELECT count(*) FROM completions") == 0
    assert poison not in next_prompts(store, 4, {}) and poison in next_prompts(store, 2, {}, other)
    tuned = PolicyVersion(9, "m-1", "tuned", "m", None, None, "2026-01-01")
    assert poison not in next_prompts(store, 4, {}, tuned), "a base refuses for its tuned versions"


def test_where_every_prompt_is_refused_that_is_said(store, asked, monkeypatch):
    monkeypatch.setattr(module, "IDLE_S", 0.05)
    asked("poison 1", "poison 2")
    with running(ComparisonGenerator(store, Picky(), "m")) as filler:
        until(lambda: "set aside" in filler.note)
        asked("fine")
        until(lambda: queue.depth(store) == module.QUEUE_TARGET and filler.note == "")


def test_a_batch_goes_on_without_the_prompts_that_are_refused(store, asked, ask):
    asked("poison", "fine")
    batch = ask(answers=2, count=3)
    with running(ComparisonGenerator(store, Picky("x"), "m")):
        until(lambda: batches.get(store, batch.id).generated == 3)
    assert {c.prompt.text for c in of_batch(store, batch)} == {"fine"}


def test_a_model_that_gives_nothing_usable_is_asked_less_and_less(store, asked):
    asked("Q")
    times = []

    def empty(requests, sampling, seed, on_progress=lambda: None):
        times.append(time.monotonic())
        return [GeneratedCompletion("", "stop", 0.1) for _ in requests]

    def pauses():
        # The comparisons of one attempt are asked for together.
        return [later - earlier for earlier, later in pairwise(times.copy()) if later - earlier > 0.04]

    with running(ComparisonGenerator(store, empty, "m")):
        until(lambda: len(pauses()) >= 4)
    gaps = pauses()[:4]
    assert all(gap >= wait for gap, wait in zip(gaps, [0.05, 0.1, 0.2, 0.4], strict=True))


# ---- several outside models


def test_outside_models_meet_each_other_in_turn():
    a, b, c = version(1, "external"), version(2, "external"), version(3, "external")
    assert [pair_of_collectors([a, b, c], i) for i in range(4)] == [(a, b), (a, c), (b, c), (a, b)]
    assert pair_of_collectors([a], 5) == (a, a)


def test_an_outside_model_that_is_down_is_left_out_and_the_others_meet(store, asked, model, monkeypatch):
    monkeypatch.setattr(module, "IDLE_S", 0.05)
    asked("Q1", "Q2")
    three = [policies.ensure_external(store, name) for name in "xyz"]
    down = {three[1].id: "y is down"}
    with running(ComparisonGenerator(store, model, "m", three, refusal_reason=lambda v: down.get(v.id, ""))) as filler:
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
        assert {frozenset(policy.name for policy, _ in batch[:2]) for batch in model.asked} == {frozenset("xz")}
    assert {c.purpose for c in comparisons.many(store, range(1, 25))} == {"versus"}
    down[three[0].id] = "x is down"
    asked("Q3")
    with running(ComparisonGenerator(store, model, "m", three, refusal_reason=lambda v: down.get(v.id, ""))) as filler:
        retire_all(store)
        until(lambda: filler.note == module.NO_ENDPOINT)
        assert not any(name in filler.note for name in ("x ", "y "))


def retire_all(store):
    with store.atomic() as connection:
        connection.conn.execute("UPDATE comparisons SET retired = 1")


def test_an_answer_that_does_not_end_keeps_its_own_comparison_waiting_alone(store, asked):
    endless, _ = asked("Endless", "Short")
    ending = threading.Event()

    def generate(requests, sampling, seed, on_progress=lambda: None):
        if requests[0][1].id == endless.id:
            assert ending.wait(PATIENCE_S)
        return [GeneratedCompletion(f"answer {seed} {i}", "stop", 0.1) for i, _ in enumerate(requests)]

    with running(ComparisonGenerator(store, generate, "m")):
        until(lambda: queue.depth(store) == 1)
        ending.set()
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)


def test_the_queue_is_filled_to_its_target_and_no_further(store, asked, model):
    asked(*(f"Q{i}" for i in range(5)))
    sizes = []

    class Watched(ComparisonGenerator):
        def _timed(self, assignments, *args, **kwargs):
            sizes.append(len(assignments))
            return super()._timed(assignments, *args, **kwargs)

    with running(Watched(store, model, "m")) as filler:
        until(lambda: queue.depth(store) == module.QUEUE_TARGET and not filler.filling)
        assert filler.note == "" and filler.seconds_per_comparison > 0
        calls = len(model.asked)
        time.sleep(0.1)
        assert len(model.asked) == calls
    assert sizes == [2, 4, 8, 8, 2], "the first are there soon"
    assert [len(asked) for asked in model.asked] == [2] * 24, "and each comparison is written by itself"
    usage = comparisons.prompt_usage(store)
    assert sorted(usage.values()) == [4, 5, 5, 5, 5]


# ---- rounds


@pytest.fixture
def tuned(store):
    """A round over the model `m` whose version passed its guards."""
    policies.ensure_base(store, "m")
    runs.create(store, "r1", config={}, seed=0, versions={})
    found = rounds.create(store, "r1", trigger="hand", judges="people", baseline=rounds.current(store, "m"))
    policies.register_tuned(store, name="m-r1", base_model="m", adapter_path="runs/r1/policy", run_id="r1")
    runs.finish(store, "r1", "done")
    rounds.set_guards(store, found.id, "passed")
    return rounds.get(store, found.id)


def decide(store, found, act):
    return rounds.decide(store, found.version, act, decided_by="person", reason="Because.")


def held_out(store, *texts):
    prompts.add(store, [prompts.NewPrompt(user(t), "test", "heldout") for t in texts], source="test")


def in_queue(store):
    """The versions and the purpose of each comparison that waits, oldest first."""
    names = {v.id: v.name for v in policies.all_versions(store)}
    waiting = comparisons.many(store, [row["comparison_id"] for row in store.rows("SELECT comparison_id FROM queue")])
    return [("+".join(sorted(names[c.policy_version_id] for c in one.completions)), one.purpose) for one in waiting]


def test_while_a_round_is_open_a_share_of_the_queue_decides_it(store, asked, model, tuned):
    asked("Q1", "Q2"), held_out(store, "H1", "H2")
    with running(ComparisonGenerator(store, model, "m", rng=random.Random(1))):
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
    waiting = in_queue(store)
    assert {*waiting} == {("m+m", "collect"), ("m+m-r1", "decide")}
    assert 6 <= waiting.count(("m+m-r1", "decide")) <= 18
    assert store.value("SELECT count(*) FROM comparisons WHERE round_id = ?", [tuned.id]) == waiting.count(("m+m-r1", "decide"))
    kinds = [purpose for _, purpose in waiting]
    assert kinds != sorted(kinds), "among the others, and not in a row"


def test_a_decision_changes_the_queue_at_once(store, asked, model, tuned):
    asked("Q1", "Q2"), held_out(store, "H1")
    with running(ComparisonGenerator(store, model, "m", rng=random.Random(1))):
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
        decide(store, tuned, "promoted")
        until(lambda: queue.depth(store) == module.QUEUE_TARGET and ("m-r1+m-r1", "collect") in in_queue(store), 10)
        assert ("m+m-r1", "decide") not in in_queue(store)
        rounds.roll_back(store, "m", reason="It swears.")
        until(lambda: queue.depth(store) == module.QUEUE_TARGET, 10)
        assert {*in_queue(store)} == {("m+m", "collect")}


def test_the_promoted_policy_meets_the_base_in_a_declared_share(store, asked, model, tuned):
    asked("Q1", "Q2")
    settings.change(store, ProjectSettings(base_share=0.4), by=None)
    decide(store, tuned, "promoted")
    with running(ComparisonGenerator(store, model, "m", rng=random.Random(1))):
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
    waiting = in_queue(store)
    assert {*waiting} == {("m-r1+m-r1", "collect"), ("m+m-r1", "versus")}
    assert 4 <= waiting.count(("m+m-r1", "versus")) <= 15


def test_a_version_that_failed_its_guards_is_shown_to_nobody(store, asked, model, tuned):
    asked("Q1"), held_out(store, "H1")
    decide(store, tuned, "rejected")
    with running(ComparisonGenerator(store, model, "m", rng=random.Random(1))):
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
    assert {*in_queue(store)} == {("m+m", "collect")}


def test_answers_that_a_decision_overtakes_are_thrown_away(store, asked, tuned):
    asked("Q1"), held_out(store, "H1")
    began = []

    def overtaken(asked, sampling, seed, on_progress):
        if not began:
            began.append(decide(store, tuned, "rejected"))
        return [GeneratedCompletion(f"answer {n} {seed}", "stop", 0.1) for n, _ in enumerate(asked)]

    with running(ComparisonGenerator(store, overtaken, "m", rng=random.Random(1))):
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
    assert "m+m-r1" not in {versions for versions, _ in in_queue(store)}


def test_a_batch_that_is_being_generated_is_broken_off_by_a_decision(store, asked, tuned, monkeypatch):
    monkeypatch.setattr(module, "FOLLOW_S", 0.0)
    asked("Q1")
    broken_off = []

    def slow(asked, sampling, seed, on_progress):
        if not broken_off:
            decide(store, tuned, "promoted")
            broken_off.append(True)
            on_progress()
            raise AssertionError("the tick ends it")
        return [GeneratedCompletion(f"answer {n} {seed}", "stop", 0.1) for n, _ in enumerate(asked)]

    with running(ComparisonGenerator(store, slow, "m", rng=random.Random(1))) as filler:
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
        assert filler.note == ""
    assert {versions for versions, _ in in_queue(store)} <= {"m-r1+m-r1", "m+m-r1"}


def test_a_current_policy_that_cannot_answer_leaves_the_base_and_decides_nothing(store, asked, model, tuned, monkeypatch):
    asked("Q1"), held_out(store, "H1")
    decide(store, tuned, "promoted")
    with running(ComparisonGenerator(store, model, "m", refusal_reason=lambda v: "m-r1 is gone" * (v.id == tuned.version.id))) as filler:
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
        assert filler.note == module.NO_ADAPTER and "m-r1" not in filler.note
    assert {*in_queue(store)} == {("m+m", "collect")}


def test_a_batch_of_a_version_that_was_rejected_rests(store, asked, model, ask, tuned):
    asked("Q1")
    decide(store, tuned, "rejected")
    batch = ask([tuned.version], count=2)
    with running(ComparisonGenerator(store, model, "m")) as filler:
        until(lambda: batch.id in filler.batch_notes)
        assert filler.batch_notes[batch.id].startswith("m-r1: rejected or rolled back")


def test_outside_models_fill_the_queue_and_rounds_are_decided_among_them(store, asked, model, tuned):
    asked("Q1"), held_out(store, "H1")
    outside = [policies.ensure_external(store, name) for name in "xy"]
    with running(ComparisonGenerator(store, model, "m", outside, rng=random.Random(1))):
        until(lambda: queue.depth(store) == module.QUEUE_TARGET)
    assert {*in_queue(store)} == {("x+y", "versus"), ("m+m-r1", "decide")}


def test_no_prompts_are_said_and_prompts_that_come_are_taken(store, asked, model):
    with running(ComparisonGenerator(store, model, "m")) as filler:
        until(lambda: filler.note)
        assert filler.note == "There are no prompts yet: import some."
        asked("Q")
        until(lambda: queue.depth(store) == module.QUEUE_TARGET and filler.note == "")


def test_failures_are_told_and_do_not_end_the_filling(store, asked, model, caplog, monkeypatch):
    monkeypatch.setattr(module, "FIRST_BATCH_SIZE", 1)
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
    stubborn = [f"Say {i}" for i in range(module.MAX_BATCH_SIZE + 2)]
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
        assert stopping.wait(PATIENCE_S)
        on_progress()
        raise AssertionError("the tick ends it")

    with running(ComparisonGenerator(store, generate, "m")) as filler:
        assert began.wait(PATIENCE_S)
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
    assert all(c.sampling == asdict(batch.sampling) for w in written for c in w.completions)
    assert {w.purpose for w in written} == {"batch"}
    assert {row[0] for row in store.rows("SELECT priority FROM comparisons WHERE batch_id IS NOT NULL")} == {2}
    assert {row[0] for row in store.rows("SELECT priority FROM comparisons WHERE batch_id IS NULL")} == {0}


def test_a_batch_takes_its_own_prompts_and_as_many_judgments_as_it_wants(store, asked, model, versions):
    asked("Q1", "Q2")
    chosen, nobody = PromptFilter("q2"), PromptFilter(kind="nothing")
    batch = batches.request(store, [versions[0].id], completions=2, sampling=COLLECTING, count=3, prompts=chosen, wanted=4, by=None)
    stuck = batches.request(store, [versions[0].id], completions=2, sampling=COLLECTING, count=3, prompts=nobody, priority=1, by=None)
    with running(ComparisonGenerator(store, model, "m")) as filler:
        until(lambda: batches.get(store, batch.id).generated == 3)
        assert filler.batch_notes == {stuck.id: module.NO_CHOSEN_PROMPTS}
        assert filler.seconds_per_answer is not None and filler.seconds_per_comparison is not None
        assert filler.seconds_per_answer <= filler.seconds_per_comparison
    assert {comparison.prompt.text for comparison in of_batch(store, batch)} == {"Q2"}
    assert {row[0] for row in store.rows("SELECT wanted FROM comparisons WHERE batch_id = ?", [batch.id])} == {4}


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
    assert write_comparisons(store, model, [(prompt, base, other, base, other)], sampling=batch.sampling, seed=5, batch=batch).stored == 1
    # The second and the fourth; then the fourth alone, which had said what the second says now.
    assert model.asked == [(["m", "x", "m", "x"], 5), (["x", "x"], 6), (["x"], 7)]
    assert sorted(c.text for c in of_batch(store, batch)[0].completions) == ["a", "b", "c", "d"]


def test_a_comparison_does_without_what_stays_repeated_but_has_two_answers(store, asked, ask):
    one, two = asked("one", "two")
    batch = ask(answers=3, count=2)
    base = policies.all_versions(store)[0]
    model = saying("a", "b", "b", "c", "c", "c", *"bcc", *"bcc")
    chosen = [(one, base, base, base), (two, base, base, base)]
    assert write_comparisons(store, model, chosen, sampling=batch.sampling, seed=0, batch=batch) == (1, [two], [])
    assert [[c.text for c in w.completions] for w in of_batch(store, batch)] == [["a", "b"]]
    assert batches.get(store, batch.id).generated == 1
    assert store.value("SELECT count(*) FROM completions") == 2


def test_answers_that_cannot_come_out_otherwise_are_not_drawn_anew(store, asked, ask):
    prompt = asked("Q")[0]
    batch = ask(answers=3, temperature=0.0)
    base, other = policies.all_versions(store)
    model = saying("a", "b", "a")
    assert write_comparisons(store, model, [(prompt, base, other, base)], sampling=batch.sampling, seed=0, batch=batch).stored == 1
    assert len(model.asked) == 1


def test_what_was_cancelled_while_it_was_written_is_thrown_away(store, asked, ask, versions):
    prompt = asked("Q")[0]
    batch = ask()

    def generate(asked, sampling, seed, on_progress):
        batches.cancel(store, batch.id)
        return [GeneratedCompletion("a", "stop", 0.1), GeneratedCompletion("b", "stop", 0.1)]

    assert write_comparisons(store, generate, [(prompt, *versions)], sampling=batch.sampling, seed=0, batch=batch) == (0, [], [])
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
    drawn = route_by_version({other.id: there}, here)([(base, prompt), (other, prompt), (base, prompt)], COLLECTING, 7)
    assert [d.text for d in drawn] == ["h1", "t1", "h2"]
    assert here.asked == [(["m", "m"], 7)] and there.asked == [(["x"], 9)], "a seed of its own after those of the two answers from here"
