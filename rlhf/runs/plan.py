"""How much work the methods of TRL are, for the time left. No torch."""

from __future__ import annotations

from rlhf.config import RoundConfig


def updates(config: RoundConfig, n_pairs: int, n_demonstrations: int) -> int:
    """How often the policy's weights change."""
    if config.method == "dpo":
        return config.dpo.epochs * -(-n_pairs // config.dpo.batch_size)
    if config.method == "sft":
        return config.sft.epochs * -(-n_demonstrations // config.sft.batch_size)
    return config.group.steps * config.group.batch_size // config.group.minibatch_size


def ticks(config: RoundConfig, n_pairs: int, n_demonstrations: int) -> int:
    """Every update ticks, and of a batch that is drawn every position."""
    drawn = config.group.steps * config.ppo.max_new_tokens if config.method in ("rloo", "grpo") else 0
    return drawn + updates(config, n_pairs, n_demonstrations)


def tokens_read(config: RoundConfig, n_pairs: int, n_demonstrations: int, *, prompt: int, decode_cost: float) -> float:
    """The work in tokens read; learning from one costs as much as reading three.

    Args:
        prompt: tokens of a usual prompt.
        decode_cost: how many tokens can be read in the time that one is sampled.
    """
    answer = config.ppo.max_new_tokens
    if config.method == "dpo":
        # Two answers a pair, each read by the reference too.
        return config.dpo.epochs * n_pairs * 2 * (prompt + answer) * (3 + 1)
    if config.method == "sft":
        return config.sft.epochs * n_demonstrations * (prompt + answer) * 3
    # Once for the old policy, the reference and the reward model each.
    return config.group.steps * config.group.batch_size * (answer * decode_cost + (prompt + answer) * (3 + 3))
