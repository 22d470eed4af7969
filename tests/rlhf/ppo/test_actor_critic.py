"""The policy and its value head as one module: what wraps a module sees all that is trained."""

from dataclasses import replace

import torch
from small_ppo import CONFIG, scrambled, taken, trainer

from rlhf.ppo.rollout import POLICY


def gradients_of(ppo, rollout):
    ppo.optimizer.zero_grad(set_to_none=True)
    seeds = (torch.Generator().manual_seed(seed) for seed in (3, 4))
    advantages, returns = (torch.randn(rollout.mask.shape, generator=seed) for seed in seeds)
    metrics = ppo.add_gradients(rollout, advantages, returns, torch.arange(len(rollout.scores)))
    weights = {**ppo.policy, **dict(ppo.value_head.named_parameters())}
    return metrics, {name: None if p.grad is None else p.grad.clone() for name, p in weights.items()}


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
        found[warming_up] = gradients_of(ppo, taken(ppo))
    (metrics, both), (metrics_alone, alone) = found[False], found[True]
    heads = {"weight", "bias"}
    assert all(torch.equal(alone[name], both[name]) and alone[name].abs().max() > 0 for name in heads)
    assert all(alone[name] is None and both[name] is not None for name in set(both) - heads)
    assert metrics == metrics_alone


def test_hidden_states_are_returned_where_they_are_asked_for(tiny_folder):
    ppo = scrambled(trainer(tiny_folder))
    batch = taken(ppo).tokens()
    assert ppo.model(batch, adapter=POLICY).hidden is None
    stats = ppo.model(batch, adapter=POLICY, return_hidden=True, values=False)
    assert stats.values is None and stats.hidden.shape == (*batch.mask.shape, ppo.backbone.hidden_size)
    assert torch.equal(ppo.value_head(stats.hidden.float()) * batch.mask, ppo.model(batch, adapter=POLICY).values)
