"""Steps with fixed shapes sample what the plain path does, captured or not, with a fixed number of operations and few looks of the host."""

import architectures
import pytest
import torch
from learning import scramble
from op_tape import OpTape
from tiny import favour
from torch.testing import assert_close

from rlhf.config import AdapterConfig
from rlhf.generation.engine import STATIC, GenerationEngine, requests_for
from rlhf.generation.recording import RolloutRecorder
from rlhf.generation.request import GenerationRequest, LogitAdjustments, RequestCancelled
from rlhf.generation.static_decode import (
    STOP_TOKENS,
    SYNC_STEPS,
    StaticLane,
    batch_bucket,
    is_static,
    static_refusal,
    width_bucket,
)
from rlhf.models.operations import OperationCount
from storage.core.records import Sampling

PROMPTS = [tuple(range(5, 14)), (20, 21), (30,) * 15, (20, 21)]
SAMPLINGS = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.0),
    Sampling(temperature=0.7, top_k=5),
    Sampling(temperature=1.3, top_p=0.6),
    Sampling(temperature=0.9, top_k=40, top_p=0.8),
]


def request(prompt=(5, 6), *, new_tokens=12, sampling=Sampling(), **fields):
    wanted = Sampling(temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k, max_new_tokens=new_tokens)
    return GenerationRequest(tuple(prompt), wanted, **fields)


def alone(backbone, asked):
    """Each request's tokens by the plain path, computed by itself."""
    return [GenerationEngine(backbone, static=False).run([one])[0].ids for one in asked]


@pytest.fixture
def many(backbone):
    """The base with plain LoRA adapters, one of them in the last layer alone, and two of kinds that are not decoded with fixed shapes."""
    for name, config in (
        ("one", AdapterConfig(rank=4)),
        ("two", AdapterConfig(rank=8, top_layers=1)),
        ("dora", AdapterConfig(kind="dora", rank=4)),
        ("prompt", AdapterConfig(kind="prompt", virtual_tokens=3)),
    ):
        backbone.add_adapter(name, config, seed=3)
        scramble(backbone, name, scale=0.3)
    return backbone


@pytest.mark.parametrize(
    "adapters, graphs",
    [((None,), OpTape), (("one",), OpTape), ((None, "one", "two"), None), ((None, "one", "two", "dora", "prompt"), OpTape)],
)
def test_every_request_gets_the_tokens_that_the_plain_path_gives_it_alone(many, adapters, graphs):
    """Rows of all kinds, of many lengths, which join, end and are moved: five places for fifteen requests."""
    favour(many, many.eos_id, 2.0)
    asked = [
        request(PROMPTS[i % 4], seed=i, adapter=adapters[i % len(adapters)], new_tokens=1 + (11 * i) % 29, sampling=SAMPLINGS[i % 5])
        for i in range(15)
    ]
    captured = graphs and graphs()
    answers = GenerationEngine(many, max_rows=5, static=True, graphs=captured).run(asked)
    assert [answer.ids for answer in answers] == alone(many, asked)
    assert len({len(answer.ids) for answer in answers}) > 6 and {answer.finish_reason for answer in answers} == {"stop", "length"}
    if captured:
        assert captured.replays > captured.captures > 0


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "gemma3_text", "mistral", "opt", "qwen2", "phi3", "cohere", "qwen3_moe"])
def test_other_architectures_sample_what_the_plain_path_does(name, monkeypatch):
    """With learned positions, sliding windows of 4 tokens, capped logits, an offset, layers beside each other, and a mixture of experts."""
    if name in ("gemma2", "gemma3_text", "mistral"):
        monkeypatch.setitem(architectures.ARCHITECTURES, name, {**architectures.ARCHITECTURES[name], "sliding_window": 4})
    model = architectures.backbone(name)
    assert not static_refusal(model)
    asked = [request(prompt, seed=i, new_tokens=9 + 4 * i, sampling=SAMPLINGS[i]) for i, prompt in enumerate(PROMPTS)]
    answers = GenerationEngine(model, max_rows=3, static=True, graphs=OpTape()).run(asked)
    assert [answer.ids for answer in answers] == alone(model, asked)


