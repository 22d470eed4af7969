"""Proximal policy optimisation of a LoRA policy against a reward model, as one readable loop.

The step reads as the paper: collect, turn scores into rewards, estimate advantages, update. The formulas are in
`ppo_math`, the experience in `rollout`, the scores in `reward.scoring`; docs/research/ppo.md says where each detail comes from and which
test proves it. Training that is resumed from a checkpoint continues bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlhf.config import AdapterConfig, PPOConfig, SamplingConfig, ScoringConfig
from rlhf.generation.engine import GenerationEngine
from rlhf.generation.sampling import combined_seed, generator
from rlhf.models.backbone import Backbone
from rlhf.models.checkpoint import STATE_FILE, latest_checkpoint, load_optimizer, replace_folder, save_optimizer
from rlhf.models.lengths import require_room
from rlhf.models.ranks import Ranks
from rlhf.ppo import ptx
from rlhf.ppo.actor_critic import ActorCritic
from rlhf.ppo.checkpoint_selection import PolicyMetrics
from rlhf.ppo.checkpoint_tracker import CheckpointTracker
from rlhf.ppo.ppo_math import (
    adapted_kl_coef,
    explained_variance,
    gae,
    importance_ratio,
    kl_per_token,
    masked_mean,
    policy_loss,
    rewards_with_kl,
    value_loss,
    whiten,
)
from rlhf.ppo.rollout import POLICY, Rollout, Sampler, add_policy, collect
from rlhf.ppo.value_head import HiddenRecorder, ValueHead, init_from_returns
from rlhf.reward.model import TokenizedExample
from rlhf.reward.scoring import RewardShaper, Scorer
from rlhf.runs.results import PolicyOutcome
from rlhf.runs.work import DECODE_COST, NO_PROGRESS, UPDATE_COST, Work
from rlhf.safe_files import ModelError

COLLECT_COST, EPOCH_COST = DECODE_COST + 2, UPDATE_COST + 1
"""Time of a rollout and of an epoch's updates, in forward passes over the same tokens."""

UPDATE_METRICS = ("loss/policy_avg", "loss/value_avg", "policy/clipfrac_avg", "policy/approxkl_avg", "val/ratio", "val/clipfrac_avg")
"""Metrics of a minibatch, in the order in which they are computed."""


