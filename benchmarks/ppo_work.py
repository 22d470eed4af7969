"""The workload on which PPO trainers are compared. Both sides import it, so it needs only the standard library."""

from __future__ import annotations

import json
import random
import resource
from dataclasses import dataclass

PROMPTS, PROMPT_TOKENS, RESPONSE_TOKENS = 64, 32, 48
EPOCHS, MINIBATCH, RANK, ALPHA = 4, 16, 16, 32
LEARNING_RATE = 3e-4
NEVER_SAMPLED = 3
"""The end-of-sequence token of both sides: a token that the model never generates, so that all responses have the same length."""
MARK = "FIGURES "
"""Prefix of the line of JSON that a side prints at its end."""


def prompts(vocabulary: int) -> list[list[int]]:
    """The same prompts for both sides; their content does not affect the time."""
    rng = random.Random(0)
    return [[rng.randrange(100, vocabulary) for _ in range(PROMPT_TOKENS)] for _ in range(PROMPTS)]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a causal language model that determine its matrix products."""

    layers: int
    per_layer: int
    """Weights in the linear maps of one layer."""
    hidden: int
    vocabulary: int


def flops_needed(sizes: Sizes, *, adapted: int, reward_adapted: int) -> dict[str, float]:
    """Multiplications and additions that one PPO step needs at least, by phase.

    Two per weight and token. The frozen layers below the adapters are computed once for policy, reference, reward and all epochs; a
    frozen map's backward pass costs as much as its forward pass, because it only propagates a gradient; the output embedding is
    needed at response tokens only, and once more for its gradient. Attention and the adapter itself are not counted. The prefill is part
    of the rollout.
    """
    body = 2 * sizes.per_layer
    head = 2 * sizes.hidden * sizes.vocabulary
    tokens = PROMPTS * (PROMPT_TOKENS + RESPONSE_TOKENS)
    responses = PROMPTS * RESPONSE_TOKENS
    return {
        "prefill": PROMPTS * PROMPT_TOKENS * body * sizes.layers,
        "rollout": tokens * body * sizes.layers + responses * head,
        "scoring": tokens * body * (max(adapted, reward_adapted) + adapted) + responses * head,
        "update": EPOCHS * (tokens * body * 2 * adapted + responses * 2 * head),
    }


def report(**figures: object) -> None:
    """Prints a side's figures with its process's peak memory, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(MARK + json.dumps(figures | {"peak_gib": peak}), flush=True)


# ---- the vowel task

VOWEL_STEPS, VOWEL_BATCH, VOWEL_NEW_TOKENS, VOWEL_RANK = 25, 64, 24, 8
VOWEL_LEARNING_RATE = 2e-3
VOWEL_KL = 0.05
VOWEL_LAMBDAS = (0.95, 1.0)
"""GAE's lambda: the paper's, which is the default on both sides, and 1, which does not use the values."""
PER_VOWEL = 0.1
GPT2 = {"vocab_size": 512, "n_positions": 64, "n_embd": 256, "n_layer": 6, "n_head": 8, "initializer_range": 0.1}
"""4.9 million random weights.

With GPT-2's own initializer range (.02) the embeddings, which are also the output head, separate the tokens by less than a nat
whatever the adapter computes, and neither side learns.
"""


def words() -> list[str]:
    """The text of each token of the small vocabulary: padding, the end, the letters, and pairs of letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [a + b for a in letters for b in letters]
    random.Random(0).shuffle(pairs)
    return ["<pad>", "<end>", *letters, *pairs[: GPT2["vocab_size"] - 2 - len(letters)]]


def vowel_score(text: str) -> float:
    return PER_VOWEL * sum(letter in "aeiou" for letter in text)


def vowel_prompts() -> list[list[int]]:
    rng = random.Random(1)
    return [[rng.randrange(2, GPT2["vocab_size"]) for _ in range(8)] for _ in range(256)]
