"""Rollouts that a server samples, beside those of the trainer's own engine. The server is rankloop's own, over real HTTP."""

import logging
from dataclasses import replace

import pytest
import tiny
import torch
from rollout_server import ScriptedServer, own_server
from small_ppo import CONFIG, PROMPTS, SAMPLING, everything, scrambled, trainer
from torch.testing import assert_close

from rlhf.generation.engine import GenerationEngine, requests_for
from rlhf.generation.recording import RolloutRecorder
from rlhf.generation.sampling import GeneratedSequence
from rlhf.ppo.remote_rollout import remote_sampler, replay
from rlhf.ppo.rollout import POLICY
from rlhf.runs.work import NO_PROGRESS
from rlhf.serving.rollout_client import RolloutServerError
from storage.core.records import Sampling

BOUND = 1e-5
"""Between two engines in float32 on one processor: log-probabilities in nats, losses and weights."""

SHORT = Sampling(temperature=0.7, max_new_tokens=8)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "rollouts"


@pytest.fixture
def url(store, tiny_folder, folder):
    with own_server(store, tiny_folder, folder) as address:
        yield address


def sampler(ppo, url, folder, run="r1", key=""):
    return remote_sampler(ppo.backbone, url, key, folder, run)


@pytest.mark.parametrize("eos_bias", [0.0, 6.0])
def test_given_tokens_are_recorded_as_the_engine_records_them(tiny_folder, eos_bias):
    """Rows that end by the limit, and rows that mostly end by the end token; both depths of a model of two layers."""
    ppo = scrambled(trainer(tiny_folder))
    backbone = ppo.backbone
    tiny.favour(backbone, backbone.eos_id, eos_bias)
    requests = requests_for(PROMPTS, SHORT, 3, adapter=POLICY)
    recorders = [RolloutRecorder(backbone, [len(p) for p in PROMPTS], 8, (0, 1, 2)) for _ in range(2)]
    sequences = GenerationEngine(backbone).run(requests, recorder=recorders[0])
    assert {s.finish_reason for s in sequences} == ({"length"} if not eos_bias else {"stop"}) or len({len(s.ids) for s in sequences}) > 1
    replay(backbone, recorders[1], requests, [s.ids for s in sequences], adapter=POLICY, batch_size=3)
    engine, given = recorders
    assert given.width == engine.width
    for i, (prompt, sequence) in enumerate(zip(PROMPTS, sequences, strict=True)):
        n = len(sequence.ids)
        for name in ("logprobs", "entropy", "hidden"):
            assert_close(getattr(given, name)[i, :n], getattr(engine, name)[i, :n], atol=BOUND, rtol=1e-4)
        first = engine.longest_prompt - len(prompt)
        read = len(prompt) + n + (sequence.finish_reason == "length")
        for depth in (1, 2):
            one, other = (recorder.cached(depth).hidden[i, first : first + read] for recorder in (given, engine))
            assert_close(one, other, atol=BOUND, rtol=1e-4)


def test_ppo_on_a_servers_rollouts_learns_what_it_learns_on_its_own(tiny_folder, url, folder):
    """The server samples the same tokens from the same seeds. Two steps: the second's adapter is the trained one."""
    alone, served = trainer(tiny_folder), trainer(tiny_folder)
    with sampler(served, url, folder) as sampling:
        served.sampler = sampling
        for _ in range(2):
            expected, found = alone.step(), served.step()
            # The root of a KL that rounds to 0 says nothing; the KL itself is compared.
            del expected["objective/sqrt_kl"], found["objective/sqrt_kl"]
            ours = {name: found.pop(name) for name in [*found] if name.startswith("sampling/")}
            assert found == pytest.approx(expected, rel=1e-4, abs=BOUND) and abs(expected["loss/policy_avg"]) > 100 * BOUND
            assert ours == pytest.approx(
                {
                    "sampling/importance_sampling_ratio/mean": 1.0,
                    "sampling/importance_sampling_truncated": 0.0,
                    "sampling/sampling_logp_difference/mean": 0.0,
                    "sampling/sampling_logp_difference/max": 0.0,
                },
                abs=BOUND,
            )
    before, after = everything(alone), everything(served)
    for name in alone.policy:
        assert_close(after[name], before[name], atol=100 * BOUND, rtol=0)


