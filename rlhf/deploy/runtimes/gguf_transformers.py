"""A GGUF file, read by transformers, which turns its blocks back into float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from rlhf.deploy.runtimes import hf


class Model(hf.Model):
    """As `hf.Model`, from one file."""

    def __init__(self, folder: Path):
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf", dtype=torch.float32)
        self.model = loaded.eval()
        self.cache: Any = None
