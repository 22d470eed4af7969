"""Demonstrations beside the reward: their loss and its gradient."""

from dataclasses import replace

import torch
from small_ppo import CONFIG, policy_of, scrambled, trainer
from torch.testing import assert_close

from rlhf.ppo.rollout import POLICY
from rlhf.reward.model import TokenizedExample

DEMONSTRATIONS = [TokenizedExample([5, 6, 7, 8, 9], 2), TokenizedExample([10, 11, 12], 1), TokenizedExample([13, 14, 15, 16], 3)]


# Demonstrations.


def test_demonstrations_become_likelier(tiny_folder):
    def losses(ptx_coef):
        ppo = trainer(tiny_folder, replace(CONFIG, ptx_coef=ptx_coef, learning_rate=1e-2), demonstrations=DEMONSTRATIONS)
        return [ppo.step().get("loss/ptx_avg") for _ in range(3)]

    with_ptx = losses(2.0)
    assert with_ptx[2] < 0.8 * with_ptx[0]
    assert losses(0.0) == [None] * 3


def test_demonstrations_add_their_gradient_to_the_minibatchs(tiny_folder, monkeypatch):
    """One minibatch, plain gradient descent: the policy moves by both gradients' sum."""

    def moved(ptx_coef, **options):
        ppo = scrambled(
            trainer(
                tiny_folder,
                replace(CONFIG, epochs=1, minibatch_size=8, max_grad_norm=1e9, ptx_coef=ptx_coef, **options),
                demonstrations=DEMONSTRATIONS,
            )
        )
        ppo.optimizer = torch.optim.SGD(ppo.policy.values(), lr=1.0)
        before = policy_of(ppo)
        ppo.step()
        return {n: p.detach() - before[n] for n, p in ppo.policy.items()}, before, ppo

    plain, before, ppo = moved(0.0)
    both, _, _ = moved(0.5)
    with torch.no_grad():
        for n, p in ppo.policy.items():
            p.copy_(before[n])
    total = 0.0
    with ppo.backbone.adapter_set.applied(POLICY):
        for row in DEMONSTRATIONS:
            ids = torch.tensor([row.ids])
            logits = ppo.backbone.base(input_ids=ids).logits[0, row.start - 1 : -1] / 0.7
            total = total + torch.nn.functional.cross_entropy(logits, ids[0, row.start :], reduction="sum")
    gradients = torch.autograd.grad(0.5 * total / 6, list(ppo.policy.values()))
    for name, gradient in zip(ppo.policy, gradients, strict=True):
        assert_close(both[name] - plain[name], -gradient, atol=1e-4, rtol=1e-3)
