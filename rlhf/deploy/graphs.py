"""Traces a merged model into a graph with a cache of keys and values: `python -m rlhf.deploy.graphs FORMAT FROM TO`.

A process of its own, with the format's packages: transformers looks for them when it is imported. The exporters are transformers' own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, exporters
from transformers.exporters.utils import decompose_for_generation


def export(format_name: str, source: Path, out: Path) -> None:
    """Writes the graph, and the model's tokenizer and configs, to `out`."""
    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model.eval()
    # Two rows of three tokens: a size of 1 would be taken for a constant.
    ids = torch.arange(6).view(2, 3)
    described: Any = GenerationConfig
    greedy = described(do_sample=False, max_new_tokens=2, min_new_tokens=2, eos_token_id=None, pad_token_id=0)
    stages = decompose_for_generation(
        model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, generation_config=greedy, multi_token_decode=True
    )
    # This graph reads prompts too: to an empty cache. The other one would double the file.
    decoder, inputs = stages["decode"]
    exporter, config = exporter_of(format_name)
    exporter.export(decoder, inputs, config).save_pretrained(out)
    AutoTokenizer.from_pretrained(source).save_pretrained(out)
    model.generation_config.save_pretrained(out)


def exporter_of(format_name: str) -> tuple[Any, Any]:
    """transformers' exporter of a format, and its options."""
    # Loaded by name, when they are asked for; transformers does not type them.
    found: Any = exporters
    if format_name == "onnx":
        return found.OnnxExporter(), found.OnnxConfig(dynamic=True)
    if format_name == "openvino":
        return found.OpenVINOExporter(), found.OpenVINOConfig(dynamic=True)
    raise ValueError(f"no graph is traced for {format_name}")


if __name__ == "__main__":
    export(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
