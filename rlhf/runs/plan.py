"""Work estimates of the methods that TRL trains (DPO, SFT, RLOO, GRPO), for the progress bar and the time left. No torch."""

from __future__ import annotations

from rlhf.config import RoundConfig


def updates(config: RoundConfig, n_pairs: int, n_demonstrations: int) -> int:
    """Number of optimizer updates of the policy."""
    if config.method == "dpo":
        return config.dpo.epochs * -(-n_pairs // config.dpo.batch_size)
    if config.method == "sft":
        return config.sft.epochs * -(-n_demonstrations // config.sft.batch_size)
    return config.group.steps * config.group.batch_size // config.group.minibatch_size


def ticks(config: RoundConfig, n_pairs: int, n_demonstrations: int) -> int:
    """Units of work that the stage reports: one for each update, and one for each position of a batch that is sampled."""
    sampled = config.group.steps * config.sampling.max_new_tokens if config.method in ("rloo", "grpo") else 0
    return sampled + updates(config, n_pairs, n_demonstrations)


def tokens_read(config: RoundConfig, n_pairs: int, n_demonstrations: int, *, prompt: int, decode_cost: float) -> float:
    """The stage's work in tokens of a forward pass; a token of an update costs as much as three.

    Args:
        prompt: tokens of a typical prompt.
        decode_cost: tokens of a forward pass in the time that sampling one token takes.
    """
    answer = config.sampling.max_new_tokens
    if config.method == "dpo":
        # Two answers for each pair, each with a forward pass of the reference too.
        return config.dpo.epochs * n_pairs * 2 * (prompt + answer) * (3 + 1)
    if config.method == "sft":
        return config.sft.epochs * n_demonstrations * (prompt + answer) * 3
    # The old policy, the reference and the reward model each take one forward pass.
    return config.group.steps * config.group.batch_size * (answer * decode_cost + (prompt + answer) * (3 + 3))