class OtherEngine:
    """The trainer's own engine, which says that its tokens were this much less likely, in nats."""

    def __init__(self, ppo, by):
        self.ppo, self.by = ppo, by

    def __call__(self, requests, recorder, on_progress=None):
        sequences = GenerationEngine(self.ppo.backbone).run(requests, recorder=recorder)
        logprobs = [(recorder.logprobs[i, : len(s.ids)] - self.by).tolist() for i, s in enumerate(sequences)]
        return [GeneratedSequence(s.ids, s.finish_reason) for s in sequences], logprobs


@pytest.mark.parametrize(
    "by, weight, truncated",
    # ln 2: a token twice as likely here. ln 10 is beyond the limit of 3.
    [(0.6931472, 2.0, 0.0), (2.3025851, 3.0, 1.0), (-0.6931472, 0.5, 0.0)],
)
def test_a_token_that_the_other_engine_finds_unlikely_weighs_more_up_to_the_limit(tiny_folder, by, weight, truncated):
    config = replace(CONFIG, value_coef=0.0, importance_sampling_clip_max=3.0)
    ppo = scrambled(trainer(tiny_folder, config))
    gradients = []
    for shift in (0.0, by):
        ppo.sampler = OtherEngine(ppo, shift)
        rollout, _, metrics = ppo.experience(NO_PROGRESS)
        advantages = torch.randn(rollout.mask.shape, generator=torch.Generator().manual_seed(3))
        ppo.optimizer.zero_grad(set_to_none=True)
        figures = ppo.add_gradients(rollout, advantages, advantages, torch.arange(8))
        gradients.append(({n: p.grad.clone() for n, p in ppo.policy.items() if p.grad is not None}, float(figures["loss/policy_avg"])))
    (plain, loss), (weighted, weighted_loss) = gradients
    assert plain and weighted_loss == pytest.approx(weight * loss, rel=1e-5)
    for name, gradient in plain.items():
        assert_close(weighted[name], weight * gradient, rtol=1e-4, atol=1e-6)
    # The mean is that of the ratios before the limit.
    ratio = {"mean": metrics["sampling/importance_sampling_ratio/mean"], "truncated": metrics["sampling/importance_sampling_truncated"]}
    assert ratio == pytest.approx({"mean": torch.tensor(by).exp().item(), "truncated": truncated}, rel=1e-5)
    assert metrics["sampling/sampling_logp_difference/max"] == pytest.approx(abs(by), rel=1e-5)


def test_the_base_is_compared_first_and_the_largest_difference_is_said(tiny_folder, url, folder, caplog):
    ppo = scrambled(trainer(tiny_folder))
    with caplog.at_level(logging.INFO, "rankloop.rollouts"), sampler(ppo, url, folder) as sampling:
        found = sampling.check(PROMPTS, SHORT)
    assert (found.tokens, found.largest, found.mean) == pytest.approx((8, 0.0, 0.0), abs=BOUND) and found.mean_unscaled > 0.1
    assert "over 8 tokens of the base the log-probabilities differ by 0.0000 nats at most" in caplog.text


def test_another_base_is_refused_with_the_difference(store, tiny_folder, tmp_path, folder):
    other = tmp_path / "other"
    tiny.tokenizer().save_pretrained(other)
    model = tiny.model(len(tiny.tokenizer()), seed=5)
    model.config.eos_token_id, model.config.pad_token_id = tiny.tokenizer().eos_token_id, tiny.tokenizer().pad_token_id
    model.save_pretrained(other)
    ppo = trainer(tiny_folder)
    with own_server(store, other, folder) as address, sampler(ppo, address, folder) as sampling:
        with pytest.raises(
            RolloutServerError, match=r"its base model other is not this run's: the log-probabilities of \d tokens differ by"
        ):
            sampling.check(PROMPTS, SHORT)


