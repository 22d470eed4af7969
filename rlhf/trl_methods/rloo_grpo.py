"""RLOO and GRPO, by TRL's trainers: the baseline is computed from several completions of one prompt, without a value head.

RLOO: Ahmadian 2024 (arXiv 2402.14740). GRPO: Shao 2024 (arXiv 2402.03300), with the token-level loss of DAPO (Yu 2025, arXiv
2503.14476), as TRL has it by default. Both are trained on the same scores as PPO (`reward.scoring`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import Trainer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer  # type: ignore[attr-defined]  # TRL's lazy modules re-export without `__all__`
from trl.trainer.utils import add_fused_lm_head

from rlhf.config import GroupConfig
from rlhf.generation.sampling import GeneratedSequence
from rlhf.models.backbone import Backbone
from rlhf.models.trl_wrapper import on_one_device, processing_class
from rlhf.reward.scoring import ScoreFunction
from rlhf.runs.work import Work
from rlhf.trl_methods.trl_policy import LogCallback, Policy, arguments, learn
from storage.core.records import Message, Sampling

TRAINERS = {"rloo": (RLOOConfig, RLOOTrainer), "grpo": (GRPOConfig, GRPOTrainer)}

PPO_NAMES = {
    "reward": "objective/scores",
    "entropy": "policy/entropy_avg",
    "completions/mean_length": "val/response_length",
    "clip_ratio/region_mean": "policy/clipfrac_avg",
    "grad_norm": "policy/grad_norm",
    "loss": "loss/policy_avg",
}
"""PPO's name of each metric that TRL's trainer logs too, by TRL's name."""


def to_ppo_names(method: str, logged: Mapping[str, float]) -> dict[str, float]:
    """TRL's metrics of one batch: those that PPO has too under PPO's names, the others as `method/name`."""
    metrics = {PPO_NAMES.get(name, f"{method}/{name}"): value for name, value in logged.items()}
    # TRL's KL is a mean over tokens, PPO's over completions: sum = mean over tokens * tokens / completions.
    metrics["objective/kl"] = metrics.pop(f"{method}/kl", 0.0) * logged["completions/mean_length"]
    metrics["val/finished"] = 1 - metrics.pop(f"{method}/completions/clipped_ratio")
    return metrics


def train(
    method: str,
    backbone: Backbone,
    prompts: Sequence[Sequence[Message]],
    scorer: ScoreFunction,
    config: GroupConfig,
    sampling: Sampling,
    *,
    reference: str | None = None,
    seed: int,
    scratch: Path,
    on_progress: Work,
    log: LogCallback,
) -> None:
    """Trains on `config.steps` batches of completions, in minibatches. `log` is called once a batch, with its number."""
    per_step = config.batch_size // config.minibatch_size
    configuration, trainer_class = TRAINERS[method]
    training_args = configuration(
        **arguments(backbone, scratch, seed=seed),
        max_steps=config.steps * per_step,
        logging_steps=per_step,
        per_device_train_batch_size=config.minibatch_size,
        generation_batch_size=config.batch_size,
        num_generations=config.num_generations,
        max_completion_length=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=1.0,
        top_k=0,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant",
        epsilon=config.clip,
        # With a coefficient TRL would load a reference model from disk; `make` sets one on the shared backbone.
        beta=0.0,
    )
    # The trainer drops an incomplete batch: prompts are repeated, so that a few of them make full batches too.
    n_prompts = config.steps * config.batch_size // config.num_generations
    dataset = [{"prompt": list(prompt)} for prompt in (list(prompts) * -(-n_prompts // len(prompts)))[:n_prompts]]

    # TRL derives stored metric names from this function's name (`rewards/score/mean`): do not rename it.
    def score(prompts: list[list[Message]], completion_ids: list[list[int]], **unused: Any) -> list[float]:
        sequences = [GeneratedSequence(ids, backbone.finish_reason(ids)) for ids in completion_ids]
        return scorer([backbone.encode(prompt) for prompt in prompts], sequences, on_progress.part(0)).tolist()

    def make(policy: Policy, callback: TrainerCallback) -> Trainer:
        trainer = trainer_class(
            model=policy,
            reward_funcs=score,
            args=on_one_device(training_args),
            train_dataset=Dataset.from_list(dataset),
            processing_class=processing_class(backbone),
            callbacks=[callback],
        )
        trainer.beta = config.kl_coef
        if config.kl_coef:
            trainer.ref_model = Policy(backbone, reference, trained=False)
            add_fused_lm_head(trainer.ref_model, temperature=sampling.temperature)
        built: Trainer = trainer
        return built

    learn(
        make, backbone, seed=seed, on_progress=on_progress, log=lambda update, logged: log(update // per_step, to_ppo_names(method, logged))
    )