@pytest.mark.parametrize("adapter, graphs", [(None, None), ("policy", OpTape)])
def test_what_a_rollout_records_is_what_the_plain_path_records(backbone, adapter, graphs):
    if adapter is not None:
        backbone.add_adapter(adapter, AdapterConfig(rank=4, top_layers=1), seed=0)
        scramble(backbone, adapter, scale=0.3)
    favour(backbone, backbone.eos_id, 2.5)
    prompts = [PROMPTS[i % 4] for i in range(9)]
    requests = requests_for(prompts, Sampling(temperature=0.7, max_new_tokens=23), 3, adapter=adapter)
    recorders, answers = [], []
    for static in (False, True):
        recorders.append(RolloutRecorder(backbone, [len(prompt) for prompt in prompts], 23, (1,)))
        engine = GenerationEngine(backbone, static=static, graphs=graphs and graphs())
        answers.append(engine.run(requests, recorder=recorders[-1]))
    assert answers[0] == answers[1] and {answer.finish_reason for answer in answers[0]} == {"stop", "length"}
    plain, static = recorders
    assert plain.width == static.width
    for row, answer in enumerate(answers[0]):
        length = len(answer.ids)
        for name, atol in (("logprobs", 1e-5), ("entropy", 1e-5), ("hidden", 3e-5)):
            assert_close(getattr(static, name)[row, :length], getattr(plain, name)[row, :length], atol=atol, rtol=1e-5)
        # Prompt, answer and the end token after it.
        ended = length if answer.finish_reason == "stop" else length + 1
        columns = slice(max(map(len, prompts)) - len(prompts[row]), max(map(len, prompts)) + ended)
        assert_close(static.cached(1).hidden[row, columns], plain.cached(1).hidden[row, columns], atol=1e-5, rtol=1e-5)


def test_memory_and_captured_steps_serve_other_adapters_and_trained_ones(many):
    """A second run, with weights that were trained, and a third, with another adapter: nothing is allocated or captured again."""
    favour(many, many.eos_id, -100.0)
    tape = OpTape()
    engine = GenerationEngine(many, static=True, graphs=tape)
    asked = [request(prompt, seed=i, adapter="one", new_tokens=30) for i, prompt in enumerate(PROMPTS)]
    engine.run(asked)
    lane, captures = engine._lanes[STATIC], tape.captures
    place = lane.slots.layers[0].keys.data_ptr()
    scramble(many, "one", seed=9, scale=0.5)
    assert [answer.ids for answer in engine.run(asked)] == alone(many, asked)
    other = [request(prompt, seed=i, adapter="two", new_tokens=30) for i, prompt in enumerate(PROMPTS)]
    assert [answer.ids for answer in engine.run(other)] == alone(many, other)
    assert engine._lanes[STATIC] is lane and tape.captures == captures
    assert lane.slots.layers[0].keys.data_ptr() == place


def test_a_step_that_cannot_be_captured_runs_uncaptured_with_one_warning(many, caplog):
    class Broken(OpTape):
        def capture(self, step):
            raise RuntimeError("not permitted while a stream is capturing")

    asked = [request(prompt, seed=i, new_tokens=30) for i, prompt in enumerate(PROMPTS)]
    answers = GenerationEngine(many, static=True, graphs=Broken()).run(asked)
    assert [answer.ids for answer in answers] == alone(many, asked)
    assert [record.message for record in caplog.records] == [
        "decode steps run uncaptured, and slower: one could not be captured (RuntimeError: not permitted while a stream is capturing)"
    ]


