"""Supervised fine-tuning on the ideal answers that annotators wrote, by TRL's trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from transformers import Trainer, TrainerCallback
from trl import SFTConfig as TRLSFTConfig  # type: ignore[attr-defined]  # TRL's lazy modules re-export without `__all__`
from trl import SFTTrainer  # type: ignore[attr-defined]  # TRL's lazy modules re-export without `__all__`

from rlhf.config import SFTConfig
from rlhf.data.demonstrations import Demonstration
from rlhf.models.backbone import Backbone
from rlhf.models.trl_wrapper import on_one_device, processing_class
from rlhf.ppo import ptx
from rlhf.runs.work import Work
from rlhf.trl_methods.trl_policy import LogCallback, Policy, arguments, learn

IGNORE_INDEX = -100
"""The label of tokens without a loss."""


def rows(backbone: Backbone, demonstrations: Sequence[Demonstration]) -> list[dict[str, list[int]]]:
    """Each demonstration as token ids, with no loss on the prompt's."""
    encoded = ptx.encode(backbone, demonstrations)
    return [{"input_ids": row.ids, "labels": [IGNORE_INDEX] * row.start + row.ids[row.start :]} for row in encoded]


def train(
    backbone: Backbone,
    demonstrations: Sequence[Demonstration],
    config: SFTConfig,
    *,
    seed: int,
    scratch: Path,
    on_progress: Work,
    log: LogCallback,
) -> None:
    """Mean `-log pi(token)` over the tokens of the ideal answers and their end-of-sequence tokens."""
    training_args = TRLSFTConfig(
        **arguments(backbone, scratch, seed=seed),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        max_length=None,
        logging_steps=1,
    )

    def make(policy: Policy, callback: TrainerCallback) -> Trainer:
        return SFTTrainer(
            model=policy,
            args=on_one_device(training_args),
            train_dataset=Dataset.from_list(rows(backbone, demonstrations)),
            processing_class=processing_class(backbone),
            callbacks=[callback],
        )

    learn(make, backbone, seed=seed, on_progress=on_progress, log=log)
