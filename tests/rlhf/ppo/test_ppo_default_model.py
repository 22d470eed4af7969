"""How far PPO's first ratio is from 1 on the packaged default model, in both precisions; docs/research/ppo.md says so."""

from dataclasses import replace

import pytest
import torch
from learning import user, watch_logprobs
from small_ppo import ByteReward

from rlhf import model_files
from rlhf.config import PRESETS
from rlhf.models.backbone import Backbone
from rlhf.ppo.trainer import PPO

pytestmark = pytest.mark.slow

QUESTIONS = ["How are you?", "Tell me a joke about two cats.", "Why is the sky blue?", "Name three fruits.", "How do I boil an egg?"]


@pytest.mark.parametrize("dtype, on_average, at_most", [("float32", 1e-5, 1e-4), ("bfloat16", 0.04, 0.5)])
def test_the_ratio_of_the_default_model_is_1_before_the_first_update(monkeypatch, dtype, on_average, at_most):
    backbone = Backbone.load(model_files.resolve("default"), "cpu", dtype)
    config = replace(PRESETS["laptop"].ppo, batch_size=10, minibatch_size=5)
    sampling = replace(PRESETS["laptop"].sampling, max_new_tokens=24)
    prompts = [backbone.encode(user(q)) for q in QUESTIONS]
    ppo = PPO(backbone, ByteReward(), prompts, config, PRESETS["laptop"].adapter, sampling=sampling, seed=0)
    ppo.step()
    seen = watch_logprobs(monkeypatch)
    # The second step's: by then the adapter says something.
    ppo.step()
    far = (seen[0][0].exp() / seen[0][1].exp() - 1).abs()
    assert len(far) > 50
    assert far.mean() < on_average and far.max() < at_most
    assert (seen[-1][0] - seen[-1][1]).abs().max() > 0.05, "later minibatches have moved"
    assert torch.isfinite(far).all()
