"""A LiteRT file, run by LiteRT on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

HIDDEN = -1e9
"""Added to the score of a token that must not be looked at."""


class Model:
    """See `check.Model`. The cache is kept here; the file returns what to add to it."""

    def __init__(self, folder: Path):
        # The runners compute in the interpreter's memory, which is freed with it.
        self.interpreter = Interpreter(model_path=str(folder / "model.tflite"))
        self.prefill, self.decode = (self.interpreter.get_signature_runner(name) for name in ("prefill", "decode"))
        details = self.decode.get_input_details()
        self.shapes = {f"args_{i}": tuple(details[f"args_{i}"]["shape"]) for i in range(3, len(details))}
        self.places = self.shapes["args_3"][2]
        self.chunk = int(self.prefill.get_input_details()["args_0"]["shape"][1])

    def read(self, prompt: list[int]) -> Any:
        self.length = 0
        self.cache = {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}
        for start in range(0, len(prompt), self.chunk):
            logits = self._run(self.prefill, self.chunk, prompt[start : start + self.chunk])
        return logits

    def step(self, token: int) -> Any:
        return self._run(self.decode, 1, [token])

    def _run(self, runner: Any, size: int, ids: list[int]) -> Any:
        end = self.length + len(ids)
        if end > self.places:
            raise ValueError(f"prompt and answer have {end} tokens, and the file holds {self.places}")
        mask = np.full((1, 1, size, self.places + size), HIDDEN, np.float32)
        mask[..., : self.length] = 0
        mask[..., self.places :] = np.triu(np.full((size, size), HIDDEN, np.float32), 1)
        tokens = np.array([ids + [0] * (size - len(ids))], np.int32)
        positions = np.arange(self.length, self.length + size, dtype=np.int32)[None]
        found = runner(args_0=tokens, args_1=positions, args_2=mask, **self.cache)
        for at, kept in enumerate(self.cache.values(), 1):
            kept[:, :, self.length : end] = found[f"output_{at}"][:, :, : len(ids)]
        self.length = end
        return found["output_0"][0, len(ids) - 1]
