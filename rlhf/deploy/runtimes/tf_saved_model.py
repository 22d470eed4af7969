"""A TensorFlow SavedModel, run by TensorFlow's own loader on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import tensorflow as tf


class Model:
    """See `check.Model`. The graph has no cache and reads everything again for each token."""

    def __init__(self, folder: Path):
        # What is loaded goes when nothing holds it.
        self.loaded = tf.saved_model.load(str(folder / "model"))

    def read(self, prompt: list[int]) -> Any:
        self.ids = list(prompt)
        return self._logits()

    def step(self, token: int) -> Any:
        self.ids.append(token)
        return self._logits()

    def _logits(self) -> Any:
        ids = tf.constant([self.ids], tf.int32)
        return self.loaded.serve({"token_ids": ids, "padding_mask": tf.ones_like(ids)}).numpy()[0, -1]