def test_streams_get_tokens_in_groups_and_none_after_the_end(many):
    (plain,) = alone(many, [request(new_tokens=30, seed=4)])
    stop = plain[12]
    engine = GenerationEngine(many, static=True)
    stream = engine.submit(request(new_tokens=30, seed=4, stop_token_ids=frozenset({stop})))
    delivered, ended = [], False
    while not ended:
        before = stream._outputs.qsize()
        engine.step()
        delivered.append(stream._outputs.qsize() - before)
        ended = not engine._busy()
    expected = plain[: plain.index(stop) + 1]
    # The first token comes from the prompt; then as many as are sampled between two looks.
    rest = len(expected) - 1
    groups = [SYNC_STEPS] * (rest // SYNC_STEPS) + [rest % SYNC_STEPS] * bool(rest % SYNC_STEPS)
    assert delivered == [1, *groups]
    outputs = list(stream)
    assert [output.id for output in outputs] == expected
    assert [output.finish_reason for output in outputs] == [None] * (len(expected) - 1) + ["stop"]


def test_a_client_that_leaves_frees_its_place_within_a_group(many):
    favour(many, many.eos_id, -100.0)
    engine = GenerationEngine(many, max_rows=2, static=True)
    streams = [engine.submit(request(new_tokens=400, seed=i)) for i in range(2)]
    engine.step()
    waiting = engine.submit(request(new_tokens=2))
    streams[0].cancel()
    engine.step()
    assert engine.load() == (0, 2)
    with pytest.raises(RequestCancelled):
        list(streams[0])
    while waiting._outputs.qsize() < 2:
        engine.step()
    assert len(list(waiting)) == 2


def test_what_is_decoded_with_fixed_shapes(many):
    """By `is_static` alone: plain LoRA and the base, without adjustments or log-probabilities, with few ends."""
    assert is_static(many, request()) and is_static(many, request(adapter="one")) and is_static(many, request(sampling=SAMPLINGS[4]))
    assert not is_static(many, request(adapter="dora")) and not is_static(many, request(adapter="prompt"))
    assert not is_static(many, request(logprobs=0)) and not is_static(many, request(adjustments=LogitAdjustments(bias={5: 1.0})))
    ends = range(300, 300 + STOP_TOKENS - len(many.eos_token_ids))
    assert is_static(many, request(stop_token_ids=frozenset(ends)))
    assert not is_static(many, request(stop_token_ids=frozenset({*ends, 400})))


def test_other_requests_go_the_plain_way_beside_those(many):
    asked = [
        request(seed=1),
        request(seed=2, logprobs=2),
        request(seed=3, adjustments=LogitAdjustments(presence_penalty=2.0)),
        request(seed=4, adapter="dora"),
        request(seed=5, adapter="one"),
    ]
    engine = GenerationEngine(many, static=True)
    streams = [engine.submit(one) for one in asked]
    while engine._busy() or engine._queue:
        engine.step()
    assert isinstance(engine._lanes[STATIC], StaticLane) and {None, "dora"} < set(engine._lanes)
    found = [list(stream) for stream in streams]
    assert [[output.id for output in outputs] for outputs in found] == alone(many, asked)
    assert all(len(output.top_logprobs) == 2 for output in found[1])


@pytest.mark.parametrize(
    "name, reason",
    [
        ("mamba", "its rows cannot stand in slots"),
        ("bloom", "its rows cannot stand in slots"),
        ("falcon", "its forward pass asks the host for a number (aten::lift_fresh)"),
    ],
)
def test_a_model_that_cannot_have_fixed_shapes_is_decoded_the_plain_way(name, reason, caplog):
    model = architectures.backbone(name)
    assert reason in static_refusal(model)
    asked = [request(prompt, seed=i) for i, prompt in enumerate(PROMPTS)]
    engine = GenerationEngine(model, static=True)
    assert [answer.ids for answer in engine.run(asked)] == alone(model, asked)
    warnings = [record.message for record in caplog.records if record.name.startswith("rankloop")]
    assert warnings == [f"decode steps have no fixed shapes, and are slower: {static_refusal(model)}"]


def test_sizes_of_batches_and_widths():
    assert [batch_bucket(n) for n in (1, 2, 3, 5, 8, 9, 32, 33, 49, 64, 65)] == [1, 2, 4, 8, 8, 16, 32, 48, 64, 64, 80]
    assert [width_bucket(n) for n in (1, 64, 65, 128, 129, 500, 513)] == [64, 64, 128, 128, 256, 512, 1024]


def test_room_is_taken_once_for_as_many_rows_as_the_budget_holds(backbone):
    lane = StaticLane(backbone, max_rows=64, kv_columns=2048)
    lane.reserve(1, 40)
    assert (lane.slots.rows, lane.slots.columns) == (32, 64)
    lane.reserve(3, 100)
    assert (lane.slots.rows, lane.slots.columns) == (16, 128)
    # One row may need more than the budget; that is given back when nothing is left.
    lane.reserve(1, 5000)
    assert (lane.slots.rows, lane.slots.columns) == (1, 8192)
    lane.clear()
    lane.reserve(1, 40)
    assert (lane.slots.rows, lane.slots.columns) == (32, 64)


def lane_of(backbone, names):
    """A lane with a row for each name, and the shape of its step."""
    engine = GenerationEngine(backbone, static=True)
    assert not static_refusal(backbone)
    for i, name in enumerate(names):
        engine.submit(request(seed=i, adapter=name, new_tokens=40))
    while STATIC not in engine._lanes or len(engine._lanes[STATIC].rows) < len(names):
        engine.step()
    lane = engine._lanes[STATIC]
    lane.decode_group()
    return lane, lane._shape(20)


def operations(lane, shape):
    lane.buffers.tick.zero_()
    with torch.no_grad(), OperationCount() as count:
        lane.step(shape)
    return count


def test_a_step_takes_a_fixed_number_of_operations_and_no_look_of_the_host(many):
    """Whatever the mixture of adapters. On an accelerator each operation is a kernel at least; the bounds are what they are now."""
    favour(many, many.eos_id, -100.0)
    base = operations(*lane_of(many, [None] * 4))
    one = operations(*lane_of(many, ["one"] * 4))
    mixtures = [operations(*lane_of(many, names)) for names in ([None, "one", "one", "one"], ["one", "two", None, "two"])]
    for count in (base, one, *mixtures):
        assert not count.host_reads
    assert mixtures[0].operations == mixtures[1].operations
    # Two layers of seven linear maps: two more products for each, and with several adapters a mask for each.
    assert base.total <= 189 and one.total <= base.total + 28 and mixtures[0].total <= one.total + 16


def test_the_host_looks_at_the_tokens_every_few_steps(many):
    """Looks of the host for each token, with those of the prompt, of its first token and of the state of rows that join."""
    favour(many, many.eos_id, -100.0)
    engine = GenerationEngine(many, static=True)
    asked = [request(PROMPTS[i % 4], seed=i, new_tokens=1 + 8 * SYNC_STEPS) for i in range(4)]
    engine.run(asked)
    with OperationCount() as count:
        engine.run(asked)
    assert count.host_reads["tolist"] == 1 + 8, "the first tokens, and eight groups"
    assert count.host_reads.total() <= 28, "for 260 tokens"
