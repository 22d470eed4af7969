"""Direct preference optimisation (Rafailov 2023, arXiv 2305.18290), by TRL's trainer: the policy is trained on pairs alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, WeightedRandomSampler
from transformers import Trainer, TrainerCallback
from trl import DPOConfig as TRLDPOConfig  # type: ignore[attr-defined]  # TRL's lazy modules re-export without `__all__`
from trl import DPOTrainer  # type: ignore[attr-defined]  # TRL's lazy modules re-export without `__all__`

from rlhf.config import DPOConfig
from rlhf.data.pairs import PreferencePair
from rlhf.models.backbone import Backbone
from rlhf.models.lengths import ended_answer
from rlhf.models.ranks import Ranks
from rlhf.models.trl_wrapper import ShareCollator, on_one_device, processing_class, whole_batches
from rlhf.runs.work import Work
from rlhf.trl_methods.trl_policy import LogCallback, Policy, arguments, learn


class _Trainer(DPOTrainer):
    pairs: Sequence[PreferencePair]
    ranks: Ranks
    has_pairs = True
    """Whether this rank has pairs of the batch; without, it computes one with weight 0."""

    def share_batches(self, ranks: Ranks) -> None:
        """Learns from this rank's share of every batch."""
        self.ranks = ranks
        if not ranks.alone:
            self.data_collator = ShareCollator(self.data_collator, ranks)
            self.accelerator.gather = self.accelerator.gather_for_metrics = self._gather

    def _gather(self, rows: Tensor) -> Tensor:
        """The figures of all pairs, or of all ranks, for TRL's metrics. Ranks may have different numbers of pairs, or none."""
        rows = rows.reshape(1) if rows.ndim == 0 else rows
        return self.ranks.gather(rows if self.has_pairs else rows[:0])

    def get_train_dataloader(self) -> DataLoader[Any]:
        if self.ranks.alone:
            loader: DataLoader[Any] = super().get_train_dataloader()
            return loader
        rows: Any = self._remove_unused_columns(self.train_dataset, description="Training")
        batches = DataLoader(rows, self._train_batch_size, sampler=self._get_train_sampler(rows), collate_fn=self.data_collator)
        return whole_batches(batches, self.accelerator)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        share = inputs.pop("share", None)
        self.has_pairs = share is None or bool(share > 0)
        loss = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[no-untyped-call]  # TRL leaves it without types
        return loss if share is None else share * loss

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
    ranks: Ranks = Ranks(),
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
            args=on_one_device(training_args),
            train_dataset=Dataset.from_list(rows(backbone, pairs)),
            processing_class=processing_class(backbone),
            callbacks=[callback],
        )
        trainer.pairs = pairs
        trainer.share_batches(ranks)
        return trainer

    learn(make, backbone, seed=seed, on_progress=on_progress, log=log)
