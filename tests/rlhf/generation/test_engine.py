"""Continuous batching: whatever else is computed, each request gets the tokens that it gets alone."""

import threading
import time
from itertools import pairwise

import architectures
import pytest
import torch
from learning import scramble
from scipy import stats
from tiny import favour

from rlhf.config import AdapterConfig
from rlhf.generation import engine as engine_module
from rlhf.generation.engine import GenerationEngine, requests_for, sample
from rlhf.generation.request import ClientBusy, EngineBusy, EngineClosed, GenerationRequest, LogitAdjustments, RequestCancelled
from rlhf.generation.sampling import sample_token, uniforms
from rlhf.models.lengths import PromptTooLong
from rlhf.models.padding import positions
from rlhf.runs.work import Work
from storage.core.records import Sampling

PROMPTS = [tuple(range(5, 14)), (20, 21), (30,) * 15, (20, 21)]


def request(prompt=(5, 6), *, new_tokens=12, temperature=1.0, **fields):
    return GenerationRequest(tuple(prompt), Sampling(temperature=temperature, max_new_tokens=new_tokens), **fields)


def token_by_token(backbone, asked):
    """The request's tokens by a whole forward pass over the row for each of them, without any cache."""
    ids, answer = list(asked.prompt_ids), []
    while len(answer) < asked.sampling.max_new_tokens and not {*answer[-1:]} & {*backbone.eos_token_ids}:
        row = torch.tensor([ids])
        mask = torch.ones_like(row, dtype=torch.bool)
        with torch.no_grad():
            hidden = backbone.decoder.forward(row, mask, positions=positions(mask), adapter=asked.adapter)[:, -1]
            token, _ = sample_token(
                backbone.logits(hidden), asked.sampling, uniforms(torch.tensor([asked.seed]), torch.tensor([len(answer)]))
            )
        ids.append(int(token))
        answer.append(int(token))
    return answer


@pytest.fixture
def many(backbone):
    """The base with adapters: two plain ones of LoRA, and two that cannot be given to some rows of a batch."""
    for name, config in (
        ("one", AdapterConfig(rank=4)),
        ("two", AdapterConfig(rank=8, top_layers=1)),
        ("dora", AdapterConfig(kind="dora", rank=4)),
        ("prompt", AdapterConfig(kind="prompt", virtual_tokens=3)),
    ):
        backbone.add_adapter(name, config, seed=3)
        scramble(backbone, name, scale=0.3)
    return backbone


@pytest.fixture
def running(backbone):
    # No end token is sampled, so that each answer has all its tokens.
    favour(backbone, backbone.eos_id, -100.0)
    made = GenerationEngine(backbone, max_rows=10, max_queued=4, max_per_client=3)
    made.start()
    yield made
    made.close()


def test_rows_of_all_adapters_side_by_side_are_what_each_is_alone(many):
    asked = [
        request(prompt, seed=i, adapter=adapter)
        for i, (prompt, adapter) in enumerate((p, a) for p in PROMPTS for a in (None, "one", "two", "dora", "prompt"))
    ]
    answers = GenerationEngine(many).run(asked)
    assert [answer.ids for answer in answers] == [token_by_token(many, one) for one in asked]
    assert len({tuple(answer.ids) for answer in answers}) == len(asked)
    assert many.is_routable("one") and many.is_routable("two") and not many.is_routable("dora") and not many.is_routable("prompt")


def test_rows_that_join_and_leave_change_nothing(many, monkeypatch):
    """Places for 3 rows, chunks of 4 tokens, answers of many lengths: rows wait, are read in parts, join, end and are moved."""
    monkeypatch.setattr(engine_module, "CHUNK_TOKENS", 4)
    monkeypatch.setattr(engine_module, "CHUNK_TOKENS_ALONE", 6)
    asked = [request(PROMPTS[i % 4], seed=i, adapter=(None, "one", "two")[i % 3], new_tokens=1 + (7 * i) % 11) for i in range(16)]
    answers = GenerationEngine(many, max_rows=3).run(asked)
    assert [answer.ids for answer in answers] == [token_by_token(many, one) for one in asked]


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "mistral", "mamba", "bloom", "opt"])
def test_other_architectures_generate_what_whole_passes_do(name, monkeypatch):
    """With learned positions, sliding windows of 4 tokens, a state beside keys and values, biases by distance, and an offset."""
    if name in ("gemma2", "mistral"):
        monkeypatch.setitem(architectures.ARCHITECTURES, name, {**architectures.ARCHITECTURES[name], "sliding_window": 4})
    model = architectures.backbone(name)
    assert model.decoder.supports_slots == (name not in ("mamba", "bloom"))
    asked = [request(prompt, seed=i, new_tokens=3 + 4 * i, temperature=0) for i, prompt in enumerate(PROMPTS)]
    answers = GenerationEngine(model, max_rows=3).run(asked)
    assert [answer.ids for answer in answers] == [token_by_token(model, one) for one in asked]


