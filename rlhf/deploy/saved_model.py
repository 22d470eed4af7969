"""Writes a merged model as a TensorFlow SavedModel: `python -m rlhf.deploy.saved_model FORMAT FROM TO`.

KerasHub reads the weights into its own model of the same architecture, and Keras exports that. The graph has no cache: it is given the
whole text for each token. A process of its own, with the format's packages.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before Keras is imported; TensorFlow would take all the memory of a GPU that it sees.
os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}

import keras
import keras_hub
from transformers import AutoTokenizer, GenerationConfig

FOLDER = "model"
"""Of the SavedModel, beside tokenizer and configs."""


def export(source: Path, out: Path) -> None:
    """Writes the graph, and the model's tokenizer and configs, to `out`."""
    backbone = keras_hub.models.Backbone.from_preset(str(source))
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "padding_mask")}
    logits = backbone.token_embedding(backbone(inputs), reverse=True)
    keras.Model(inputs, logits).export(str(out / FOLDER), format="tf_saved_model", verbose=False)
    AutoTokenizer.from_pretrained(source).save_pretrained(out)
    GenerationConfig.from_pretrained(source).save_pretrained(out)


if __name__ == "__main__":
    export(Path(sys.argv[2]), Path(sys.argv[3]))
