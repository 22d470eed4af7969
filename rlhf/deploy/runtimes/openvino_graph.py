"""An OpenVINO graph, run by OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino


class Model:
    """See `check.Model`. The graph keeps the cache itself until its state is reset."""

    def __init__(self, folder: Path):
        # OpenVINO computes in bfloat16 where the processor can, which is not what is compared.
        compiled = openvino.Core().compile_model(folder / "openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self.request = compiled.create_infer_request()
        self.names = {given.get_any_name() for given in compiled.inputs}
        self.length = 0

    def read(self, prompt: list[int]) -> Any:
        self.request.reset_state()
        self.length = 0
        return self._run(prompt)

    def step(self, token: int) -> Any:
        return self._run([token])

    def _run(self, ids: list[int]) -> Any:
        positions = np.arange(self.length, self.length + len(ids))[None]
        self.length += len(ids)
        inputs = {"input_ids": np.array([ids]), "position_ids": positions, "beam_idx": np.zeros(1, np.int32)}
        inputs["attention_mask"] = np.ones((1, self.length), np.int64)
        self.request.infer({name: values for name, values in inputs.items() if name in self.names})
        return self.request.get_tensor("logits").data[0, -1].copy()