class PPO:
    """Policy adapter, value head, their optimiser and the KL controller."""

    def __init__(
        self,
        backbone: Backbone,
        reward_model: Scorer,
        prompts: Sequence[Sequence[int]],
        config: PPOConfig,
        adapter: AdapterConfig,
        *,
        sampling: SamplingConfig,
        scoring: ScoringConfig = ScoringConfig(),
        seed: int,
        start: Path | None = None,
        demonstrations: Sequence[TokenizedExample] = (),
        ranks: Ranks = Ranks(),
        sampler: Sampler | None = None,
    ):
        """`start` is the folder of the adapter that the policy begins with and that is its reference; None for the base.

        Each of the `ranks` answers and learns from its share of every batch, whose size is the config's; weights, metrics and decisions
        are the same on all of them.

        Args:
            sampler: another engine, which samples the rollouts; the losses are corrected for where it differs from the trainer's.
        """
        for prompt in prompts:
            require_room(backbone, prompt)
        self.backbone, self.reward_model, self.prompts, self.config, self.seed = backbone, reward_model, prompts, config, seed
        self.engine = GenerationEngine(backbone)
        self.sampling, self.reward_shaper = sampling, RewardShaper(reward_model, scoring)
        self.demonstrations, self.ranks, self.sampler = demonstrations, ranks, sampler
        self.reference = add_policy(backbone, adapter, seed=seed, start=start)
        self.policy = backbone.parameters(POLICY)
        self.value_head = ValueHead(backbone.hidden_size, sampling.max_new_tokens, backbone.device)
        self.model: nn.Module = ActorCritic(backbone, self.value_head, trained=POLICY, temperature=sampling.temperature)
        """All that is trained, in one module, so that another one can be put around it."""
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(self.policy.values()), "lr": config.learning_rate},
                {"params": list(self.value_head.parameters()), "lr": config.value_learning_rate},
            ],
            eps=1e-5,
            weight_decay=0.0,
            fused=True,
        )
        self.kl_coef = config.kl_coef
        self.step_done = 0
        self.tracker = CheckpointTracker(config.kl_budget, keep_best=config.keep == "best")

    @property
    def done(self) -> bool:
        return self.tracker.kl_exceeded or self.step_done >= self.config.steps

    @property
    def total(self) -> int:
        """Units of work of the whole training: its steps, and the last policy's metrics where the best is kept."""
        return self.config.steps + self.tracker.keep_best

    def step(self, on_progress: Work = NO_PROGRESS) -> dict[str, float]:
        """One PPO step; returns its metrics under TRL's names."""
        config = self.config
        init_value = self.step_done == 0 and config.value_init == "reward"
        on_progress.total(COLLECT_COST * (1 + init_value) + EPOCH_COST * config.epochs)
        if init_value:
            self.value_from_scores(on_progress.part(COLLECT_COST))
        rollout, kl, metrics = self.experience(on_progress.part(COLLECT_COST))
        rewards = rewards_with_kl(rollout.scores, kl, rollout.mask, self.kl_coef)
        if config.whiten_rewards:
            rewards = whiten(rewards, rollout.mask, shift_mean=False)
        # On the host: the recursion is some operations for each token, which are too small for an accelerator.
        on_host = (x.cpu() for x in (rewards, rollout.values, rollout.mask))
        advantages, returns = (x.to(rewards.device) for x in gae(*on_host, gamma=config.gamma, lam=config.lam))
        advantages = whiten(advantages, rollout.mask)
        metrics |= {
            "objective/kl_coef": self.kl_coef,
            "objective/rewards": float(rewards.sum(-1).mean()),
            "val/explained_variance": explained_variance(rollout.values, returns, rollout.mask),
        }
        # A policy above the KL budget is not updated any more; its metrics are still logged.
        if not self.tracker.kl_exceeded:
            metrics |= self.update(rollout, advantages, returns, on_progress.part(EPOCH_COST * config.epochs))
        # While only the value head is trained, the KL is 0 whatever its coefficient is.
        if not self.warming_up:
            self.kl_coef = adapted_kl_coef(
                self.kl_coef,
                metrics["objective/kl"],
                target=config.kl_target,
                completions=len(rollout.scores),
                horizon=config.kl_horizon,
            )
        self.step_done += 1
        return metrics

    def experience(self, on_progress: Work) -> tuple[Rollout, Float[Tensor, "b t"], dict[str, float]]:
        """A batch sampled by the policy, its KL per token, and the policy's metrics."""
        rollout = self.collect(self.value_head, on_progress)
        kl = kl_per_token(rollout.logprobs, rollout.ref_logprobs, rollout.mask, estimator=self.config.kl_estimator)
        # From all rows on every rank. Ranks on other processors may round otherwise, and must decide alike.
        per_completion = self.ranks.mean({"kl": float(kl.sum(-1).mean())})["kl"]
        shaper_metrics = self.ranks.mean(self.reward_shaper.metrics)
        self.tracker.update(PolicyMetrics(shaper_metrics["objective/conservative_scores"], per_completion), self.policy)
        return (
            rollout,
            kl,
            {
                "objective/scores": float(rollout.scores.mean()),
                "objective/scores_std": float(rollout.scores.std(unbiased=False)),
                **shaper_metrics,
                "objective/kl": per_completion,
                "objective/sqrt_kl": max(per_completion, 0.0) ** 0.5,
                "policy/entropy_avg": float(masked_mean(rollout.entropy, rollout.mask)),
                "val/response_length": float(rollout.mask.sum(-1).float().mean()),
                "val/finished": float(rollout.finished.float().mean()),
                **({} if self.sampler is None else self.sampling_metrics(rollout)),
            },
        )

    def sampling_metrics(self, rollout: Rollout) -> dict[str, float]:
        """How far the engine that sampled is from the trainer's, on the tokens of a rollout."""
        mask, most = rollout.mask, self.config.importance_sampling_clip_max
        ratio = importance_ratio(rollout.logprobs, rollout.rollout_logprobs, mask)
        difference = (rollout.logprobs - rollout.rollout_logprobs).abs()
        return {
            "sampling/importance_sampling_ratio/mean": float(masked_mean(ratio, mask)),
            "sampling/importance_sampling_truncated": float(masked_mean((ratio > most).float(), mask)),
            "sampling/sampling_logp_difference/mean": float(masked_mean(difference, mask)),
            "sampling/sampling_logp_difference/max": float(difference[mask].max()),
        }

    def collect(self, value_head: nn.Module, on_progress: Work, *, stream: int = 0) -> Rollout:
        """The rollout of the next step, of all ranks; other streams sample other responses to the same prompts."""
        rollout = collect(
            self.backbone,
            self.reward_shaper,
            value_head,
            [self.prompts[i] for i in self.batch_indexes(self.step_done)],
            self.sampling.to_sampling(),
            combined_seed(self.seed, self.step_done, stream),
            minibatch_size=self.config.minibatch_size,
            share=self.ranks.share(self.config.batch_size),
            reference=self.reference,
            engine=self.engine,
            sampler=self.sampler,
            on_progress=on_progress,
        )
        return rollout.of_all(self.ranks)

    @property
    def warming_up(self) -> bool:
        """Whether the next step trains the value head alone."""
        return self.step_done < self.config.value_warmup

    def update(
        self,
        rollout: Rollout,
        advantages: Float[Tensor, "b t"],
        returns: Float[Tensor, "b t"],
        on_progress: Work = NO_PROGRESS,
    ) -> dict[str, float]:
        """The epochs over one batch, each in an order of its own."""
        config = self.config
        history: list[dict[str, float]] = []
        on_progress.total(config.epochs * len(rollout.scores))
        for epoch in range(config.epochs):
            shuffle = generator(torch.device("cpu"), self.seed, self.step_done, 1 + epoch)
            minibatches = torch.split(torch.randperm(len(rollout.scores), generator=shuffle), config.minibatch_size)
            for number, rows in enumerate(minibatches):
                self.optimizer.zero_grad(set_to_none=True)
                metrics: dict[str, Tensor | float] = {**self.add_gradients(rollout, advantages, returns, rows)}
                if config.ptx_coef and not self.warming_up:
                    metrics |= self.add_ptx_gradients(epoch, number)
                trained = [*self.policy.values(), *self.value_head.parameters()]
                self.ranks.sum_gradients(trained)
                norm = torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
                self.optimizer.step()
                history.append(read_metrics(metrics | {"policy/grad_norm": norm}))
                on_progress(len(rows))
            if config.early_stopping_kl and _mean(history[-len(minibatches) :])["policy/approxkl_avg"] > config.early_stopping_kl:
                break
        return _mean(history) | {"policy/epochs": epoch + 1}

    def add_gradients(
        self, rollout: Rollout, advantages: Float[Tensor, "b t"], returns: Float[Tensor, "b t"], rows: Int[Tensor, " n"]
    ) -> dict[str, Tensor]:
        """Accumulates a minibatch's gradients over microbatches, weighted by their response tokens; returns its metrics.

        On several ranks the gradients are those of this rank's share, and their sum over ranks is the minibatch's; the metrics are its.

        Args:
            rows: on the host.
        """
        config = self.config
        metrics: list[Float[Tensor, " m"]] = []
        tokens = rollout.lengths[rows, 1].sum()
        for microbatch in torch.split(rows[self.ranks.share(len(rows))], config.microbatch_size or len(rows)):
            part, at = rollout.select(microbatch), microbatch.to(rollout.mask.device)
            width = part.responses.shape[1]
            current = self.model(part.tokens(), adapter=POLICY, train_policy=not self.warming_up, entropy=config.entropy_coef > 0)
            weights = None
            if self.sampler is not None:
                ratio = importance_ratio(part.logprobs, part.rollout_logprobs, part.mask)
                weights = ratio.clamp(max=config.importance_sampling_clip_max)
            policy = policy_loss(current.logprobs, part.logprobs, advantages[at, :width], part.mask, clip=config.clip, weights=weights)
            value, value_clipfrac = value_loss(current.values, part.values, returns[at, :width], part.mask, clip=config.value_clip)
            loss = policy.loss + config.value_coef * value
            if config.entropy_coef and current.entropy is not None:
                loss = loss - config.entropy_coef * masked_mean(current.entropy, part.mask)
            share = float(part.lengths[:, 1].sum() / tokens)
            (share * loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
            # Read later, all at once: an accelerator is waited for at each look.
            terms = (policy.loss, value, policy.clipfrac, policy.approxkl, policy.ratio, value_clipfrac)
            metrics.append(share * torch.stack([term.detach() for term in terms]).double())
        return dict(zip(UPDATE_METRICS, self.ranks.sum(sum(metrics[1:], metrics[0])), strict=True))

    def add_ptx_gradients(self, epoch: int, number: int) -> dict[str, float]:
        """Adds the gradients of the demonstrations for the epoch's minibatch `number`; returns the mean loss per token."""
        config = self.config
        rng = generator(torch.device("cpu"), self.seed, self.step_done, 1 + config.epochs + epoch)
        rows = ptx.batch(self.demonstrations, number, config.minibatch_size, rng)
        rows = rows[self.ranks.share(len(rows))]
        size = config.microbatch_size or max(1, len(rows))
        batches = [ptx.tokens(self.backbone, rows[start : start + size]) for start in range(0, len(rows), size)]
        return {"loss/ptx_avg": ptx.add_gradients(self.model, batches, config.ptx_coef, adapter=POLICY, ranks=self.ranks)}

    def value_from_scores(self, on_progress: Work) -> None:
        """Fits the value head to the returns of one batch, which the policy samples before its first update."""
        recorder = HiddenRecorder()
        # Not the responses of the first step: values fitted to those would cancel their advantages.
        rollout = self.collect(recorder, on_progress, stream=1 + 2 * self.config.epochs)
        hidden = self.ranks.gather_padded(recorder.hidden)
        init_from_returns(self.value_head, hidden, rollout.scores, rollout.mask, gamma=self.config.gamma)

    def batch_indexes(self, step: int) -> list[int]:
        """The prompts of one step: passes over all prompts, each in an order of its own, cut into batches."""
        n, size = len(self.prompts), self.config.batch_size
        wanted = range(step * size, (step + 1) * size)
        orders = {
            k: torch.randperm(n, generator=generator(torch.device("cpu"), self.seed, 7919, k)).tolist() for k in {i // n for i in wanted}
        }
        return [orders[i // n][i % n] for i in wanted]

    def finish(self, on_progress: Work = NO_PROGRESS) -> PolicyOutcome:
        """Restores the policy to keep; returns how training ended."""
        stopped = self.tracker.stopped_by_kl()
        if not self.tracker.keep_best:
            return PolicyOutcome(stopped)
        if not stopped:
            # The policy after the last update has no metrics yet.
            self.experience(on_progress)
        return PolicyOutcome(stopped, self.tracker.restore(self.policy))

    # Checkpoints.

    def save(self, folder: Path) -> None:
        """Replaces the old checkpoint; a kill leaves one of the two complete."""
        with replace_folder(folder) as part:
            self.backbone.save_adapter(POLICY, part)
            save_file({k: v.detach().cpu().contiguous() for k, v in self.value_head.state_dict().items()}, part / "value_head.safetensors")
            save_optimizer(self.optimizer, part / "optimizer.safetensors")
            self.tracker.save(part)
            state = {"step_done": self.step_done, "kl_coef": self.kl_coef, "measured": self.tracker.measured}
            (part / STATE_FILE).write_text(json.dumps(state))

    def load(self, folder: Path) -> bool:
        """Restores the latest checkpoint; returns whether there was one.

        Raises:
            ModelError: another version of the program wrote it, with a value head of another shape.
        """
        checkpoint = latest_checkpoint(folder)
        if checkpoint is None:
            return False
        values = load_file(checkpoint / "value_head.safetensors")
        if values["weight"].shape != self.value_head.weight.shape:
            raise ModelError(
                f"{checkpoint}: another version made this checkpoint, with a value head of another shape. Start a new round; or delete "
                "that folder and resume, and PPO begins anew on the same reward model"
            )
        self.backbone.restore_adapter(POLICY, checkpoint)
        self.value_head.load_state_dict(values)
        load_optimizer(self.optimizer, checkpoint / "optimizer.safetensors")
        state = json.loads((checkpoint / STATE_FILE).read_text())
        self.step_done, self.kl_coef = state["step_done"], state["kl_coef"]
        # Checkpoints of older versions have no record of earlier policies.
        self.tracker.load(checkpoint, state.get("measured", []))
        return True


def read_metrics(metrics: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The numbers of these metrics, which may be on an accelerator, with one look at it."""
    on_device = {name: value.detach().double() for name, value in metrics.items() if isinstance(value, Tensor)}
    numbers = dict(zip(on_device, torch.stack([*on_device.values()]).tolist(), strict=True)) if on_device else {}
    return {name: numbers[name] if isinstance(value, Tensor) else value for name, value in metrics.items()}


def _mean(history: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sum(s[name] for s in history) / len(history) for name in history[0]}
