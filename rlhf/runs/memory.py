"""How much memory a model needs to collect answers and to train a round, as an estimate from its sizes. No torch.

    collecting = process + weights + keys and values of the rows that are sampled at once
    training   = collecting + adapter weights with gradients and Adam's two moments + activations of one minibatch

Per token, a trained layer keeps about 16 hidden and 4 feed-forward vectors and one row of attention weights for each head, as float32.
Everything but the process is multiplied by `ALLOCATOR_OVERHEAD`, because the allocator keeps freed blocks. On the default model
in bfloat16 the estimate of a PPO round is 2.7 GiB; measured were 2.8 GiB.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.config import RoundConfig
from rlhf.runs.plan import PROMPT_TOKENS

PROCESS_GIB = 0.9
"""Python with torch, transformers, PEFT and TRL, before a model is loaded."""

ALLOCATOR_OVERHEAD = 1.15

DPO_SHARE = 4.5
"""How much more a DPO round takes than a PPO round, beside the process: on the default model 9.4 GiB and 2.8 GiB were measured."""

COLLECTED_ROWS, COLLECTED_TOKENS = 16, 768
"""Number of answers that the policy server samples in one batch, and their maximum length."""


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """The sizes of a model that the estimate uses."""

    weight_bytes: int
    """All of the base's weights, as they are held."""
    bytes_per_number: int
    """Of what is computed, such as keys and values."""
    layers: int
    hidden: int
    feedforward: int
    heads: int
    key_value: int
    """Key and value together, per token and layer."""
    vocabulary: int
    linear: int
    """Sum of inputs and outputs of the linear maps in one layer, which is what LoRA adds per rank."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    collecting_gib: float
    ppo_gib: float

    @property
    def dpo_gib(self) -> float:
        return PROCESS_GIB + DPO_SHARE * (self.ppo_gib - PROCESS_GIB)


def estimate(model: ModelSizes, config: RoundConfig) -> MemoryEstimate:
    """Peak memory while collecting, and of a PPO round with these options."""
    per_token = model.layers * model.key_value * model.bytes_per_number
    logits = 3 * 4 * model.vocabulary
    collected = COLLECTED_ROWS * ((PROMPT_TOKENS + COLLECTED_TOKENS) * per_token + logits)

    length = PROMPT_TOKENS + config.sampling.max_new_tokens
    trained = min(config.adapter.top_layers or model.layers, model.layers)
    rows = config.ppo.microbatch_size or config.ppo.minibatch_size
    activations = 4 * (16 * model.hidden + 4 * model.feedforward + model.heads * length)
    adapter = 16 * trained * config.adapter.rank * model.linear
    rollout = config.ppo.batch_size * (length * (per_token + 2 * 4 * model.hidden) + logits)
    training = adapter + rows * length * trained * activations + rollout
    return MemoryEstimate(_gib(model.weight_bytes + collected), _gib(model.weight_bytes + training))


def _gib(size: float) -> float:
    return PROCESS_GIB + ALLOCATOR_OVERHEAD * size / 2**30
