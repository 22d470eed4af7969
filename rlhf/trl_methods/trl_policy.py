"""The policy under the interface that TRL's trainers expect, and the callback that reports their progress.

A trainer gets a model that wraps the shared backbone and one adapter, so that no weight is in memory twice and every kind of
adapter works with every method. Data and losses are in `dpo`, `rloo_grpo` and `sft`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

from rlhf.generation.engine import sample
from rlhf.generation.sampling import combined_seed
from rlhf.models.backbone import Backbone
from rlhf.models.lengths import in_parts
from rlhf.models.padding import pad_right, positions
from rlhf.models.trl_wrapper import wrapper_config
from rlhf.ppo.rollout import POLICY
from rlhf.runs.work import NO_PROGRESS, Work
from storage.core.records import Sampling

LogCallback = Callable[[int, Mapping[str, float]], None]
"""Called with the number of updates made and the trainer's metrics."""


class Policy(PreTrainedModel):  # type: ignore[no-untyped-call]  # transformers registers subclasses in untyped code
    """The backbone with one adapter, or none, as a transformers model: the policy that is trained, or the reference that is not.

    TRL takes its hidden states and multiplies them by the output embedding itself, only where it needs a log-probability.
    """

    base_model_prefix = "inner_model"

    def __init__(self, backbone: Backbone, adapter: str | None, *, trained: bool = True, seed: int = 0, on_progress: Work = NO_PROGRESS):
        super().__init__(wrapper_config(backbone))
        self.inner_model = _HiddenStateModel(backbone, adapter, trained=trained)
        self.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers leaves it without types
            eos_token_id=list(backbone.eos_token_ids), pad_token_id=backbone.pad_id
        )
        self.seed, self.on_progress, self.generate_calls = seed, on_progress, 0

    def train(self, mode: bool = True) -> Policy:
        """Sets the flag alone and leaves the base in eval mode: with dropout the trained policy would differ from the sampled one."""
        self.training = mode
        return self

    def get_output_embeddings(self) -> nn.Module:
        head: nn.Module = self.inner_model.backbone.base.get_output_embeddings()
        return head

    def forward(self, input_ids: Int[Tensor, "b t"], attention_mask: Int[Tensor, "b t"], **unused: Any) -> CausalLMOutput:
        return CausalLMOutput(logits=self.inner_model.backbone.logits(self.inner_model(input_ids, attention_mask).last_hidden_state))

    @torch.no_grad()
    def generate(
        self, input_ids: Int[Tensor, "b p"], attention_mask: Int[Tensor, "b p"], generation_config: GenerationConfig, **unused: Any
    ) -> Int[Tensor, "b s"]:
        """Samples with this project's own sampler, without top-k and top-p, as the log-probabilities of training assume."""
        backbone = self.inner_model.backbone
        prompt_ids = [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
        sampling = Sampling(generation_config.temperature, max_new_tokens=generation_config.max_new_tokens)
        part = self.on_progress.part(sampling.max_new_tokens)
        seed = combined_seed(self.seed, self.generate_calls)
        sequences = sample(backbone, prompt_ids, sampling, seed, adapter=self.inner_model.adapter, on_progress=part)
        self.generate_calls += 1
        answers, _ = pad_right([s.ids for s in sequences], backbone.pad_id)
        return torch.cat([input_ids, answers.to(input_ids.device)], dim=1)


class _HiddenStateModel(nn.Module):
    """The inner model, from whose hidden states TRL computes log-probabilities."""

    backbone: Backbone

    def __init__(self, backbone: Backbone, adapter: str | None, *, trained: bool):
        super().__init__()
        self.adapter = adapter
        if adapter is not None and trained:
            # Registered, so that the trainer's optimiser finds the adapter's weights in it.
            self.model = backbone.trained_module(adapter)
        # Not a submodule: the backbone is shared.
        object.__setattr__(self, "backbone", backbone)

    def forward(self, input_ids: Int[Tensor, "b t"], attention_mask: Int[Tensor, "b t"], **unused: Any) -> BaseModelOutput:
        mask = attention_mask.bool()
        return BaseModelOutput(last_hidden_state=in_parts(self._hidden, input_ids, mask, positions(mask)))

    def _hidden(self, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], position_ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        return self.backbone.decoder.forward(ids, mask, positions=position_ids, adapter=self.adapter)


def arguments(backbone: Backbone, scratch: Path, *, seed: int) -> dict[str, Any]:
    """The training arguments that all methods share: no checkpoints, no reports, no progress bar."""
    return {
        "output_dir": str(scratch),
        "seed": seed,
        "use_cpu": backbone.device.type == "cpu",
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def learn(
    make: Callable[[Policy, TrainerCallback], Trainer], backbone: Backbone, *, seed: int, on_progress: Work, log: LogCallback
) -> None:
    """Trains the adapter POLICY by the trainer that `make` builds around it."""
    trainer = make(Policy(backbone, POLICY, seed=seed, on_progress=on_progress), _ProgressCallback(on_progress, log))
    trainer.remove_callback(PrinterCallback)
    trainer.train()


class _ProgressCallback(TrainerCallback):
    """Reports a trainer's progress; `on_progress` raises when the run is cancelled."""

    def __init__(self, on_progress: Work, log: LogCallback):
        self.on_progress, self.log = on_progress, log

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **unused: Any) -> None:
        self.on_progress()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **unused: Any,
    ) -> None:
        # The trainer's last log is a summary of the whole training, without a loss.
        if logs and "loss" in logs:
            self.log(state.global_step, {name: float(value) for name, value in logs.items() if isinstance(value, float | int)})
