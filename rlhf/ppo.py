"""Proximal policy optimisation of a LoRA policy against a reward model, as one readable loop.

The step reads as the paper: collect, turn scores into rewards, estimate advantages, update. The formulas are in
`ppo_math`, the experience in `rollout`. A state that is saved after a step and loaded again goes on bit for bit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rlhf.backbone import Backbone
from rlhf.config import PPOConfig
from rlhf.ppo_math import adapted_kl_coef, gae, masked_mean, policy_loss, rewards_with_kl, value_loss, whiten
from rlhf.reward import RewardModel
from rlhf.rollout import POLICY, Rollout, collect, read
from rlhf.sampling import generator
from storage.records import Sampling

STATE_FILE = "state.json"


class PPO:
    """Policy adapter, value head, their optimiser and the KL controller."""

    def __init__(
        self, backbone: Backbone, reward_model: RewardModel, prompts: Sequence[Sequence[int]], config: PPOConfig, *, seed: int
    ):
        self.backbone, self.reward_model, self.prompts, self.config, self.seed = backbone, reward_model, prompts, config, seed
        backbone.add_adapter(POLICY, config.adapter, seed=seed)
        self.policy = backbone.parameters(POLICY)
        self.value_head = nn.Linear(backbone.hidden_size, 1, device=backbone.device)
        # A value that starts at 0 says nothing; one that starts at random says something wrong.
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(self.policy.values()), "lr": config.learning_rate},
                {"params": list(self.value_head.parameters()), "lr": config.value_learning_rate},
            ],
            eps=1e-5,
            weight_decay=0.0,
        )
        self.kl_coef = config.kl_coef
        self.step_done = 0

    def step(self, tick: Callable[[], None] = lambda: None) -> dict[str, float]:
        """One PPO step; returns its figures under the names the field uses. `tick` is called many times on the way."""
        config, step = self.config, self.step_done
        rollout = collect(
            self.backbone,
            self.reward_model,
            self.value_head,
            [self.prompts[i] for i in self.batch_indexes(step)],
            Sampling(temperature=config.temperature, max_new_tokens=config.max_new_tokens),
            generator(self.backbone.device, self.seed, step, 0),
            minibatch_size=config.minibatch_size,
            missing_eos_score=config.missing_eos_score,
            tick=tick,
        )
        rewards, kl = rewards_with_kl(rollout.scores, rollout.logprobs, rollout.ref_logprobs, rollout.mask, self.kl_coef)
        if config.whiten_rewards:
            rewards = whiten(rewards, rollout.mask, shift_mean=False)
        advantages, returns = gae(rewards, rollout.values, rollout.mask, gamma=config.gamma, lam=config.lam)
        advantages = whiten(advantages, rollout.mask)
        stats = self.update(rollout, advantages, returns, tick)
        stats |= {
            "objective/scores": float(rollout.scores.mean()),
            "objective/scores_std": float(rollout.scores.std(unbiased=False)),
            "objective/kl": float(kl.sum(-1).mean()),
            "objective/kl_coef": self.kl_coef,
            "objective/rewards": float(rewards.sum(-1).mean()),
            "policy/entropy_avg": float(masked_mean(rollout.entropy, rollout.mask)),
            "val/response_length": float(rollout.mask.sum(-1).float().mean()),
            "val/finished": float(rollout.finished.float().mean()),
            "val/explained_variance": explained_variance(rollout.values, returns, rollout.mask),
        }
        self.kl_coef = adapted_kl_coef(
            self.kl_coef, stats["objective/kl"], target=config.kl_target, completions=len(rollout.scores), horizon=config.kl_horizon
        )
        self.step_done += 1
        return stats

    def update(
        self, rollout: Rollout, advantages: torch.Tensor, returns: torch.Tensor, tick: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        """The epochs over one batch. Every pass sees the rows in an order of its own."""
        config = self.config
        seen: list[dict[str, float]] = []
        lowest = self.backbone.lowest_adapted(POLICY)
        for epoch in range(config.epochs):
            shuffle = generator(torch.device("cpu"), self.seed, self.step_done, 1 + epoch)
            for rows in torch.randperm(len(rollout.scores), generator=shuffle).split(config.minibatch_size):
                rows = rows.to(self.backbone.device)
                part = rollout.take(rows)
                width = part.responses.shape[1]
                with self.backbone.using(POLICY):
                    now = read(self.backbone, self.value_head, part, config.temperature, lowest=lowest)
                policy = policy_loss(now.logprobs, part.logprobs, advantages[rows, :width], part.mask, clip=config.clip)
                value, value_clipfrac = value_loss(
                    now.values, part.values, returns[rows, :width], part.mask, clip=config.value_clip
                )
                self.optimizer.zero_grad(set_to_none=True)
                (policy.loss + config.value_coef * value).backward()
                norm = torch.nn.utils.clip_grad_norm_([*self.policy.values(), *self.value_head.parameters()], config.max_grad_norm)
                self.optimizer.step()
                seen.append(
                    {
                        "loss/policy_avg": policy.loss.item(),
                        "loss/value_avg": value.item(),
                        "policy/clipfrac_avg": policy.clipfrac.item(),
                        "policy/approxkl_avg": policy.approxkl.item(),
                        "val/ratio": policy.ratio.item(),
                        "val/clipfrac_avg": value_clipfrac.item(),
                        "policy/grad_norm": norm.item(),
                    }
                )
                tick()
        return {name: sum(s[name] for s in seen) / len(seen) for name in seen[0]}

    def batch_indexes(self, step: int) -> list[int]:
        """The prompts of one step: passes over all prompts, each in an order of its own, cut into batches."""
        n, size = len(self.prompts), self.config.batch_size
        wanted = range(step * size, (step + 1) * size)
        orders = {
            k: torch.randperm(n, generator=generator(torch.device("cpu"), self.seed, 7919, k)).tolist()
            for k in {i // n for i in wanted}
        }
        return [orders[i // n][i % n] for i in wanted]

    def save(self, folder: Path) -> None:
        """Writes a checkpoint beside the old one and then takes its place, so that a kill leaves one of them whole."""
        part, old = folder.with_name(folder.name + ".part"), folder.with_name(folder.name + ".old")
        shutil.rmtree(part, ignore_errors=True)
        self.backbone.save_adapter(POLICY, part)
        save_file({k: v.detach().cpu().contiguous() for k, v in self.value_head.state_dict().items()}, part / "value_head.safetensors")
        moments = {
            f"{index}.{key}": value.detach().cpu().contiguous()
            for index, state in self.optimizer.state_dict()["state"].items()
            for key, value in state.items()
        }
        save_file(moments, part / "optimizer.safetensors")
        (part / STATE_FILE).write_text(json.dumps({"step_done": self.step_done, "kl_coef": self.kl_coef}))
        # Where an earlier save was cut short there is only the old one: it goes once the new one has its name.
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)

    def load(self, folder: Path) -> bool:
        """Goes back to the last checkpoint, if there is one."""
        found = next((f for f in (folder, folder.with_name(folder.name + ".old")) if (f / STATE_FILE).is_file()), None)
        if found is None:
            return False
        saved = load_file(found / "adapter_model.safetensors")
        with torch.no_grad():
            for name, parameter in self.policy.items():
                parameter.copy_(saved[name.replace(f".{POLICY}.", ".")])
        self.value_head.load_state_dict(load_file(found / "value_head.safetensors"))
        state = self.optimizer.state_dict()
        state["state"] = {}
        for key, value in load_file(found / "optimizer.safetensors").items():
            index, name = key.split(".", 1)
            state["state"].setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(state)
        figures = json.loads((found / STATE_FILE).read_text())
        self.step_done, self.kl_coef = figures["step_done"], figures["kl_coef"]
        return True


def explained_variance(values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over response tokens; 0 says that the values know nothing."""
    spread = returns[mask].var(unbiased=False)
    return float(1 - (returns - values)[mask].var(unbiased=False) / spread) if spread > 0 else 0.0
