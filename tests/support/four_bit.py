"""A program that compares a base in 4 bits with one that holds the same weights unpacked. Needs bitsandbytes; run by `test_four_bit`."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import small_ppo
import tiny
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from transformers import AutoModelForCausalLM, LlamaConfig

from rlhf.generation.engine import sample
from rlhf.models.backbone import Backbone
from rlhf.models.padding import positions
from rlhf.ppo.rollout import POLICY, add_policy
from storage.core.records import Sampling

WIDTH = 128
"""bitsandbytes packs 64 weights of a row together: narrower maps than that it cannot compute on a processor."""


def wide_model(folder: Path) -> Path:
    tiny.write(folder)
    base = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(0)
    wide = LlamaConfig(**{**base.config.to_dict(), "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "head_dim": 32})
    AutoModelForCausalLM.from_config(wide).save_pretrained(folder)
    return folder


def unpacked(four: Backbone, folder: Path) -> Backbone:
    """A base of plain matrices with the very weights that the packed one has."""
    plain = Backbone.load(folder, "cpu", "float32")
    for plain_map, packed in zip(plain.base.modules(), four.base.modules(), strict=True):
        if isinstance(packed, Linear4bit):
            plain_map.weight.data = dequantize_4bit(packed.weight.data, packed.weight.quant_state).float()
    return plain


def learned(backbone: Backbone) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Hidden states and the adapter's gradients, after passes without gradients as a rollout makes them."""
    add_policy(backbone, small_ppo.ADAPTER_CONFIG, seed=1, start=None)
    small_ppo.scramble(backbone.parameters(POLICY))
    backbone.trained_module(POLICY)
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    real = torch.ones_like(ids, dtype=torch.bool)

    def read(adapter):
        return backbone.decoder.forward(ids, real, positions=positions(real), adapter=adapter)

    with torch.no_grad():
        read(POLICY), read(None)
    hidden = read(POLICY)
    hidden.float().square().sum().backward()
    return hidden.detach(), {name: p.grad for name, p in backbone.parameters(POLICY).items()}


def main() -> None:
    folder = wide_model(Path(tempfile.mkdtemp()) / "wide")
    four = Backbone.load(folder, "cpu", "float32", load_in_4bit=True)
    plain = unpacked(four, folder)
    packed = sum(isinstance(m, Linear4bit) for m in four.base.modules())
    (hidden, gradients), (expected, expected_gradients) = learned(four), learned(plain)
    errors = [(gradients[n] - g).abs().max() / g.abs().max() for n, g in expected_gradients.items()]
    sampling = Sampling(temperature=0.0, max_new_tokens=8)
    answers = [[s.ids for s in sample(b, [[5, 6], [7, 8, 9]], sampling, 3, adapter=POLICY)] for b in (four, plain)]
    load = Backbone.load
    small_ppo.Backbone.load = lambda path, device, dtype: load(path, device, dtype, load_in_4bit=True)
    ppo = small_ppo.trainer(folder, replace(small_ppo.CONFIG, steps=1), learned_reward=True)
    metrics = ppo.step()
    found = {
        "packed": packed,
        "hidden": float((hidden - expected).abs().max()),
        "gradients": float(max(errors)),
        "answers alike": answers[0] == answers[1],
        "finite": all(math.isfinite(value) for value in metrics.values()) and len(metrics),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