def test_equal_prompts_are_read_once(backbone):
    read = []
    backbone.decoder.layers[0].register_forward_hook(lambda _, given, out: read.append(tuple(given[0].shape[:2])))
    sample(backbone, [(5, 6, 7)] * 5 + [(8, 9, 10)], Sampling(max_new_tokens=2), 0, adapter=None)
    assert read == [(2, 3), (6, 1)]


def test_rows_that_have_ended_are_passed_no_further(backbone):
    favour(backbone, backbone.eos_id, 4.0)
    passed = []
    backbone.decoder.layers[0].register_forward_hook(lambda _, given, out: passed.append(len(given[0])))
    answers = sample(backbone, [[5, 6, 7]] * 64, Sampling(max_new_tokens=12), 1, adapter=None)
    lengths = [len(answer.ids) for answer in answers]
    # The prompt once, then at each position the rows that have a token after it.
    assert passed == [1, *(n for n in (sum(length > place for length in lengths) for place in range(1, 12)) if n)]


def test_a_long_prompt_does_not_stop_other_rows(running, monkeypatch):
    monkeypatch.setattr(engine_module, "CHUNK_TOKENS", 16)
    first = running.submit(request(new_tokens=400, seed=1))
    tokens = iter(first)
    next(tokens)
    widths = []
    running.call(lambda: running.backbone.decoder.layers[0].register_forward_hook(lambda _, given, out: widths.append(given[0].shape[1])))
    assert len(list(running.submit(request((9,) * 100, new_tokens=2)))) == 2
    # 100 tokens are seven chunks of 16, and the row that runs gets a token between every two of them.
    chunks = [i for i, width in enumerate(widths) if width > 1]
    assert len(chunks) == 7 and all(1 in widths[a:b] for a, b in pairwise(chunks))
    first.cancel()


def test_under_load_the_distribution_is_the_same(running, monkeypatch):
    """The first token of one prompt, in a batch that others join and leave, against the model's own distribution."""
    monkeypatch.setattr(engine_module, "FOR_CHATS", 2)
    prompt = (5, 6, 7, 8)
    row = torch.tensor([prompt])
    mask = torch.ones_like(row, dtype=torch.bool)
    with torch.no_grad():
        p = running.backbone.logits(running.backbone.decoder.forward(row, mask, positions=positions(mask), adapter=None)[:, -1])
    p = p[0].double().softmax(-1)
    streams = [running.submit(request(prompt, new_tokens=1 + seed % 3, seed=seed), background=True) for seed in range(1200)]
    first = [next(iter(stream)).id for stream in streams]
    counts = torch.tensor(first).bincount(minlength=len(p)).double()
    common = p * len(first) >= 5
    observed, expected = ([*c[common].tolist(), float(c[~common].sum())] for c in (counts, p * len(first)))
    assert common.sum() > 10 and stats.chisquare(observed, expected).pvalue > 0.001
    # And each is the token that the request gets alone.
    assert first[:5] == [token_by_token(running.backbone, request(prompt, new_tokens=1, seed=seed))[0] for seed in range(5)]


def test_a_client_that_leaves_frees_its_place_within_a_step(running):
    streams = [running.submit(request(new_tokens=400, seed=i)) for i in range(10)]
    for stream in streams:
        next(iter(stream))
    waiting = running.submit(request(new_tokens=2))
    assert running.load() == (1, 10)
    streams[3].cancel()
    assert len(list(waiting)) == 2
    with pytest.raises(RequestCancelled):
        list(streams[3])
    for stream in streams:
        stream.cancel()


def test_a_full_queue_and_a_greedy_client_are_refused(running):
    open_streams = [running.submit(request(new_tokens=400, seed=i)) for i in range(10)]
    for stream in open_streams:
        next(iter(stream))
    open_streams += [running.submit(request(new_tokens=400)) for _ in range(4)]
    with pytest.raises(EngineBusy, match=r"10 answers are computed and 4 wait: try again in 5 s"):
        running.submit(request())
    # Nobody waits for the queue's completions, so they are never one too many.
    open_streams.append(running.submit(request(), background=True))
    for stream in open_streams:
        stream.cancel()
    mine = [running.submit(request(new_tokens=400), client="a") for _ in range(3)]
    with pytest.raises(ClientBusy, match="3 requests of this client"):
        running.submit(request(), client="a")
    assert len(list(running.submit(request(new_tokens=2), client="b"))) == 2
    mine.pop().cancel()
    mine.append(running.submit(request(new_tokens=400), client="a"))
    for stream in mine:
        stream.cancel()


