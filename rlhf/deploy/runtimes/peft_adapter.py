"""An adapter, read by PEFT alone over the base that the environment variable BASE_MODEL names, or that the adapter names itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM

from rlhf.deploy.runtimes import hf


class Model(hf.Model):
    """As `hf.Model`, with the adapter on the base."""

    def __init__(self, folder: Path):
        base = os.environ.get("BASE_MODEL") or PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
        loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        self.model: Any = PeftModel.from_pretrained(loaded, str(folder)).eval()
        self.cache: Any = None
        self.ids: list[int] = []

    def read(self, prompt: list[int]) -> Any:
        self.ids = prompt
        return super().read(prompt)

    def step(self, token: int) -> Any:
        self.ids = [*self.ids, token]
        # With a learned prompt PEFT's forward puts the vectors before whatever it is given, so that nothing can be kept between calls.
        return super().read(self.ids) if self.model.active_peft_config.is_prompt_learning else super().step(token)
