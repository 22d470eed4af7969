"""The packaged default model itself: what every other test takes a tiny one for. Fetches it if it is not there yet."""

from dataclasses import replace

import pytest
import torch
from learning import user, watch_logprobs
from torch.testing import assert_close

from rlhf import model_files
from rlhf.config import PRESETS, AdapterConfig, DPOConfig, GroupConfig, RewardConfig, SFTConfig
from rlhf.data.demonstrations import Demonstration
from rlhf.data.pairs import PreferencePair
from rlhf.evaluation import pair_scores
from rlhf.generation.sampling import generator, sample
from rlhf.models.backbone import Backbone
from rlhf.models.padding import pad_left
from rlhf.ppo.rollout import POLICY
from rlhf.ppo.trainer import PPO
from rlhf.reward.model import fit
from rlhf.runs.work import NO_PROGRESS
from rlhf.trl_methods import dpo, rloo_grpo, sft
from storage.core.records import Sampling

pytestmark = pytest.mark.slow

QUESTIONS = [user("Hi."), user("Tell me a joke about two cats, please.")]


@pytest.fixture(scope="module")
def backbone():
    return Backbone.load(model_files.resolve("default"), "cpu", "float32")


def logits(backbone, rows):
    ids, mask = pad_left(rows, backbone.pad_id)
    with torch.no_grad():
        return backbone.forward(ids, mask, keep=4, adapter=None).logits


def test_what_the_other_tests_take_for_granted_is_so(backbone):
    assert model_files.is_intact(model_files.default_folder())
    assert backbone.eos_id == backbone.pad_id
    assert backbone.depth == 30 and backbone.hidden_size == 576
    assert sum(p.numel() for p in backbone.base.parameters()) == pytest.approx(134.5e6, rel=0.01)


def test_it_answers(backbone):
    greedy = Sampling(temperature=0, max_new_tokens=24)
    answers = sample(
        backbone,
        [backbone.encode(user(q)) for q in ("What is the capital of France?", "Say hello.")],
        greedy,
        generator(torch.device("cpu"), 0),
    )
    assert "Paris" in backbone.decode(answers[0].ids)
    assert answers[0].finish_reason == "stop" and answers[0].ids[-1] == backbone.eos_id


def test_left_padding_changes_nothing(backbone):
    short, long = backbone.encode(user("Hi.")), backbone.encode(user("Tell me a long story about a dragon and a small village."))
    # Against the logits' own scale of tens; padding is the end token here.
    assert_close(logits(backbone, [short, long])[:1], logits(backbone, [short]), atol=2e-3, rtol=1e-4)


def test_one_reward_fit_and_two_ppo_steps(backbone, tmp_path, monkeypatch):
    asked = backbone.encode(user("How are you?"))
    plain = logits(backbone, [asked])
    pairs = [
        PreferencePair(user(f"How are you, {n}?"), "I feel great, thank you!", "Bad. Go away.", 1.0, "train", "human", i)
        for i, n in enumerate(["Ann", "Bob", "Cyd", "Dan"])
    ]
    settings = RewardConfig(adapter=AdapterConfig(rank=4), batch_size=2, epochs=1)
    model = fit(backbone, pairs, settings, seed=0, scratch=tmp_path, report=lambda *_: None)
    chosen, rejected = pair_scores(backbone, model, pairs)
    assert (chosen > rejected).all()

    seen = watch_logprobs(monkeypatch)
    config = replace(PRESETS["laptop"].ppo, batch_size=4, minibatch_size=2)
    prompts = [asked, backbone.encode(user("Tell me a joke about two cats."))]
    sampling = replace(PRESETS["laptop"].sampling, max_new_tokens=8)
    ppo = PPO(backbone, model, prompts, config, PRESETS["laptop"].adapter, sampling=sampling, seed=0)
    figures = [ppo.step(), ppo.step()]
    assert_close(seen[0][0].exp() / seen[0][1].exp(), torch.ones_like(seen[0][0]), atol=1e-3, rtol=0)
    assert figures[0]["objective/kl"] == pytest.approx(0, abs=1e-3)
    assert all(torch.isfinite(torch.tensor(v)) for f in figures for v in f.values())
    assert all(p.abs().max() > 0 for n, p in backbone.parameters(POLICY).items() if ".lora_B." in n)
    assert torch.equal(logits(backbone, [asked]), plain), "the reference is the base, bit for bit"


@pytest.fixture
def unchanged(backbone):
    """A backbone with a policy that is to learn; whatever it learns, the base stays as it was, bit for bit."""
    asked = backbone.encode(user("Hi."))
    plain = logits(backbone, [asked])
    for name in backbone.adapters:
        backbone.delete_adapter(name)
    backbone.add_adapter(POLICY, AdapterConfig(rank=4, top_layers=2), seed=0)
    yield backbone
    assert all(p.abs().max() > 0 for n, p in backbone.parameters(POLICY).items() if ".lora_B." in n)
    assert torch.equal(logits(backbone, [asked]), plain)


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_a_step_of_the_group_methods(unchanged, tmp_path, method):
    """Its end token is its padding too: what is read of a padded batch is what a row by itself says."""
    seen, paid = {}, []

    def scorer(prompts, sampled, on_progress):
        paid.extend(sampled)
        # Whatever tells completions apart: without a difference within a group nothing is learned.
        return torch.tensor([float(s.ids[0]) for s in sampled])

    rloo_grpo.train(
        method,
        unchanged,
        QUESTIONS,
        scorer,
        GroupConfig(steps=1, batch_size=4, minibatch_size=2, num_generations=2),
        Sampling(0.7, max_new_tokens=16),
        seed=0,
        scratch=tmp_path,
        on_progress=NO_PROGRESS,
        log=lambda step, logged: seen.update({step: logged}),
    )
    assert len(paid) == 4 and all(unchanged.eos_id not in s.ids[:-1] for s in paid)
    assert seen[1]["val/response_length"] == pytest.approx(sum(len(s.ids) for s in paid) / 4)


def test_two_updates_of_dpo(unchanged, tmp_path):
    pairs = [PreferencePair(q, "Certainly!", "No. Go away, and do not come back.", 1.0, "train", "human", 1) for q in QUESTIONS]
    losses = []
    dpo.train(
        unchanged,
        pairs,
        DPOConfig(epochs=2, batch_size=2, learning_rate=3e-3),
        seed=0,
        scratch=tmp_path,
        on_progress=NO_PROGRESS,
        log=lambda _, logged: losses.append(logged["loss"]),
    )
    assert len(losses) == 2 and losses[1] < losses[0]


def test_two_updates_of_sft(unchanged, tmp_path):
    shown_how = [Demonstration(q, "Certainly, with pleasure!") for q in QUESTIONS]
    losses = []
    sft.train(
        unchanged,
        shown_how,
        SFTConfig(epochs=2, batch_size=2, learning_rate=3e-3),
        seed=0,
        scratch=tmp_path,
        on_progress=NO_PROGRESS,
        log=lambda _, logged: losses.append(logged["loss"]),
    )
    assert len(losses) == 2 and losses[1] < losses[0]
