"""The policy and its value head as one module: what wraps a module sees all that is trained."""

from dataclasses import replace

import pytest
import torch
from ranks import gradients_of_each
from small_ppo import ADAPTER_CONFIG, CONFIG, gradients, scrambled, taken, trainer
from torch.testing import assert_close

from rlhf.models.operations import OperationCount
from rlhf.ppo.rollout import POLICY


def test_its_weights_with_a_gradient_are_the_adapters_and_the_value_heads(tiny_folder):
    ppo = trainer(tiny_folder, learned_reward=True)
    trained = {id(p) for p in ppo.model.parameters() if p.requires_grad}
    assert trained == {id(p) for p in (*ppo.policy.values(), *ppo.value_head.parameters())}
    assert {id(p) for p in ppo.backbone.base.parameters()} <= {id(p) for p in ppo.model.parameters()}, "the base is there too, frozen"
    ppo.model.train()
    assert not any(module.training for module in ppo.backbone.base.modules()), "dropout would make another policy of it"


def test_warming_up_trains_the_value_head_alone_by_the_same_gradients(tiny_folder):
    """Bit for bit those that it has beside the policy's, whose share of the loss does not reach it."""
    found = {}
    for warming_up in (False, True):
        ppo = scrambled(trainer(tiny_folder, replace(CONFIG, value_warmup=int(warming_up), entropy_coef=0.1)))
        found[warming_up] = gradients(ppo, taken(ppo))
    (metrics, both), (metrics_alone, alone) = found[False], found[True]
    assert set(alone) == {"weight", "bias"} < set(both)
    assert all(torch.equal(gradient, both[name]) and gradient.abs().max() > 0 for name, gradient in alone.items())
    assert metrics == metrics_alone


def test_hidden_states_are_returned_where_they_are_asked_for(tiny_folder):
    ppo = scrambled(trainer(tiny_folder))
    batch = taken(ppo).tokens()
    assert ppo.model(batch, adapter=POLICY).hidden is None
    stats = ppo.model(batch, adapter=POLICY, return_hidden=True, values=False)
    assert stats.values is None and stats.hidden.shape == (*batch.mask.shape, ppo.backbone.hidden_size)
    assert torch.equal(ppo.value_head(stats.hidden.float()) * batch.mask, ppo.model(batch, adapter=POLICY).values)


@pytest.mark.parametrize("top_layers, atol", [(1, 1e-6), (0, 0.0)])
def test_what_frozen_layers_computed_changes_nothing(tiny_folder, top_layers, atol):
    """The same losses and gradients when every layer is computed again; bit for bit where the adapter is on all of them."""
    ppo = scrambled(trainer(tiny_folder, replace(CONFIG, entropy_coef=0.1), adapter=replace(ADAPTER_CONFIG, top_layers=top_layers)))
    rollout = taken(ppo)
    assert (rollout.cached is None) == (top_layers == 0)
    kept, again = gradients(ppo, rollout), gradients(ppo, rollout._replace(cached=None))
    assert kept[0] == pytest.approx(again[0], abs=max(atol, 1e-12), rel=atol)
    for name, gradient in kept[1].items():
        assert_close(gradient, again[1][name], atol=atol, rtol=0)
    assert max(float(gradient.abs().max()) for gradient in kept[1].values()) > 1e-2


@pytest.mark.parametrize("top_layers", [0, 1])
def test_gradient_checkpointing_keeps_less_and_gives_the_same_gradients(tiny_folder, top_layers):
    """Bit for bit; a layer's activations are not kept, only what goes in."""
    ppo = scrambled(trainer(tiny_folder, replace(CONFIG, entropy_coef=0.1), adapter=replace(ADAPTER_CONFIG, top_layers=top_layers)))
    rollout = taken(ppo)
    found, kept = [], []
    for ppo.backbone.decoder.checkpoint_layers in (False, True):
        kept.append({})

        def keep(tensor):
            kept[-1][tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found.append(gradients(ppo, rollout))
    assert found[0][0] == found[1][0] and found[0][1].keys() == found[1][1].keys()
    assert all(torch.equal(gradient, found[1][1][name]) for name, gradient in found[0][1].items())
    assert sum(kept[1].values()) < sum(kept[0].values()) / 2


def test_an_update_casts_all_layers_together_and_reads_its_metrics_once(tiny_folder):
    """As on an accelerator: bit for bit the same gradients, fewer operations, and one look for all metrics of a minibatch."""
    ppo = scrambled(trainer(tiny_folder))
    ppo.backbone.base.to(torch.bfloat16)
    for weight in ppo.policy.values():
        weight.data = weight.data.float()
    rollout = taken(ppo)
    found, counts = [], []
    for ppo.backbone.adapter_set.casts_at_once in (False, True):
        with OperationCount() as count:
            found.append(gradients(ppo, rollout))
        counts.append(count)
    assert found[0][0] == found[1][0] and found[0][1].keys() == found[1][1].keys()
    assert all(torch.equal(gradient, found[1][1][name]) for name, gradient in found[0][1].items())
    # Fourteen linear maps: A, B and its scale are three operations for each, or three for all.
    assert counts[0].total - counts[1].total == 14 * 3 - 3
    # Beside the metrics, the widest row on the host.
    assert counts[1].host_reads["tolist"] == 2


@pytest.mark.slow
def test_ddp_and_fsdp_average_the_gradients_of_all_that_is_trained(tiny_folder, tmp_path):
    """Two processes with batches of their own: PPO's losses, its value head's warm-up, demonstrations, and the reward model's scores."""
    first, second = gradients_of_each(tiny_folder, tmp_path)
    weights = {loss: {n.split(".", 2)[2] for n in first if n.startswith(f"{loss}.alone.")} for loss in ("ppo", "warmup", "ptx", "reward")}
    assert weights["warmup"] == {"weight", "bias"} and weights["ppo"] == weights["ptx"] | {"weight", "bias"}
    assert len(weights["ptx"]) == 2 * 7 * 2, "A and B of seven linear maps in two layers"
    assert len(weights["reward"]) == 2 * 7 * 2 + 2, "and the head's weight and bias"
    for loss, names in weights.items():
        for how in ("together", "sharded"):
            assert {n.split(".", 2)[2] for n in first if n.startswith(f"{loss}.{how}.")} == names
            for name in names:
                alone, wrapped = ([rank[f"{loss}.{which}.{name}"] for rank in (first, second)] for which in ("alone", how))
                assert torch.equal(*wrapped), "each rank takes the same step"
                assert_close(wrapped[0], (alone[0] + alone[1]) / 2, atol=1e-7, rtol=1e-5)
        assert any(not torch.allclose(first[f"{loss}.alone.{n}"], second[f"{loss}.alone.{n}"], rtol=1e-2) for n in names)
