"""An export in Hugging Face's format, read by transformers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM


class Model:
    """The model in float32 on the CPU; see `check.Model`."""

    def __init__(self, folder: Path):
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model = loaded.eval()
        self.cache: Any = None

    def read(self, prompt: list[int]) -> Any:
        self.cache = None
        return self._forward(prompt)

    def step(self, token: int) -> Any:
        return self._forward([token])

    @torch.inference_mode()
    def _forward(self, ids: list[int]) -> Any:
        output = self.model(input_ids=torch.tensor([ids]), past_key_values=self.cache, use_cache=True)
        self.cache = output.past_key_values
        return output.logits[0, -1].numpy()
