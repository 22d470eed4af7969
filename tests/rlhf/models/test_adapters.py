"""The adapter is an argument of each pass: what was active before, and what other threads ask for, makes no difference."""

import threading

import pytest
import torch
from learning import scramble
from torch.testing import assert_close

from rlhf.config import AdapterConfig
from rlhf.models.lora import RowAdapters
from rlhf.safe_files import ModelError

SMALL = AdapterConfig(rank=2, alpha=4)
IDS = torch.tensor([[5, 6, 7, 8, 9]])
MASK = torch.ones_like(IDS, dtype=torch.bool)


@pytest.fixture
def two(backbone):
    """Two adapters that say different things."""
    for seed, name in enumerate(("policy", "reward")):
        backbone.add_adapter(name, SMALL, seed=seed)
        scramble(backbone, name)
    return backbone


def read(backbone, adapter):
    return backbone.forward(IDS, MASK, keep=5, adapter=adapter).logits


@pytest.mark.parametrize("checkpoint_layers", [False, True])
def test_a_pass_through_the_reference_before_the_backward_pass_costs_the_policy_no_gradient(two, checkpoint_layers):
    """PEFT takes the gradient from every adapter that is not active, and a weight without one gets none in the backward pass.

    Layers that are computed again there are computed through the adapter of their own pass.
    """
    two.decoder.checkpoint_layers = checkpoint_layers
    weights = two.parameters("policy")

    def gradients(*between):
        for weight in weights.values():
            weight.grad = None
        loss = read(two, "policy").square().mean()
        for adapter in between:
            read(two, adapter)
        loss.backward()
        return {name: weight.grad.clone() for name, weight in weights.items()}

    plain, disturbed = gradients(), gradients(None, "reward", None)
    assert all(torch.equal(plain[name], disturbed[name]) for name in weights)
    assert sum(float(g.abs().sum()) for g in plain.values()) > 0


def test_an_added_adapter_is_trained_and_a_loaded_one_is_not(two, tmp_path):
    def trained():
        return {name for name in two.adapters if any(p.requires_grad for p in two.parameters(name).values())}

    two.save_adapter("reward", tmp_path)
    two.load_adapter("loaded", tmp_path)
    assert trained() == {"policy", "reward"}
    two.adapter_set.train_only("reward")
    for adapter in ("policy", None, "loaded", "reward"):
        read(two, adapter)
        assert trained() == {"reward"}, "a pass trains nothing else"
    two.delete_adapter("loaded")
    assert trained() == {"reward"}


def test_threads_that_read_through_different_adapters_do_not_mix_them_up(two):
    with torch.no_grad():
        expected = {adapter: read(two, adapter) for adapter in (None, "policy", "reward")}
    assert not torch.equal(expected["policy"], expected["reward"])
    wrong = []

    def ask(adapter):
        with torch.no_grad():
            for _ in range(30):
                if not torch.equal(read(two, adapter), expected[adapter]):
                    wrong.append(adapter)

    threads = [threading.Thread(target=ask, args=(adapter,)) for adapter in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == [] and not any(thread.is_alive() for thread in threads)


def test_a_pass_within_a_pass_cannot_change_the_adapter(two):
    """It would wait for itself."""
    with two.adapter_set.applied("policy"):
        read(two, "policy")
        with pytest.raises(RuntimeError, match="through the adapter policy cannot change it before it has ended"):
            read(two, None)
        with pytest.raises(RuntimeError, match="cannot change it"):
            two.delete_adapter("reward")
    read(two, None)


def test_an_adapter_that_does_not_exist_is_named(two):
    with pytest.raises(KeyError, match="no adapter 'v9'; there are policy, reward"):
        read(two, "v9")


def test_rows_with_adapters_of_their_own_have_the_layers_in_the_model_and_none_active(two):
    two.add_adapter("learned", AdapterConfig(kind="ia3"), seed=0)
    with torch.no_grad():
        plain = read(two, None)
        with two.adapter_set.applied(RowAdapters(["policy"], torch.full((len(IDS),), -1), {})):
            layers = [m for m in two.base.modules() if "policy" in getattr(m, "lora_A", ())]
            assert len(layers) == 14 and all(layer.disable_adapters for layer in layers)
            assert_close(two.base(input_ids=IDS).logits, plain)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "ia3", "peanut"])
def test_a_merged_adapter_computes_as_the_adapter_on_its_base(backbone, kind):
    backbone.add_adapter("policy", AdapterConfig(kind=kind, rank=4), seed=1)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in backbone.parameters("policy").values():
            weight.add_(0.2 * torch.randn(weight.shape, generator=rng))
        policy, base = read(backbone, "policy"), read(backbone, None)
        merged = backbone.merge_adapter("policy")(input_ids=IDS).logits
    assert_close(merged, policy, rtol=1e-4, atol=1e-4)
    assert (policy - base).abs().max() > 0.1, "the adapter changes something"


def test_a_learned_prompt_cannot_be_merged(backbone):
    backbone.add_adapter("policy", AdapterConfig(kind="prompt", virtual_tokens=3), seed=1)
    with pytest.raises(ModelError, match="learned prompt"):
        backbone.merge_adapter("policy")
