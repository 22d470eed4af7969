"""A GGUF file, read by llama.cpp through llama-cpp-python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import Llama


class Model:
    """See `check.Model`."""

    def __init__(self, folder: Path):
        self.llama = Llama(str(folder / "model.gguf"), n_ctx=2048, logits_all=True, verbose=False)

    def read(self, prompt: list[int]) -> Any:
        self.llama.reset()
        self.llama.eval(prompt)
        return self._last()

    def step(self, token: int) -> Any:
        self.llama.eval([token])
        return self._last()

    def _last(self) -> Any:
        return np.array(self.llama.scores[self.llama.n_tokens - 1])
