"""Writes a merged model as a LiteRT file: `python -m rlhf.deploy.litert_graph FORMAT FROM TO`.

LiteRT wants shapes that do not change. So the file has a cache of a fixed number of tokens, which its caller keeps: each call is given the
cache and returns the keys and values of the tokens that it read. Two entries share the weights: `prefill` reads `CHUNK` tokens, `decode`
reads one. A process of its own, with the format's packages.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import litert_torch
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

CACHE = 1024
"""Tokens of prompt and answer together, where the model's context is not shorter."""

CHUNK = 32
"""Tokens of a prompt that are read at once."""


class Step(nn.Module):
    """Reads a few tokens after those in the cache."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(
        self,
        ids: Int[Tensor, "1 t"],
        positions: Int[Tensor, "1 t"],
        mask: Float[Tensor, "1 1 t c_t"],
        *cache: Float[Tensor, "1 h c d"],
    ) -> tuple[Tensor, ...]:
        """Logits of the tokens, [1, t, vocab], then the new keys and values of each layer, [1, h, t, d].

        Args:
            mask: added to the attention scores, over the cache's places and then the new tokens: 0 where a token looks, very negative
                elsewhere.
            cache: keys and values of each layer in turn.
        """
        held = DynamicCache()
        for layer in range(len(cache) // 2):
            held.update(cache[2 * layer], cache[2 * layer + 1], layer)
        read = self.model(input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=held, use_cache=True)
        layers: Any = held.layers
        new = [part[:, :, cache[0].shape[2] :] for layer in layers for part in (layer.keys, layer.values)]
        return (read.logits, *new)


def inputs_of(model: Any, tokens: int) -> tuple[Tensor, ...]:
    """Inputs of the shapes that an entry is traced with."""
    config = model.config
    heads, size = config.num_key_value_heads, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    places = min(CACHE, config.max_position_embeddings)
    first = (torch.ones(1, tokens, dtype=torch.int32), torch.arange(tokens, dtype=torch.int32)[None])
    cache = [torch.zeros(1, heads, places, size) for _ in range(2 * config.num_hidden_layers)]
    return (*first, torch.zeros(1, 1, tokens, places + tokens), *cache)


def export(source: Path, out: Path) -> None:
    """Writes `model.tflite`, and the model's tokenizer and configs, to `out`."""
    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model.eval()
    step = Step(model)
    with torch.no_grad():
        entries = litert_torch.signature("prefill", step, inputs_of(model, CHUNK)).signature("decode", step, inputs_of(model, 1))
        entries.convert().export(str(out / "model.tflite"))
    AutoTokenizer.from_pretrained(source).save_pretrained(out)
    model.generation_config.save_pretrained(out)


if __name__ == "__main__":
    export(Path(sys.argv[2]), Path(sys.argv[3]))
