"""Adapters that a base cannot have are refused before a round computes anything, with the reason and the kinds that it can have."""

import architectures
import pytest
import tiny
import torch
from learning import user

from rlhf.config import AdapterConfig, ConfigError, RewardConfig
from rlhf.data import pairs as pair_data
from rlhf.data.pairs import NotEnoughPairs, PreferencePair
from rlhf.models.backbone import Backbone
from rlhf.models.padding import pad_left
from rlhf.reward import targets
from rlhf.round import require_adapters


def logits(backbone):
    ids, mask = pad_left([[5, 6, 7, 8], [9, 10]], backbone.pad_id)
    with torch.no_grad():
        return backbone.forward(ids, mask, keep=2, adapter=None).logits


def test_a_kind_that_a_base_cannot_have_is_refused_with_those_it_can():
    backbone = architectures.backbone("gpt2")
    before = logits(backbone)
    with pytest.raises(ConfigError) as refused:
        backbone.require_adapter("adapter-kind", AdapterConfig(kind="peanut"))
    assert str(refused.value) == (
        "--adapter-kind peanut: a model of type gpt2 cannot have it (PEANuT does not support target modules of type "
        "<class 'transformers.pytorch_utils.Conv1D'> yet.); it can have lora, rslora, dora, ia3, prompt"
    )
    # Nothing of the trials is left.
    assert backbone.adapters == [] and torch.equal(logits(backbone), before)
    assert all(type(m).__module__.startswith(("torch.", "transformers.")) for m in backbone.base.modules())
    backbone.require_adapter("adapter-kind", AdapterConfig(kind="lora"))


def test_the_same_adapter_has_the_same_weights_after_a_trial(backbone):
    config = AdapterConfig(rank=4)
    backbone.add_adapter("plain", config, seed=3)
    fresh = Backbone(tiny.model(len(tiny.tokenizer())), tiny.tokenizer())
    fresh.require_adapter("adapter-kind", config)
    fresh.add_adapter("plain", config, seed=3)
    for (name, one), other in zip(backbone.parameters("plain").items(), fresh.parameters("plain").values(), strict=True):
        assert torch.equal(one, other), name


def test_a_round_looks_at_the_policy_and_at_a_reward_model_that_is_fine_tuned(empty_world):
    world = empty_world
    backbone = architectures.backbone("gpt2")
    with pytest.raises(ConfigError, match="--adapter-kind peanut"):
        require_adapters(backbone, world.config(adapter_kind="peanut"))
    with pytest.raises(ConfigError, match="--reward-adapter-kind peanut"):
        require_adapters(backbone, world.config(reward_adapter_kind="peanut"))
    require_adapters(backbone, world.config(reward_adapter_kind="peanut", reward_epochs=0))


def test_experts_and_routers_get_no_adapter_that_could_not_be_loaded_again(tmp_path):
    mixture = architectures.backbone("deepseek_v3")
    mixture.add_adapter("p", AdapterConfig(rank=4), seed=0)
    adapted = {name.split(".layers.")[1].split(".lora_")[0] for name in mixture.parameters("p")}
    maps = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
    assert adapted == {f"{layer}.self_attn.{name}" for layer in (0, 1) for name in maps}
    mixture.save_adapter("p", tmp_path)
    architectures.backbone("deepseek_v3").load_adapter("q", tmp_path)
    assert not architectures.backbone("phimoe").adapter_refusal(AdapterConfig(rank=4)), "its router is a linear map that returns two things"


def weighted(*weights):
    return [PreferencePair(user(f"Q{i}"), "good", "bad", w, "train", "human", i) for i, w in enumerate(weights)]


def test_weights_of_annotators_that_leave_nothing_are_refused():
    with pytest.raises(NotEnoughPairs, match=r"3 teach · 0 measure, and all that teach have the weight 0.*Leave out --reward-ann"):
        pair_data.require(weighted(0.0, 0.0, 0.0), 2)
    pair_data.require(weighted(0.0, 0.0, 0.5), 2)
    with pytest.raises(NotEnoughPairs, match="3 preference pairs, and those of head 1 of 1 all have the weight 0"):
        targets.pair_targets(weighted(0.0, 0.0, 0.0), RewardConfig(), seed=0)
    # With seed 0 some head's bootstrap of four prompts misses the only one with a weight.
    with pytest.raises(NotEnoughPairs, match=r"of head \d of 8 all have the weight 0: set --reward-ensemble 1"):
        targets.pair_targets(weighted(0.0, 0.0, 0.0, 1.0), RewardConfig(ensemble=8), seed=0)
