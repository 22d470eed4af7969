"""DPO by itself."""

import math
from dataclasses import replace

import pytest
from learning import answered, logprob, plain_logprob, scramble, user

from rlhf.config import AdapterConfig, DPOConfig, RoundConfig
from rlhf.data.pairs import PreferencePair
from rlhf.models.backbone import Backbone
from rlhf.ppo.rollout import POLICY
from rlhf.runs import plan
from rlhf.runs.work import NO_PROGRESS
from rlhf.trl_methods import dpo

KINDS = ["lora", "dora", "peanut", "ia3", "prompt"]
PAIRS = [PreferencePair(user(f"{i}?"), "aaaa", "zzzz", 1.0, "train", "human", i) for i in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_dpo_starts_at_log_2_and_comes_to_prefer_what_was_chosen(backbone, tmp_path, kind):
    """At the start policy and reference are the same, so that the loss is -log sigmoid(0) (Rafailov 2023, eq. 7)."""
    backbone.add_adapter(POLICY, AdapterConfig(kind=kind, rank=4, alpha=8, virtual_tokens=3), seed=0)
    base_before = logprob(backbone, None, PAIRS[0].prompt, "aaaa")
    seen = {}
    start = [logprob(backbone, POLICY, PAIRS[0].prompt, text) for text in ("aaaa", "zzzz")]
    config = DPOConfig(epochs=4, batch_size=2, learning_rate=2e-2, beta=0.5)
    dpo.train(
        backbone, PAIRS, config, seed=0, scratch=tmp_path, on_progress=NO_PROGRESS, log=lambda step, logged: seen.update({step: logged})
    )
    assert sorted(seen) == list(range(1, 9)) and plan.updates(replace(RoundConfig(method="dpo"), dpo=config), 4, 0) == 8
    if kind != "prompt":
        assert seen[1]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert seen[8]["loss"] < seen[1]["loss"] and seen[8]["rewards/margins"] > 0.5
    end = [logprob(backbone, POLICY, PAIRS[0].prompt, text) for text in ("aaaa", "zzzz")]
    assert end[0] - end[1] > start[0] - start[1] + 1
    assert logprob(backbone, None, PAIRS[0].prompt, "aaaa") == base_before, "the base is as it was"


def test_dpo_samples_a_pair_in_proportion_to_its_weight(policy, tmp_path, monkeypatch):
    """Of 4,000 draws, weights of 3 to 1 give 3,000 to 1,000; the standard deviation is sqrt(4000 * .75 * .25) = 27.4."""
    drawn = []
    monkeypatch.setattr(dpo._Trainer, "train", lambda trainer: drawn.append(list(trainer._get_train_sampler())))

    def draws(*weights):
        pairs = [replace(PAIRS[i % len(PAIRS)], weight=weight) for i, weight in enumerate(weights)]
        dpo.train(policy, pairs, DPOConfig(), seed=0, scratch=tmp_path, on_progress=NO_PROGRESS, log=lambda *_: None)
        return drawn[-1]

    assert sorted(draws(0.5, 0.5, 0.5)) == [0, 1, 2], "of equal weight, each once"
    assert abs(sum(i < 2000 for i in draws(*[3.0] * 2000, *[1.0] * 2000)) - 3000) < 3 * 27.4
    assert draws(1.0, 2.0, 1.0) == draws(1.0, 2.0, 1.0)


def test_dpos_log_ratios_are_to_the_base(policy, tmp_path, tiny_folder):
    """rewards/chosen = beta (log pi(chosen) - log ref(chosen)), worked out from plain forwards; the first log is of no update yet."""
    scramble(policy, POLICY)
    pair = PAIRS[0]
    asked, chosen = policy.encode(pair.prompt), answered(policy, pair.chosen)
    reference = plain_logprob(Backbone.load(tiny_folder, "cpu", "float32").base, asked, chosen).sum()
    seen = []
    now = logprob(policy, POLICY, pair.prompt, pair.chosen)
    dpo.train(
        policy,
        [pair],
        DPOConfig(epochs=1, batch_size=1, beta=0.3),
        seed=0,
        scratch=tmp_path,
        on_progress=NO_PROGRESS,
        log=lambda _, logged: seen.append(logged),
    )
    assert seen[0]["rewards/chosen"] == pytest.approx(0.3 * (now - float(reference)), abs=1e-3)
    assert seen[0]["logps/chosen"] == pytest.approx(now, abs=1e-3)
