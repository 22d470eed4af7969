"""The workload on which PPO trainers are compared. Both sides import it, so it needs only the standard library."""

from __future__ import annotations

import argparse
import json
import random
import resource
from dataclasses import asdict, dataclass, fields
from typing import Any

RANK, ALPHA = 16, 32
LEARNING_RATE = 3e-4
NEVER_SAMPLED = 3
"""The end-of-sequence token of both sides: a token that the model never generates, so that all responses have the same length."""
MARK = "FIGURES "
"""Prefix of the line of JSON that a side prints at its end."""


PACKAGED = "packaged"
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "1.5b": {"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
}
"""Random weights in the shape of Qwen2, beside the packaged model: `tiny` to try a command, `1.5b` to measure an accelerator."""


def qwen2_fields(shape: str) -> dict[str, Any]:
    """The fields of a shape's `Qwen2Config`."""
    ends = {"bos_token_id": None, "eos_token_id": NEVER_SAMPLED, "pad_token_id": NEVER_SAMPLED + 1}
    return {**SHAPES[shape], **ends, "num_key_value_heads": 2, "max_position_embeddings": 4096, "tie_word_embeddings": True}


@dataclass(frozen=True, slots=True)
class Workload:
    """What one PPO step is measured on."""

    device: str = "cpu"
    shape: str = PACKAGED
    prompts: int = 64
    prompt_tokens: int = 32
    response_tokens: int = 48
    minibatch: int = 16
    epochs: int = 4

    @property
    def dtype(self) -> str:
        """Of the base weights with a random shape, on both sides. The packaged model has the dtype that each side would choose."""
        return "bfloat16" if self.device == "cuda" else "float32"

    @property
    def new_tokens(self) -> int:
        return self.prompts * self.response_tokens

    def prompt_ids(self, vocabulary: int) -> list[list[int]]:
        """The same prompts for both sides; their content does not affect the time."""
        rng = random.Random(0)
        return [[rng.randrange(100, vocabulary) for _ in range(self.prompt_tokens)] for _ in range(self.prompts)]

    def arguments(self) -> list[str]:
        """The options of a side's command line."""
        return [part for name, value in asdict(self).items() for part in (f"--{name.replace('_', '-')}", str(value))]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a workload."""
    choices = {"device": ("cpu", "cuda"), "shape": (PACKAGED, *SHAPES)}
    for field in fields(Workload):
        name, value = f"--{field.name.replace('_', '-')}", field.default
        parser.add_argument(name, type=type(value), default=value, choices=choices.get(field.name), help=f"default {value}")


def chosen(options: argparse.Namespace) -> Workload:
    """The workload of these options."""
    return Workload(**{field.name: getattr(options, field.name) for field in fields(Workload)})


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a causal language model that determine its matrix products."""

    layers: int
    per_layer: int
    """Weights in the linear maps of one layer."""
    hidden: int
    vocabulary: int


def flops_needed(load: Workload, sizes: Sizes, *, adapted: int, reward_adapted: int) -> dict[str, float]:
    """Multiplications and additions that one PPO step needs at least, by phase.

    Two per weight and token. The frozen layers below the adapters are computed once for policy, reference, reward and all epochs; a
    frozen map's backward pass costs as much as its forward pass, because it only propagates a gradient; the output embedding is
    needed at response tokens only, and once more for its gradient. Attention and the adapter itself are not counted. The prefill is part
    of the rollout.
    """
    body = 2 * sizes.per_layer
    head = 2 * sizes.hidden * sizes.vocabulary
    tokens = load.prompts * (load.prompt_tokens + load.response_tokens)
    responses = load.new_tokens
    return {
        "prefill": load.prompts * load.prompt_tokens * body * sizes.layers,
        "rollout": tokens * body * sizes.layers + responses * head,
        "scoring": tokens * body * (max(adapted, reward_adapted) + adapted) + responses * head,
        "update": load.epochs * (tokens * body * 2 * adapted + responses * 2 * head),
    }


def report(**figures: object) -> None:
    """Prints a side's figures with its peak memory in GiB: that of its process, unless one of an accelerator is given."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(MARK + json.dumps({"peak_gib": peak} | figures), flush=True)


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
