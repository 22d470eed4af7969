"""Tracks a run's policies: stops training where the KL exceeds its budget, and keeps the best policy if the config asks for it.

The rule is in `checkpoint_selection`. A step's metrics are of the policy that sampled its batch, so these weights are copied
before the update; candidates that cannot become the best any more are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from rlhf.ppo.checkpoint_selection import SMOOTHING, PolicyMetrics, best
from rlhf.runs.results import BestCheckpoint, KLStop

Weights = Mapping[str, torch.Tensor]


class CheckpointTracker:
    def __init__(self, kl_budget: float, *, keep_best: bool):
        self.kl_budget, self.keep_best = kl_budget, keep_best
        self.measured: list[PolicyMetrics] = []
        self.weights: dict[int, Weights] = {}
        """By index into `measured`."""

    def update(self, measured: PolicyMetrics, weights: Weights) -> None:
        """Records a policy's metrics, and its weights where they may be needed again."""
        self.measured.append(measured)
        if not self.keep_best:
            return
        self.weights[len(self.measured) - 1] = {name: w.detach().cpu().clone() for name, w in weights.items()}
        # The next metrics still change the smoothed scores of the latest policies.
        first_unsettled = len(self.measured) - SMOOTHING // 2
        leader = best(self.measured, self.kl_budget, before=first_unsettled)
        self.weights = {i: w for i, w in self.weights.items() if i >= first_unsettled or i == leader}

    @property
    def kl_exceeded(self) -> bool:
        """Whether the KL has left its budget."""
        return bool(self.kl_budget and self.measured and self.measured[-1].kl > self.kl_budget)

    def stopped_by_kl(self) -> KLStop | None:
        """The step at which the KL exceeded the budget; None where it stayed within it."""
        return KLStop(len(self.measured), self.measured[-1].kl, self.kl_budget) if self.kl_exceeded else None

    @torch.no_grad()
    def restore(self, policy: Weights) -> BestCheckpoint:
        """Restores the best policy's weights; returns its step, the number of steps, and its metrics."""
        chosen = best(self.measured, self.kl_budget)
        for name, parameter in policy.items():
            parameter.copy_(self.weights[chosen][name])
        score, kl = self.measured[chosen]
        return BestCheckpoint(chosen, len(self.measured) - 1, score, kl)

    def save(self, folder: Path) -> None:
        """Writes the candidates' weights; the caller stores `measured` in the checkpoint's state file."""
        for i, weights in self.weights.items():
            save_file({name: w.contiguous() for name, w in weights.items()}, folder / f"candidate-{i}.safetensors")

    def load(self, folder: Path, measured: list[list[float]]) -> None:
        self.measured = [PolicyMetrics(*values) for values in measured]
        files = folder.glob("candidate-*.safetensors")
        self.weights = {int(file.stem.removeprefix("candidate-")): load_file(file) for file in files}
