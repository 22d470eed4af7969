"""Compares an export with the policy: `python -m rlhf.deploy.runtimes.check RUNTIME FOLDER REFERENCE RESULT`.

Reads each prompt of the reference, then the policy's own greedy answer token by token, and compares the logits before each token. Up to the
first token that the export would choose otherwise this is the export's own greedy generation.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Model(Protocol):
    """An export, loaded. With `gives_logprobs` its logits are log-probabilities, and so is what they are compared with."""

    def read(self, prompt: list[int]) -> Any:
        """Forgets everything, reads a prompt, and returns the logits after it, [vocab]."""

    def step(self, token: int) -> Any:
        """Reads one more token and returns the logits after it, [vocab]."""


def log_softmax(logits: Any) -> Any:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def compare(model: Model, prompt: list[int], answer: list[int], expected: Any) -> dict[str, Any]:
    """The differences over one answer.

    Args:
        expected: the policy's logits before each token of the answer, [tokens, vocab].
    """
    first, differences, divergences = None, [], []
    logits = model.read(prompt)
    for at, token in enumerate(answer):
        found, wanted = np.asarray(logits, dtype=np.float64)[: expected.shape[1]], expected[at].astype(np.float64)
        if found.shape != wanted.shape:
            raise ValueError(f"the export has {found.shape[0]} logits a token, the policy {wanted.shape[0]}")
        if first is None and int(found.argmax()) != token:
            first = at
        ours, theirs = log_softmax(wanted), log_softmax(found)
        differences.append(float(np.abs(found - (ours if getattr(model, "gives_logprobs", False) else wanted)).max()))
        divergences.append(float((np.exp(ours) * (ours - theirs)).sum()))
        if at + 1 < len(answer):
            logits = model.step(token)
    return {"tokens": len(answer), "first_divergence": first, "max_difference": max(differences), "kl": sum(divergences) / len(divergences)}


def main() -> int:
    runtime, folder, reference, result = sys.argv[1:5]
    held = np.load(reference, allow_pickle=False)
    model = importlib.import_module(f"rlhf.deploy.runtimes.{runtime}").Model(Path(folder))
    compared = []
    for at in range(int(held["prompts"])):
        prompt, answer = held[f"prompt_{at}"].tolist(), held[f"answer_{at}"].tolist()
        compared.append(compare(model, prompt, answer, held[f"logits_{at}"]))
        print(f"checked {at + 1} of {int(held['prompts'])}", flush=True)
    Path(result).write_text(json.dumps(compared), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
