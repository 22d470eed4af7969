"""The reward model: a LoRA adapter and a head or an ensemble of them on the same base, fitted to preference pairs by TRL.

The input is prompt + answer + end-of-sequence, whether or not the model ended the answer itself, so that a score never depends
on the token limit alone. The head takes the mean of the hidden states over the answer: with a few hundred pairs
this is learned sooner than from the last token's hidden state (docs/research/reward-model.md). Where pairs come from is in
`data.pairs`, the loss in `targets`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import torch
from datasets import Dataset
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput
from trl import RewardConfig as TRLRewardConfig  # type: ignore[attr-defined]  # TRL's lazy modules re-export without `__all__`
from trl import RewardTrainer  # type: ignore[attr-defined]  # TRL's lazy modules re-export without `__all__`

from rlhf.config import RewardConfig
from rlhf.data.pairs import PreferencePair
from rlhf.models.adapters import AdapterChoice
from rlhf.models.backbone import Backbone
from rlhf.models.decoder import CachedHidden
from rlhf.models.lengths import batches, cut_answer, in_parts
from rlhf.models.padding import pad_right
from rlhf.models.ranks import Ranks
from rlhf.models.trl_wrapper import ShareCollator, on_one_device, processing_class, whole_batches, wrapper_config
from rlhf.reward import targets
from rlhf.reward.probe import Features, minimise
from rlhf.reward.targets import PairTargets
from rlhf.runs.work import NO_PROGRESS, UPDATE_COST, Work

ADAPTER = "reward"
HEAD_FILE = "head.safetensors"
SCALE_FILE = "scale.json"

SCORE_BATCH_SIZE = 32
"""Rows per forward pass at inference."""

TRL_NAMES = {"reward/loss": "loss", "reward/accuracy": "accuracy"}
"""What TRL's trainer calls the metrics of the fine-tuning."""

RewardLogCallback = Callable[[int, int, dict[str, float], "RewardModel"], None]
"""Called after an update with its number, the total number of updates, its metrics, and the model."""


class TokenizedExample(NamedTuple):
    """Token ids of one prompt and answer: one input row of the reward model."""

    ids: list[int]
    """Prompt, answer, and exactly one end-of-sequence token; a longer answer is cut before it, so that the row fits the limit."""
    start: int
    """Where the answer begins."""
    cached: CachedHidden | None = None
    """Activations of the frozen layers for these ids, where an earlier pass has computed them."""


