"""Estimates of the work of a round's stages, for the progress bar and the time left. No torch."""

from __future__ import annotations

from rlhf.config import RoundConfig
from rlhf.runs.work import DECODE_COST, UPDATE_COST


def updates(config: RoundConfig, n_pairs: int, n_demonstrations: int) -> int:
    """Number of optimizer updates of the policy."""
    if config.method == "dpo":
        return config.dpo.epochs * -(-n_pairs // config.dpo.batch_size)
    if config.method == "sft":
        return config.sft.epochs * -(-n_demonstrations // config.sft.batch_size)
    return config.group.steps * config.group.batch_size // config.group.minibatch_size


def work_units(config: RoundConfig, n_pairs: int, n_demonstrations: int) -> int:
    """Units of work that the stage reports: one per update, and one per decoding step of a sampled batch."""
    sampled = config.group.steps * config.sampling.max_new_tokens if config.method in ("rloo", "grpo") else 0
    return sampled + updates(config, n_pairs, n_demonstrations)


PROMPT_TOKENS = 60
"""Length of a typical prompt."""


def stage_costs(
    config: RoundConfig, *, n_pairs: int, n_heldout_pairs: int, n_heldout: int, n_demonstrations: int
) -> dict[str, dict[str, float]]:
    """The parts of each stage with their cost in tokens of a forward pass; only the proportions matter, for the time left.

    Args:
        n_pairs: preference pairs that are trained on.
        n_heldout: held-out prompts.
    """
    answer = config.sampling.max_new_tokens
    n_answers = n_heldout * config.evaluation.completions_per_prompt
    sampled = n_answers * config.evaluation.max_new_tokens * DECODE_COST
    read = n_answers * (PROMPT_TOKENS + config.evaluation.max_new_tokens)
    depth = config.reward.depth
    return {
        "snapshot": {"sample": sampled},
        "reward": {
            "fit": 2 * n_pairs * (PROMPT_TOKENS + answer) * (1 + (1 + UPDATE_COST) * config.reward.epochs) * depth,
            "sample": config.reward.normalize_samples * answer * DECODE_COST,
            "normalise": config.reward.normalize_samples * (PROMPT_TOKENS + answer) * depth,
        },
        config.method: {"train": _training_cost(config, n_pairs, n_demonstrations)},
        "evaluate": {
            "pairs": 2 * n_heldout_pairs * (PROMPT_TOKENS + answer) * depth,
            "sample": sampled,
            "score": 2 * read * depth,
            "kl": 2 * read,
            # How long a reward function takes is not known.
            "reward_function": sampled / 10 if config.reward_function else 0,
            "best_of_n": config.evaluation.best_of * (sampled + read) + 2 * read * (config.evaluation.best_of > 0),
        },
        "register": {"save": 1},
    }


def _training_cost(config: RoundConfig, n_pairs: int, n_demonstrations: int) -> float:
    """The cost of the policy's training, in tokens of a forward pass."""
    answer = config.sampling.max_new_tokens
    tokens = PROMPT_TOKENS + answer
    if config.method == "ppo":
        return config.ppo.steps * config.ppo.batch_size * (answer * DECODE_COST + tokens * (2 + (1 + UPDATE_COST) * config.ppo.epochs))
    if config.method == "dpo":
        # Two answers for each pair, each with a forward pass of the reference too.
        return config.dpo.epochs * n_pairs * 2 * tokens * (1 + UPDATE_COST + 1)
    if config.method == "sft":
        return config.sft.epochs * n_demonstrations * tokens * (1 + UPDATE_COST)
    # The old policy, the reference and the reward model each take one forward pass.
    return config.group.steps * config.group.batch_size * (answer * DECODE_COST + tokens * (1 + UPDATE_COST + 3))