def test_a_server_of_unscaled_logprobs_is_told_what_to_report(store, tiny_folder, folder):
    ppo = trainer(tiny_folder)
    with own_server(store, tiny_folder, folder, processed=False) as address, sampler(ppo, address, folder) as sampling:
        with pytest.raises(RolloutServerError, match="those of temperature 1, and it samples at 0.7.*--logprobs-mode processed_logprobs"):
            sampling.check(PROMPTS, SHORT)


def test_a_context_that_is_too_short_is_refused_before_anything_is_sampled(tiny_folder, folder):
    server = ScriptedServer(lambda path, body: (200, {"data": [{"id": "tiny", "max_model_len": 14}]}))
    try:
        with sampler(trainer(tiny_folder), server.url, folder) as sampling:
            with pytest.raises(RolloutServerError, match="it computes 14 tokens .* this run needs 15.*--max-model-len 15"):
                sampling.check(PROMPTS, SHORT)
    finally:
        server.close()
    assert {path for path, _ in server.asked} == {"/v1/models"}


def test_each_batch_has_an_adapter_of_its_own_and_none_is_left(tiny_folder, url, folder):
    ppo = scrambled(trainer(tiny_folder))
    requests = requests_for(PROMPTS[:2], SHORT, 3, adapter=POLICY)
    with pytest.raises(ZeroDivisionError), sampler(ppo, url, folder) as sampling:
        seen = []
        for _ in range(2):
            sampling(requests, RolloutRecorder(ppo.backbone, [3, 7], 8))
            seen.append([name for name in sampling.client.adapters() if name.startswith("rankloop-r1-")])
            assert [path.name for path in folder.iterdir()] == seen[-1]
        raise ZeroDivisionError
    assert [len(names) for names in seen] == [1, 1] and seen[0] != seen[1]
    assert sampling.client.adapters() == ["current", "tiny"] and not folder.exists()


def test_what_a_killed_attempt_left_is_unloaded_by_the_next_and_other_runs_are_left_alone(tiny_folder, url, folder):
    ppo = trainer(tiny_folder)
    requests = requests_for(PROMPTS[:1], SHORT, 3, adapter=POLICY)
    kept = []
    for run in ("r1", "r10"):
        killed = sampler(ppo, url, folder, run)
        killed.__enter__()(requests, RolloutRecorder(ppo.backbone, [3], 8))
        kept.append(killed)
    with sampler(ppo, url, folder, "r1") as sampling:
        assert [name[:13] for name in sampling.client.adapters()] == ["current", "tiny", "rankloop-r10-"]
    for killed in kept:
        killed.gen.close()


def test_a_server_that_has_gone_hides_no_other_error(store, tiny_folder, folder, caplog):
    ppo = trainer(tiny_folder)
    with pytest.raises(ZeroDivisionError), own_server(store, tiny_folder, folder) as address:
        held = sampler(ppo, address, folder)
        sampling = held.__enter__()
        sampling(requests_for(PROMPTS[:1], SHORT, 3, adapter=POLICY), RolloutRecorder(ppo.backbone, [3], 8))
        raise ZeroDivisionError
    with caplog.at_level(logging.WARNING, "rankloop.rollouts"):
        held.gen.close()
    assert "stays there: the rollout server" in caplog.text


def test_an_answer_has_room_in_the_context(tiny_folder, url, folder):
    ppo = trainer(tiny_folder, sampling=replace(SAMPLING, max_new_tokens=8))
    long = [list(range(50, 90)) * 12 + [5] * 28]
    with sampler(ppo, url, folder) as sampling:
        [sequence], _ = sampling(requests_for(long, SHORT, 3, adapter=POLICY), RolloutRecorder(ppo.backbone, [508], 8))
    assert len(sequence.ids) <= 512 - 508