class RewardModel(nn.Module):
    """`scores = (head(pooled hidden states of the answer) - mean) / std`, on a shared backbone; with several heads, their mean."""

    backbone: Backbone

    def __init__(self, backbone: Backbone, config: RewardConfig, *, seed: int):
        super().__init__()
        self.config, self.depth = config, depth_of(backbone, config)
        self.ensemble = config.ensemble
        # A probe trains the head alone, on the hidden states of the base without an adapter.
        self.adapter = ADAPTER if config.epochs else None
        d, m = backbone.hidden_size, self.ensemble
        # Before the head, in whose place the optimiser of earlier versions had it too.
        self.register_module("trained", None)
        self.head = nn.Linear(d, m, device=backbone.device)
        # Stiennon 2020, appendix B: a head initialised from N(0, 1/(d+1)) starts with scores of about unit scale.
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(m, d, generator=rng) / math.sqrt(d + 1))
            self.head.bias.zero_()
        self.mean, self.std = torch.zeros(m), torch.ones(m)
        # Not a submodule: the backbone is shared.
        object.__setattr__(self, "backbone", backbone)

    def prepare_training(self) -> None:
        """Makes the adapter's weights, which alone have a gradient from now on, parameters of this module beside the head's."""
        self.trained = self.backbone.trained_module(self.adapter)

    @property
    def frozen_layers(self) -> int:
        """Number of lowest layers without adapter weights, whose activations can be cached; 0 without partial forward passes."""
        if self.adapter is None:
            return self.depth if self.backbone.decoder.supports_partial_forward else 0
        return self.backbone.first_adapted_layer(self.adapter)

    def features(
        self,
        ids: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"],
        starts: Int[Tensor, " b"],
        cached: CachedHidden | None = None,
        *,
        adapter: AdapterChoice,
    ) -> Float[Tensor, "b d"]:
        """Pooled hidden states over the answer's tokens, for right-padded rows."""
        hidden = self.backbone.hidden(ids, mask, depth=self.depth, cached=cached, adapter=adapter).float()
        return pooled(hidden, mask, starts, how=self.config.pooling)

    def forward(
        self, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], starts: Int[Tensor, " b"], cached: CachedHidden | None = None
    ) -> Float[Tensor, "b m"]:
        """Each head's scores before normalisation, for right-padded rows."""
        scores: Tensor = self.head(self.features(ids, mask, starts, cached, adapter=self.adapter))
        return scores

    def row(self, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> TokenizedExample:
        """The row of a sampled answer, without the reasoning before it."""
        ended = self.backbone.finish_reason(answer_ids) == "stop"
        return self._row(prompt_ids, self.backbone.answer_ids(answer_ids[:-1] if ended else answer_ids))

    def text_row(self, prompt_ids: Sequence[int], text: str) -> TokenizedExample:
        """The row of an answer that is stored as text."""
        return self._row(prompt_ids, self.backbone.encode_answer(text))

    def _row(self, prompt_ids: Sequence[int], answer: Sequence[int]) -> TokenizedExample:
        return TokenizedExample([*prompt_ids, *cut_answer(self.backbone, prompt_ids, answer), self.backbone.eos_id], len(prompt_ids))

    def batch(self, rows: Sequence[TokenizedExample]) -> tuple[Tensor, Tensor, Tensor]:
        """ids [b, t], mask [b, t] and starts [b] on the backbone's device."""
        ids, mask = pad_right([r.ids for r in rows], self.backbone.pad_id)
        starts, device = torch.tensor([r.start for r in rows]), self.backbone.device
        return ids.to(device), mask.to(device), starts.to(device)

    @torch.no_grad()
    def ensemble_scores(self, rows: Sequence[TokenizedExample], *, on_progress: Work = NO_PROGRESS) -> Float[Tensor, "m b"]:
        """Each head's normalised scores of rows made by `row`."""
        raw = self._map_batches(rows, self, self.ensemble, on_progress)
        return ((raw - self.mean) / self.std).T

    def score(self, rows: Sequence[TokenizedExample], *, on_progress: Work = NO_PROGRESS) -> Float[Tensor, " b"]:
        """The heads' mean, less `std_penalty` times their standard deviation."""
        return self.conservative(self.ensemble_scores(rows, on_progress=on_progress))

    def conservative(self, ensemble_scores: Float[Tensor, "m b"]) -> Float[Tensor, " b"]:
        """mean - std_penalty * standard deviation (Coste 2023, arXiv 2310.02743, who take off the variance)."""
        return ensemble_scores.mean(0) - self.config.std_penalty * self.disagreement(ensemble_scores)

    @staticmethod
    def disagreement(ensemble_scores: Float[Tensor, "m b"]) -> Float[Tensor, " b"]:
        """Standard deviation over the heads; 0 where there is one."""
        # `torch.std` fails on an empty batch.
        return (ensemble_scores - ensemble_scores.mean(0)).square().mean(0).sqrt()

    def _map_batches(
        self, rows: Sequence[TokenizedExample], forward: Callable[..., Tensor], width: int, on_progress: Work
    ) -> Float[Tensor, "b width"]:
        """`forward` of every row, in order. Rows of similar length share a batch."""
        order: list[int] = []
        parts = []
        on_progress.total(len(rows))
        for indices in batches([len(row.ids) for row in rows], SCORE_BATCH_SIZE):
            order += indices
            batch = [rows[i] for i in indices]
            parts.append(forward(*self.batch(batch), _pad_cached(batch)).cpu())
            on_progress(len(batch))
        return torch.cat(parts)[torch.tensor(order).argsort()] if parts else torch.empty(0, width)

    @torch.no_grad()
    def frozen_base_features(
        self,
        chosen: Sequence[TokenizedExample],
        rejected: Sequence[TokenizedExample],
        *,
        ranks: Ranks = Ranks(),
        on_progress: Work = NO_PROGRESS,
    ) -> Features:
        """The frozen base's features of both sides of every pair. An answer that is in several pairs is computed once, by one rank."""
        rows = [*chosen, *rejected]
        number: dict[tuple[int, ...], int] = {}
        index = torch.tensor([number.setdefault((*row.ids, row.start), len(number)) for row in rows])
        distinct = dict(zip(index.tolist(), rows, strict=True))
        base_features = partial(self.features, adapter=None)
        mine = list(distinct.values())[ranks.share(len(distinct))]
        features = ranks.gather(self._map_batches(mine, base_features, self.backbone.hidden_size, on_progress))[index]
        return Features(features[: len(chosen)], features[len(chosen) :])

    @torch.no_grad()
    def init_head_from_probe(self, features: Features, labels: PairTargets) -> Float[Tensor, " m"]:
        """Sets each member's head to a linear probe fitted to its pairs on these features; returns the members' tie logits.

        Fine-tuning from a random head would distort the features first (Kumar 2022, arXiv 2202.10054).
        """
        tie_logit = torch.zeros(self.ensemble)
        for i in range(self.ensemble):
            self.head.weight[i], tie_logit[i] = self._fit_member_probe(features, labels.of_member(i))
        return tie_logit

    def _fit_member_probe(self, features: Features, member_labels: PairTargets) -> tuple[Float[Tensor, " d"], float]:
        """The probe's weights and the tie logit for the targets of one ensemble member."""
        tie_logit = torch.zeros(1, requires_grad=True)
        weight = minimise(
            *features,
            lambda difference: targets.loss(difference[:, None], member_labels, tie_logit, self.config),
            l2=self.config.probe_l2,
            extra_parameters=[tie_logit] if targets.fits_tie_logit(member_labels, self.config) else [],
        )
        return weight, tie_logit.item()

    @torch.no_grad()
    def normalise(self, rows: Sequence[TokenizedExample], on_progress: Work = NO_PROGRESS) -> None:
        """Sets each head's mean and std so that these reference samples score 0 on average, with standard deviation 1."""
        self.mean, self.std = torch.zeros_like(self.mean), torch.ones_like(self.std)
        scores = self.ensemble_scores(rows, on_progress=on_progress)
        self.mean, std = scores.mean(1), scores.std(1, unbiased=False)
        # Samples that all have one score give no scale.
        self.std = torch.where(std > 1e-6, std, 1.0)

    def save(self, folder: Path) -> None:
        """Writes the adapter (a probe has none), the head and the scale. The scale is written last: its presence marks a complete model."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.adapter:
            self.backbone.save_adapter(self.adapter, folder)
        save_file({k: v.detach().cpu().contiguous() for k, v in self.head.state_dict().items()}, folder / HEAD_FILE)
        (folder / SCALE_FILE).write_text(json.dumps({"mean": self.mean.tolist(), "std": self.std.tolist()}))

    @classmethod
    def load(cls, backbone: Backbone, config: RewardConfig, folder: Path) -> RewardModel:
        model = cls(backbone, config, seed=0)
        if model.adapter:
            backbone.load_adapter(model.adapter, folder)
        model.head.load_state_dict(load_file(folder / HEAD_FILE))
        scale = json.loads((folder / SCALE_FILE).read_text())
        # Older versions saved a number instead of a list for a single head.
        model.mean, model.std = (torch.tensor(scale[name], dtype=torch.float32).reshape(-1) for name in ("mean", "std"))
        return model

    @staticmethod
    def is_saved(folder: Path) -> bool:
        return (folder / SCALE_FILE).is_file()


def _pad_cached(rows: Sequence[TokenizedExample]) -> CachedHidden | None:
    """The rows' cached activations as one batch, padded on the right; None where there are none."""
    cached = [row.cached for row in rows if row.cached]
    return CachedHidden(cached[0].depth, pad_sequence([c.hidden for c in cached], batch_first=True)) if cached else None


def depth_of(backbone: Backbone, config: RewardConfig) -> int:
    """How many decoder layers the reward model uses."""
    return max(1, min(backbone.depth, round(config.depth * backbone.depth)))


def pooled(hidden: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"], starts: Int[Tensor, " b"], *, how: str) -> Float[Tensor, "b d"]:
    """One vector for each answer: the `mean` over its tokens, or its `last` one."""
    if how == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
    answer = mask & (torch.arange(mask.shape[1], device=mask.device) >= starts[:, None])
    return (hidden * answer[..., None]).sum(1) / answer.sum(1, keepdim=True)


class TrainableRewardModel(PreTrainedModel):  # type: ignore[no-untyped-call]  # transformers registers subclasses in untyped code
    """The reward model under the interface that TRL's trainer expects: token ids in, one logit per row and head out."""

    def __init__(self, model: RewardModel):
        config = wrapper_config(model.backbone)
        # TRL refuses more; `PreferenceTrainer` has its own loss, which handles several heads.
        config.num_labels = 1
        super().__init__(config)
        model.prepare_training()
        self.reward_model = model

    def forward(
        self, input_ids: Int[Tensor, "b t"], attention_mask: Int[Tensor, "b t"], starts: Int[Tensor, " b"], **unused: Any
    ) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=in_parts(self.reward_model, input_ids, attention_mask.bool(), starts))


class RankingBatchSampler(BatchSampler):
    """Batches of about `batch_size` pairs that split no ranking: a ranking belongs to the batch of its last pair.

    A ranking's pairs share their completions and are not independent, so that several updates on them overfit
    (Ouyang 2022, section 3.5). With two completions to each ranking, these are the batches of an ordinary sampler.
    """

    def __init__(self, sampler: Sampler[int], pairs: Sequence[int], batch_size: int):
        super().__init__(sampler, batch_size, drop_last=False)
        # A ranking with more pairs than a batch counts as a full batch.
        self.pairs = [min(n, batch_size) for n in pairs]

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        n_pairs = 0
        for ranking in self.sampler:
            if batch and (n_pairs - 1) // self.batch_size < (n_pairs + self.pairs[ranking] - 1) // self.batch_size:
                yield batch
                batch = []
            batch.append(ranking)
            n_pairs += self.pairs[ranking]
        yield batch

    def __len__(self) -> int:
        return -(-sum(self.pairs) // self.batch_size)


class RankingExample(TypedDict):
    """The pairs of one ranking, as the trainer's dataset holds them."""

    chosen_ids: list[list[int]]
    rejected_ids: list[list[int]]
    start: int
    """Length of the prompt in tokens."""
    pairs: list[int]
    """Indices into the pair targets."""


class PairCollator:
    """Collates rankings into rows, chosen sides first; within a ranking, each completion is one row."""

    def __init__(self, model: RewardModel):
        self.model = model

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        number: dict[tuple[int, ...], int] = {}
        chosen, rejected = (
            [number.setdefault((i, e["start"], *ids), len(number)) for i, e in enumerate(examples) for ids in e[side]]
            for side in ("chosen_ids", "rejected_ids")
        )
        ids, mask, starts = self.model.batch([TokenizedExample(list(ids), start) for _, start, *ids in number])
        return {
            "input_ids": ids,
            "attention_mask": mask.long(),
            "starts": starts,
            "chosen": torch.tensor(chosen),
            "rejected": torch.tensor(rejected),
            "pairs": torch.tensor([pair for e in examples for pair in e["pairs"]]),
        }


class PreferenceTrainer(RewardTrainer):
    """TRL's trainer, with the loss that the config selects, on batches of whole rankings, which the ranks share."""

    def __init__(
        self, model: RewardModel, labels: PairTargets, tie_logit: Float[Tensor, " m"], ranks: Ranks = Ranks(), **trainer_args: Any
    ):
        device = model.backbone.device
        self.reward_model, self.labels, self.tie_logit, self.ranks = model, labels.to(device), tie_logit.to(device), ranks
        collator = ShareCollator(PairCollator(model), ranks, partial(targets.terms, labels=labels, config=model.config))
        super().__init__(model=TrainableRewardModel(model), data_collator=collator, **trainer_args)

    def get_train_dataloader(self) -> DataLoader[Any]:
        rankings: Any = self.train_dataset
        batches = RankingBatchSampler(RandomSampler(rankings), [len(r) for r in rankings["pairs"]], self.args.per_device_train_batch_size)
        return whole_batches(DataLoader(rankings, batch_sampler=batches, collate_fn=self.data_collator), self.accelerator)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        share = inputs["share"]
        outputs = model(**inputs)
        difference = outputs.logits[inputs["chosen"]] - outputs.logits[inputs["rejected"]]
        labels = self.labels.select(inputs["pairs"])
        value = share * targets.loss(difference, labels, self.tie_logit, self.reward_model.config)
        ahead = difference.detach().mean(1)[~labels.tie]
        right, cases = self.ranks.sum(
            torch.stack([(ahead > 0).float().sum(), torch.tensor(float(len(ahead)), device=ahead.device)]) * (share > 0)
        )
        if cases:
            self._metrics["train"]["accuracy"].append((right / cases).item())
        return (value, outputs) if return_outputs else value


class TrainerLogCallback(TrainerCallback):
    def __init__(self, report: RewardLogCallback, model: RewardModel, on_progress: Work):
        self.report, self.model, self.on_progress = report, model, on_progress

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **unused: Any) -> None:
        self.on_progress.total(state.max_steps)

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
        if logs and "loss" in logs:
            # A batch that holds only ties has no accuracy.
            metrics = {name: logs[logged] for name, logged in TRL_NAMES.items() if logged in logs}
            self.report(state.global_step, state.max_steps, metrics, self.model)


def fit(
    backbone: Backbone,
    pairs: Sequence[PreferencePair],
    config: RewardConfig,
    *,
    seed: int,
    scratch: Path,
    report: RewardLogCallback,
    on_progress: Work = NO_PROGRESS,
    on_features: Callable[[Features], None] | None = None,
    ranks: Ranks = Ranks(),
) -> RewardModel:
    """Fits a probe, then adapter and heads to preference pairs, each with the loss that the config selects (`targets`).

    Args:
        on_features: called with the probe's features, in the order of the pairs (ties too), before anything is trained.
        ranks: those that fit it together; each calls this with the same pairs, and has the same model afterwards.
    """
    model = RewardModel(backbone, config, seed=seed)
    if model.adapter:
        backbone.add_adapter(model.adapter, config.adapter, seed=seed, depth=model.depth)
    encoded = [
        (model.text_row(prompt, pair.chosen), model.text_row(prompt, pair.rejected))
        for pair in pairs
        for prompt in [backbone.encode(pair.prompt)]
    ]
    labels = targets.pair_targets(pairs, config, seed=seed)
    on_progress.total(1 + (1 + UPDATE_COST) * config.epochs)
    features = model.frozen_base_features([c for c, _ in encoded], [r for _, r in encoded], ranks=ranks, on_progress=on_progress.part(1))
    if on_features is not None:
        on_features(features)
    tie_logit = model.init_head_from_probe(features, labels)
    if config.epochs:
        part = on_progress.part((1 + UPDATE_COST) * config.epochs)
        _fine_tune(model, encoded, labels, tie_logit, config, seed=seed, scratch=scratch, report=report, on_progress=part, ranks=ranks)
    return model


def _fine_tune(
    model: RewardModel,
    encoded: Sequence[tuple[TokenizedExample, TokenizedExample]],
    labels: PairTargets,
    tie_logit: Float[Tensor, " m"],
    config: RewardConfig,
    *,
    seed: int,
    scratch: Path,
    report: RewardLogCallback,
    on_progress: Work,
    ranks: Ranks,
) -> None:
    """Trains adapter and heads together, by TRL's trainer. The tie logit stays as the probe fitted it."""
    backbone = model.backbone
    arguments = TRLRewardConfig(
        output_dir=str(scratch),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        max_length=None,
        seed=seed,
        use_cpu=backbone.device.type == "cpu",
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    trainer = PreferenceTrainer(
        model,
        labels,
        tie_logit,
        ranks,
        args=on_one_device(arguments),
        train_dataset=_rankings(encoded, labels),
        processing_class=processing_class(backbone),
        callbacks=[TrainerLogCallback(report, model, on_progress)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    backbone.base.eval()


def _rankings(encoded: Sequence[tuple[TokenizedExample, TokenizedExample]], labels: PairTargets) -> Dataset:
    """One example for each ranking, in the order of the pairs."""
    rows: dict[int, RankingExample] = {}
    for pair, ((chosen, rejected), ranking) in enumerate(zip(encoded, labels.ranking.tolist(), strict=True)):
        row = rows.setdefault(ranking, {"chosen_ids": [], "rejected_ids": [], "start": chosen.start, "pairs": []})
        row["chosen_ids"].append(chosen.ids)
        row["rejected_ids"].append(rejected.ids)
        row["pairs"].append(pair)
    return Dataset.from_list(list(rows.values()))
