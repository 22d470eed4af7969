"""An ONNX graph, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class Model:
    """See `check.Model`. The graph takes the cache and returns it longer."""

    def __init__(self, folder: Path):
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        self.cache_inputs = [given for given in self.session.get_inputs() if "past_key_values" in given.name]
        self.cache: list[Any] = []

    def read(self, prompt: list[int]) -> Any:
        # [rows, heads, tokens, head size]
        self.cache = [np.zeros((1, int(given.shape[1]), 0, int(given.shape[3])), np.float32) for given in self.cache_inputs]
        return self._run(prompt)

    def step(self, token: int) -> Any:
        return self._run([token])

    def _run(self, ids: list[int]) -> Any:
        before = self.cache[0].shape[2]
        inputs = {"input_ids": np.array([ids]), "position_ids": np.arange(before, before + len(ids))[None]}
        cache = {given.name: held for given, held in zip(self.cache_inputs, self.cache, strict=True)}
        logits, *self.cache = self.session.run(None, inputs | cache)
        return logits[0, -1]