def test_background_requests_leave_room_and_are_not_starved(running, monkeypatch):
    """8 of 10 places are for others; behind others a request waits as long as it is young, and goes by its age after that."""
    background = [running.submit(request(new_tokens=400, seed=i), background=True) for i in range(5)]
    for stream in background[:2]:
        next(iter(stream))
    assert running.load() == (3, 2)
    assert len(list(running.submit(request(new_tokens=2)))) == 2
    for stream in background:
        stream.cancel()
    monkeypatch.setattr(engine_module, "BACKGROUND_WAIT_S", 0.0)
    monkeypatch.setattr(engine_module, "FOR_CHATS", 0)
    chats = [running.submit(request(new_tokens=400, seed=i)) for i in range(10)]
    for stream in chats:
        next(iter(stream))
    old = running.submit(request(new_tokens=2), background=True)
    young = [running.submit(request(new_tokens=400)) for _ in range(4)]
    chats[0].cancel()
    assert len(list(old)) == 2
    for stream in (*chats, *young):
        stream.cancel()


def test_an_error_ends_the_requests_that_it_is_of_and_no_others(many):
    favour(many, many.eos_id, -100.0)
    engine = GenerationEngine(many)
    engine.start()
    try:
        healthy = engine.submit(request(new_tokens=300, seed=1))
        ill = engine.submit(request(new_tokens=300, seed=2, adapter="dora"))
        next(iter(healthy)), next(iter(ill))

        lane = engine._lanes["dora"]
        decode, reading = lane.decode, []

        def broken():
            # A long prompt is being read when the error comes; its answer is not lost with the others.
            lane.decode = decode
            reading.append(engine.submit(request((9,) * 300, new_tokens=3, adapter="dora")))
            engine._admit()
            raise ValueError("a broken layer")

        engine.call(lambda: setattr(lane, "decode", broken))
        with pytest.raises(ValueError, match="a broken layer"):
            list(ill)
        assert len(list(reading[0])) == 3
        assert len(list(healthy)) == 299
        assert len(list(engine.submit(request(new_tokens=3, adapter="dora")))) == 3
    finally:
        engine.close()


def test_a_closed_engine_ends_every_stream_and_takes_no_more(running):
    begun, waiting = running.submit(request(new_tokens=400)), [running.submit(request(new_tokens=400), background=True) for _ in range(12)]
    next(iter(begun))
    running.close()
    for stream in (begun, *waiting):
        with pytest.raises(EngineClosed, match="stopping"):
            list(stream)
    with pytest.raises(EngineClosed):
        running.submit(request())


def test_an_idle_engine_takes_no_time(running):
    list(running.submit(request(new_tokens=2)))
    time.sleep(0.1)
    began = time.process_time()
    time.sleep(1.0)
    assert time.process_time() - began < 0.05 and threading.active_count() >= 2


def test_answers_end_with_the_context_and_a_prompt_without_room_is_refused(backbone):
    favour(backbone, backbone.eos_id, -100.0)
    (answer,) = GenerationEngine(backbone).run([request((5,) * 508, new_tokens=99)])
    assert len(answer.ids) == 4 and answer.finish_reason == "length"
    with pytest.raises(PromptTooLong, match="512 tokens leaves no room for an answer in the model's context of 512"):
        GenerationEngine(backbone).submit(request((5,) * 512))


def test_a_request_may_have_ends_penalties_and_log_probabilities_of_its_own(backbone):
    greedy = request(temperature=0, new_tokens=6, logprobs=2)
    with_stop = GenerationEngine(backbone)
    (plain,) = with_stop.run([greedy])
    (ended,) = with_stop.run([request(temperature=0, new_tokens=6, stop_token_ids=frozenset({plain.ids[2]}))])
    assert ended.ids == plain.ids[: plain.ids.index(plain.ids[2]) + 1]
    # A bias of 100 outweighs every logit of the tiny model; a penalty as large keeps each token from coming again.
    (biased,) = with_stop.run([request(temperature=0, new_tokens=3, adjustments=LogitAdjustments(bias={65: 100.0}))])
    assert biased.ids == [65, 65, 65]
    (varied,) = with_stop.run([request(temperature=0, new_tokens=30, adjustments=LogitAdjustments(presence_penalty=100.0))])
    assert len(set(varied.ids)) == len(varied.ids)
    with_stop.start()
    try:
        outputs = list(with_stop.submit(greedy))
    finally:
        with_stop.close()
    assert [output.id for output in outputs] == plain.ids
    for output in outputs:
        assert output.top_logprobs[0] == (output.id, output.logprob) and len(output.top_logprobs) == 2 and output.logprob < 0


def test_the_bar_of_a_batch_ends_with_it(backbone):
    favour(backbone, backbone.eos_id, 4.0)
    reported = []
    bar = Work(reported.append)
    GenerationEngine(backbone).run(requests_for([(5,), (6, 7)] * 4, Sampling(max_new_tokens=9), 0, adapter=None), on_progress=bar)
    assert sum(reported) == pytest.approx(1.0) and len(reported) > 2
