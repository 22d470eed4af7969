"""RLOO and GRPO by themselves."""

import itertools
import math

import pytest
import torch
from learning import logprob, plain_logprob, scramble, user

from rlhf.config import AdapterConfig, GroupConfig
from rlhf.models.backbone import Backbone
from rlhf.ppo.rollout import POLICY
from rlhf.runs.work import NO_PROGRESS
from rlhf.trl_methods import rloo_grpo
from storage.core.records import Sampling


def by_group(backbone, method, config, tmp_path, *, scorer, prompts=(user("Hi?"), user("Ho?")), seed=0):
    seen = {}
    rloo_grpo.train(
        method,
        backbone,
        prompts,
        scorer,
        config,
        Sampling(0.7, max_new_tokens=6),
        seed=seed,
        scratch=tmp_path,
        on_progress=NO_PROGRESS,
        log=lambda step, logged: seen.update({step: logged}),
    )
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_group_methods_learn_to_maximise_the_score(policy, tmp_path, method):
    paid = []

    def scorer(prompts, sampled, on_progress):
        assert {tuple(p) for p in prompts} <= {tuple(policy.encode(user(q))) for q in ("Hi?", "Ho?")}
        assert all(s.ids and (s.finish_reason == "stop") == (s.ids[-1] == policy.eos_id) for s in sampled)
        paid.append(torch.tensor([sum(i < 64 for i in s.ids) / len(s.ids) for s in sampled]))
        return paid[-1]

    config = GroupConfig(steps=20, batch_size=32, minibatch_size=8, num_generations=4, learning_rate=2e-2, kl_coef=0.0)
    seen = by_group(policy, method, config, tmp_path, scorer=scorer)
    assert len(paid) == 20 and sorted(seen) == list(range(1, 21)), "one batch and one log a step"
    assert [seen[i + 1]["objective/scores"] for i in range(20)] == pytest.approx([float(p.mean()) for p in paid], abs=1e-5)
    assert float(torch.cat(paid[-3:]).mean()) > float(torch.cat(paid[:3]).mean()) + 0.15
    assert 0 < seen[1]["val/response_length"] <= 6 and 0 <= seen[1]["val/finished"] <= 1


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_the_kl_that_is_logged_is_to_the_base_and_per_completion(policy, tmp_path, tiny_folder, method):
    """k1 of what was drawn for RLOO, k3 for GRPO (Schulman 2020), each summed over a completion's tokens, from plain forwards."""
    scramble(policy, POLICY, scale=0.05)
    reference = Backbone.load(tiny_folder, "cpu", "float32").base
    drawn = []

    def scorer(prompts, sampled, on_progress):
        drawn.extend(zip(prompts, (s.ids for s in sampled), strict=True))
        expected.append([kl_of(p, ids) for p, ids in drawn])
        return torch.arange(len(sampled), dtype=torch.float32)

    def kl_of(prompt, ids):
        with policy.adapter_set.applied(POLICY):
            now = plain_logprob(policy.base, prompt, ids, 0.7)
        log_ratio = now - plain_logprob(reference, prompt, ids, 0.7)
        return float((log_ratio if method == "rloo" else (-log_ratio).exp() - 1 + log_ratio).sum())

    expected = []
    config = GroupConfig(steps=1, batch_size=4, minibatch_size=4, num_generations=2, learning_rate=1e-5, kl_coef=0.05)
    seen = by_group(policy, method, config, tmp_path, scorer=scorer)
    assert seen[1]["objective/kl"] == pytest.approx(sum(expected[0]) / 4, rel=1e-3)
    assert abs(seen[1]["objective/kl"]) > 0.01


@pytest.mark.slow
def test_a_kl_penalty_keeps_rloo_near_the_base(policy, tmp_path):
    def scorer(prompts, sampled, on_progress):
        return torch.tensor([sum(i < 64 for i in s.ids) / len(s.ids) for s in sampled])

    far = {0.0: 0.0, 5.0: 0.0}
    # Over three seeds, because six steps of 16 samples are few.
    for kl_coef, seed in itertools.product(far, range(3)):
        policy.delete_adapter(POLICY)
        policy.add_adapter(POLICY, AdapterConfig(rank=4, alpha=8), seed=0)
        config = GroupConfig(steps=6, batch_size=16, minibatch_size=8, num_generations=4, learning_rate=1e-2, kl_coef=kl_coef)
        by_group(policy, "rloo", config, tmp_path, scorer=scorer, seed=seed)
        far[kl_coef] += sum(
            abs(logprob(policy, POLICY, user(q), t) - logprob(policy, None, user(q), t))
            for q in ("Hi?", "Ho?")
            for t in ("aaaa", "zzzz", "0000")
        )
    assert far[5.0] < far[0.0]


@pytest.mark.parametrize("kind", ["ia3", "prompt"])
def test_every_kind_of_adapter_learns_by_groups(backbone, tmp_path, kind):
    backbone.add_adapter(POLICY, AdapterConfig(kind=kind, virtual_tokens=3), seed=0)
    before = {n: p.detach().clone() for n, p in backbone.parameters(POLICY).items()}
    config = GroupConfig(steps=1, batch_size=8, minibatch_size=4, num_generations=2, learning_rate=1e-2)
    seen = by_group(backbone, "grpo", config, tmp_path, scorer=lambda p, s, t: torch.arange(len(s), dtype=torch.float32))
    assert all(not torch.equal(p, before[n]) for n, p in backbone.parameters(POLICY).items())
    assert math.isfinite(seen[1]["objective/kl"])
