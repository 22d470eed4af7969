"""Direct preference optimisation (Rafailov 2023, arXiv 2305.18290), by TRL's trainer: the policy is trained on pairs alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler, WeightedRandomSampler
from transformers import Trainer, TrainerCallback
from trl import DPOConfig as TRLDPOConfig  # type: ignore[attr-defined]  # TRL's lazy modules re-export without `__all__`
from trl import DPOTrainer  # type: ignore[attr-defined]  # TRL's lazy modules re-export without `__all__`

from rlhf.config import DPOConfig
from rlhf.data.pairs import PreferencePair
from rlhf.models.backbone import Backbone
from rlhf.models.lengths import ended_answer
from rlhf.models.trl_wrapper import processing_class
from rlhf.runs.work import Work
from rlhf.trl_methods.trl_policy import LogCallback, Policy, arguments, learn


class _Trainer(DPOTrainer):
    pairs: Sequence[PreferencePair]

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        # TRL's loss has no weights. A pair that is sampled half as often contributes half as much.
        weights = [pair.weight for pair in self.pairs]
        if len(set(weights)) == 1:
            return super()._get_train_sampler(train_dataset)
        return WeightedRandomSampler(weights, len(weights), generator=torch.Generator().manual_seed(self.args.seed))

    def _prepare_dataset(self, dataset: Dataset, *unused: Any, **unused_kwargs: Any) -> Dataset:
        """Returns the dataset unchanged: its rows are token ids, to which the trainer would append the template's text."""
        return dataset


def rows(backbone: Backbone, pairs: Sequence[PreferencePair]) -> list[dict[str, list[int]]]:
    """Each pair as token ids; both answers get an end-of-sequence token, unless they are too long and cut."""
    return [
        {
            "prompt_ids": prompt,
            "chosen_ids": ended_answer(backbone, prompt, pair.chosen),
            "rejected_ids": ended_answer(backbone, prompt, pair.rejected),
        }
        for pair in pairs
        for prompt in [backbone.encode(pair.prompt)]
    ]


def train(
    backbone: Backbone,
    pairs: Sequence[PreferencePair],
    config: DPOConfig,
    *,
    reference: str | None = None,
    seed: int,
    scratch: Path,
    on_progress: Work,
    log: LogCallback,
) -> None:
    """`-log sigmoid(beta (log pi/ref of chosen - log pi/ref of rejected))` (eq. 7); pairs are sampled by weight."""
    training_args = TRLDPOConfig(
        **arguments(backbone, scratch, seed=seed),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        beta=config.beta,
        max_length=None,
        logging_steps=1,
    )

    def make(policy: Policy, callback: TrainerCallback) -> Trainer:
        trainer = _Trainer(
            model=policy,
            ref_model=Policy(backbone, reference, trained=False),
            args=training_args,
            train_dataset=Dataset.from_list(rows(backbone, pairs)),
            processing_class=processing_class(backbone),
            callbacks=[callback],
        )
        trainer.pairs = pairs
        return trainer

    learn(make, backbone, seed=seed, on_progress=on_progress, log=log)
