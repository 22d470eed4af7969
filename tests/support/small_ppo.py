"""A PPO small enough for every test, paid by a program, so that what should be learned is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from rlhf.config import AdapterConfig, PPOConfig, RewardConfig, SamplingConfig, ScoringConfig
from rlhf.models.backbone import Backbone
from rlhf.models.ranks import Ranks
from rlhf.ppo.rollout import collect
from rlhf.ppo.trainer import PPO, read_metrics
from rlhf.reward.model import ADAPTER, RewardModel, TokenizedExample
from storage.core.records import Sampling

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14], [15], [16, 17], [18, 19, 20], [21], [22, 23]]
ADAPTER_CONFIG = AdapterConfig(rank=8, alpha=16)
# Every figure by itself: the defaults are tuned, and these tests are not about them.
CONFIG = PPOConfig(
    steps=3,
    batch_size=8,
    minibatch_size=4,
    epochs=2,
    learning_rate=5e-3,
    value_learning_rate=1e-3,
    max_grad_norm=1.0,
    clip=0.2,
    value_clip=0.2,
    value_coef=0.1,
    gamma=1.0,
    lam=0.95,
    kl_coef=0.05,
    kl_target=6.0,
    kl_horizon=2000,
    whiten_rewards=False,
)
SAMPLING = SamplingConfig(max_new_tokens=8, temperature=0.7)


WANTED = range(0, 64)


class ByteReward:
    """Scores an answer by the share of some bytes in it."""

    def row(self, prompt_ids, answer_ids) -> TokenizedExample:
        return TokenizedExample([*prompt_ids, *answer_ids], len(prompt_ids))

    def score(self, rows, *, on_progress=lambda: None):
        return torch.tensor([sum(i in WANTED for i in r.ids[r.start :]) / len(r.ids[r.start :]) for r in rows])


def trainer(
    folder: Path,
    config: PPOConfig = CONFIG,
    seed: int = 0,
    learned_reward: bool = False,
    adapter: AdapterConfig = ADAPTER_CONFIG,
    demonstrations: Sequence[TokenizedExample] = (),
    sampling: SamplingConfig = SAMPLING,
    scoring: ScoringConfig = ScoringConfig(),
    start: Path | None = None,
    ranks: Ranks = Ranks(),
) -> PPO:
    backbone = Backbone.load(folder, "cpu", "float32")
    scorer = ByteReward()
    if learned_reward:
        settings = RewardConfig(adapter=AdapterConfig(rank=2), depth=1.0)
        backbone.add_adapter(ADAPTER, settings.adapter, seed=9)
        scorer = RewardModel(backbone, settings, seed=9)
    more = {"sampling": sampling, "scoring": scoring, "seed": seed, "start": start, "demonstrations": demonstrations, "ranks": ranks}
    return PPO(backbone, scorer, PROMPTS, config, adapter, **more)


def taken(ppo: PPO, n: int = 8, temperature: float = 0.7):
    return collect(
        ppo.backbone,
        ppo.reward_shaper,
        ppo.value_head,
        [PROMPTS[i % len(PROMPTS)] for i in range(n)],
        Sampling(temperature=temperature, max_new_tokens=8),
        5,
        minibatch_size=4,
    )


def scrambled(ppo: PPO) -> PPO:
    """As after some training: the policy is not the reference any more, and values are not 0."""
    rng = scramble(ppo.policy)
    with torch.no_grad():
        ppo.value_head.weight.copy_(0.1 * torch.randn(ppo.value_head.weight.shape, generator=rng))
    return ppo


def scramble(adapter: dict[str, torch.Tensor]) -> torch.Generator:
    """A LoRA adapter as after some training."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in adapter.items():
            if ".lora_B." in name:
                p.copy_(0.1 * torch.randn(p.shape, generator=rng))
    return rng


def everything(ppo: PPO) -> dict[str, torch.Tensor]:
    found = {n: p.detach().clone() for n, p in ppo.policy.items()}
    found |= {f"value.{n}": p.clone() for n, p in ppo.value_head.state_dict().items()}
    for index, state in ppo.optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{index}.{n}": v.clone() for n, v in state.items()}
    return found


def read_alone(backbone, prompt, answer, temperature):
    """Log-probabilities of an answer's tokens by the plain definition, without padding."""
    ids = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        logits = backbone.base(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)]


def policy_of(ppo):
    return {name: p.detach().clone() for name, p in ppo.policy.items()}


def gradients(ppo, rollout, rows=None):
    advantages = torch.randn(rollout.mask.shape, generator=torch.Generator().manual_seed(3))
    returns = torch.randn(rollout.mask.shape, generator=torch.Generator().manual_seed(4))
    ppo.optimizer.zero_grad(set_to_none=True)
    figures = read_metrics(ppo.add_gradients(rollout, advantages, returns, torch.arange(8) if rows is None else rows))
    return figures, {n: p.grad.clone() for n, p in [*ppo.policy.items(), *ppo.value_head.named_parameters()] if p.grad is not None}
