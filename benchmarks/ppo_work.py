"""The work that PPO trainers are compared by; read by both sides, so it needs the standard library alone."""

from __future__ import annotations

import json
import random
import resource
from dataclasses import dataclass

PROMPTS, PROMPT_TOKENS, RESPONSE_TOKENS = 64, 32, 48
EPOCHS, MINIBATCH, RANK, ALPHA = 4, 16, 16, 32
LEARNING_RATE = 3e-4
NEVER_DRAWN = 3
"""Ends an answer for both sides: a token that the model was never taught, so all responses have the same length."""
MARK = "FIGURES "
"""Begins the line of JSON that a side ends with."""


def prompts(vocabulary: int) -> list[list[int]]:
    """The same on both sides; what they say makes no difference to the time."""
    rng = random.Random(0)
    return [[rng.randrange(100, vocabulary) for _ in range(PROMPT_TOKENS)] for _ in range(PROMPTS)]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a causal language model, as far as its matrix products go."""

    layers: int
    per_layer: int
    """Weights in the linear maps of one layer."""
    hidden: int
    vocabulary: int


def flops_needed(sizes: Sizes, *, adapted: int, reward_adapted: int) -> dict[str, float]:
    """Multiplications and additions of one PPO step that no arrangement of it can leave out, by phase.

    Two per weight and token. The frozen layers under the adapters are read once for policy, reference, reward and all epochs; a
    frozen map's backward pass is as dear as its forward pass, for it only hands a gradient on; the vocabulary is needed at
    response tokens alone, and its gradient once more. Attention and the adapter itself are not counted. The prefill is part
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
    """Prints a side's figures with the most memory its process ever held, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(MARK + json.dumps(figures | {"peak_gib": peak}), flush=True)


# ---- the vowel task

VOWEL_STEPS, VOWEL_BATCH, VOWEL_NEW_TOKENS, VOWEL_RANK = 25, 64, 24, 8
VOWEL_LEARNING_RATE = 2e-3
VOWEL_KL = 0.05
VOWEL_LAMBDAS = (0.95, 1.0)
"""GAE's lambda: the paper's, which is the default on both sides, and 1, which trusts no value."""
PER_VOWEL = 0.1
GPT2 = {"vocab_size": 512, "n_positions": 64, "n_embd": 256, "n_layer": 6, "n_head": 8, "initializer_range": 0.1}
"""4.9 million weights, drawn at random.

Drawn as narrowly as GPT-2's own (.02) the embeddings, which are the head too, cannot tell the tokens apart by more than a
fraction of a nat whatever an adapter says, and neither side learns anything to speak of.
"""


def words() -> list[str]:
    """What each token of the small vocabulary says: padding, the end, the letters, and pairs of letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [a + b for a in letters for b in letters]
    random.Random(0).shuffle(pairs)
    return ["<pad>", "<end>", *letters, *pairs[: GPT2["vocab_size"] - 2 - len(letters)]]


def vowel_score(text: str) -> float:
    return PER_VOWEL * sum(letter in "aeiou" for letter in text)


def vowel_prompts() -> list[list[int]]:
    rng = random.Random(1)
    return [[rng.randrange(2, GPT2["vocab_size"]) for _ in range(8)] for _ in range(256)]
