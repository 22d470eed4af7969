"""The policy under the interface that TRL's trainers expect, and how their training is followed.

A trainer sees a model of its own; behind it stand the backbone and the adapter in use, so nothing is in memory twice, and
every kind of adapter learns by every method. Leaves out what is learned from (`dpo`, `group`, `sft`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
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

from rlhf.generation.sampling import generator, sample
from rlhf.models.backbone import Backbone, pad_right, positions
from rlhf.ppo.rollout import POLICY
from storage.core.records import Sampling

ProgressCallback = Callable[[], None]
LogCallback = Callable[[int, Mapping[str, float]], None]
"""Called with the number of updates made and the trainer's figures."""


class Policy(PreTrainedModel):  # type: ignore[no-untyped-call]  # transformers registers subclasses in untyped code
    """Token ids in, hidden states out, through one adapter; or through none, which is the reference.

    TRL multiplies the hidden states by the output embedding itself, and only where it wants a token's log-probability.
    """

    base_model_prefix = "reader"

    def __init__(self, backbone: Backbone, adapter: str | None, *, seed: int = 0, on_progress: ProgressCallback = lambda: None):
        config = copy.deepcopy(backbone.base.config)
        # This wrapper attends to nothing itself; the backbone keeps the implementation it was loaded with.
        config._attn_implementation = "eager"
        super().__init__(config)
        self.reader = _Reader(backbone, adapter)
        # An end-of-sequence token is what ends an answer everywhere else here, and no other.
        self.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers leaves it without types
            eos_token_id=backbone.eos_id, pad_token_id=backbone.pad_id
        )
        self.seed, self.on_progress, self.draws = seed, on_progress, 0

    def train(self, mode: bool = True) -> Policy:
        """Says that it trains, and no more: dropout in the base would make the policy another than the one that is sampled."""
        self.training = mode
        return self

    def get_output_embeddings(self) -> nn.Module:
        head: nn.Module = self.reader.backbone.base.get_output_embeddings()
        return head

    def forward(self, input_ids: Int[Tensor, "b t"], attention_mask: Int[Tensor, "b t"], **unused: Any) -> CausalLMOutput:
        return CausalLMOutput(logits=self.reader.backbone.logits(self.reader(input_ids, attention_mask).last_hidden_state))

    @torch.no_grad()
    def generate(
        self, input_ids: Int[Tensor, "b p"], attention_mask: Int[Tensor, "b p"], generation_config: GenerationConfig, **unused: Any
    ) -> Int[Tensor, "b p+t"]:
        """Draws as everything here does, from the distribution whose log-probabilities are learned from: no top-k, no top-p."""
        backbone = self.reader.backbone
        asked = [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
        sampling = Sampling(generation_config.temperature, max_new_tokens=generation_config.max_new_tokens)
        with backbone.use_adapter(self.reader.adapter):
            drawn = sample(backbone, asked, sampling, generator(backbone.device, self.seed, self.draws), self.on_progress)
        self.draws += 1
        answers, _ = pad_right([d.ids for d in drawn], backbone.pad_id)
        return torch.cat([input_ids, answers.to(input_ids.device)], dim=1)


class _Reader(nn.Module):
    """What TRL takes for the inner model."""

    backbone: Backbone

    def __init__(self, backbone: Backbone, adapter: str | None):
        super().__init__()
        self.adapter = adapter
        if adapter is not None:
            # Registered, so that the trainer's optimiser finds the adapter's weights in it.
            self.model = backbone.model
        # Not a submodule: the backbone belongs to everyone.
        object.__setattr__(self, "backbone", backbone)

    def forward(self, input_ids: Int[Tensor, "b t"], attention_mask: Int[Tensor, "b t"], **unused: Any) -> BaseModelOutput:
        mask = attention_mask.bool()
        with self.backbone.use_adapter(self.adapter):
            hidden: Float[Tensor, "b t d"] = self.backbone.decoder.read(input_ids, mask, positions=positions(mask))
        return BaseModelOutput(last_hidden_state=hidden)


def arguments(backbone: Backbone, scratch: Path, *, seed: int) -> dict[str, Any]:
    """What all trainers are told alike: to keep to themselves, and to write nothing."""
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
    make: Callable[[Policy, TrainerCallback], Trainer], backbone: Backbone, *, seed: int, on_progress: ProgressCallback, log: LogCallback
) -> None:
    """Trains the adapter POLICY by the trainer that `make` builds around it."""
    with backbone.use_adapter(POLICY):
        trainer = make(Policy(backbone, POLICY, seed=seed, on_progress=on_progress), _Follower(on_progress, log))
        trainer.remove_callback(PrinterCallback)
        trainer.train()


class _Follower(TrainerCallback):
    """Hands on a trainer's progress; a cancel comes back through `tick`."""

    def __init__(self, on_progress: ProgressCallback, log: LogCallback):
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
        # The last log of all sums up and is of no update.
        if logs and "loss" in logs:
            self.log(state.global_step, {name: float(value) for name, value in logs.items() if isinstance(value, float | int)})
