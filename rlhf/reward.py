"""The reward model: a LoRA adapter and a scalar head on the same base, fitted to preference pairs by TRL.

Reads prompt + answer + end-of-sequence, whether or not the model ended the answer itself, so that a score never depends
on the token limit alone. The head reads the mean of the hidden states over the answer: with a few hundred votes that is
learned sooner than a summary in the last token (docs/decisions.md). Leaves out where pairs come from (`pairs`).
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from datasets import Dataset
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback
from transformers.modeling_outputs import SequenceClassifierOutput
from trl import RewardConfig as TRLRewardConfig
from trl import RewardTrainer

from rlhf.backbone import Backbone, pad_right
from rlhf.config import RewardConfig
from rlhf.pairs import PreferencePair

ADAPTER = "reward"
HEAD_FILE = "head.safetensors"
SCALE_FILE = "scale.json"

READ_BATCH = 32
"""Rows read at once when nothing is learned."""

Report = Callable[[int, int, dict[str, float], "RewardModel"], None]
"""Called with the update just made, their total number, its figures, and the model as it stands."""


class Row(NamedTuple):
    """What the reward model reads for one answer."""

    ids: list[int]
    """Prompt, answer, and exactly one end-of-sequence token."""
    start: int
    """Where the answer begins."""


class RewardModel(nn.Module):
    """`scores = (head(mean hidden state over the answer) - mean) / std`, on a shared backbone."""

    def __init__(self, backbone: Backbone, config: RewardConfig, *, seed: int):
        super().__init__()
        self.depth = depth_of(backbone, config)
        d = backbone.hidden_size
        self.head = nn.Linear(d, 1, device=backbone.device)
        # Stiennon 2020, appendix B: a head drawn from N(0, 1/(d+1)) starts with scores of about unit scale.
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(1, d, generator=rng) / math.sqrt(d + 1))
            self.head.bias.zero_()
        self.mean, self.std = 0.0, 1.0
        # Not a submodule: the backbone belongs to everyone.
        object.__setattr__(self, "backbone", backbone)

    def features(self, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], starts: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Mean hidden state over the answer's tokens, for right-padded rows, through whatever adapter is in use."""
        answer = mask & (torch.arange(ids.shape[1], device=ids.device) >= starts[:, None])
        hidden = self.backbone.hidden(ids, mask, depth=self.depth).float()
        return (hidden * answer[..., None]).sum(1) / answer.sum(1, keepdim=True)

    def raw(self, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], starts: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Scores before normalisation."""
        return self.head(self.features(ids, mask, starts))[:, 0]

    def row(self, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> Row:
        eos = self.backbone.eos_id
        answer = list(answer_ids[:-1] if answer_ids and answer_ids[-1] == eos else answer_ids)
        return Row([*prompt_ids, *answer, eos], len(prompt_ids))

    def batch(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
        """ids [b, t], mask [b, t] and starts [b] on the backbone's device."""
        ids, mask = pad_right([r.ids for r in rows], self.backbone.pad_id)
        return tuple(x.to(self.backbone.device) for x in (ids, mask, torch.tensor([r.start for r in rows])))

    @torch.no_grad()
    def score(self, rows: Sequence[Row], *, tick: Callable[[], None] = lambda: None) -> Float[Tensor, " b"]:
        """Normalised scores of rows made by `row`."""
        with self.backbone.using(ADAPTER):
            return (self._read(rows, self.raw, tick) - self.mean) / self.std

    def _read(self, rows: Sequence[Row], what: Callable[..., Tensor], tick: Callable[[], None]) -> Tensor:
        """`what` of every row, in order. Rows of like length are read together."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        parts = []
        for start in range(0, len(order), READ_BATCH):
            parts.append(what(*self.batch([rows[i] for i in order[start : start + READ_BATCH]])).cpu())
            tick()
        return torch.cat(parts)[torch.tensor(order).argsort()] if parts else torch.empty(0)

    @torch.no_grad()
    def probe(self, chosen: Sequence[Row], rejected: Sequence[Row], *, l2: float, tick: Callable[[], None] = lambda: None) -> None:
        """Starts the head from the logistic regression on the frozen base's features.

        A head that starts at random would bend the features before it knows what for (Kumar 2022, arXiv 2202.10054).
        """
        with self.backbone.using(None):
            features = self._read([*chosen, *rejected], self.features, tick)
        scale = features.std(0).clamp(min=1e-6)
        difference = (features[: len(chosen)] - features[len(chosen) :]) / scale
        weight = torch.zeros(difference.shape[1], requires_grad=True)
        optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = -nn.functional.logsigmoid(difference @ weight).mean() + l2 * weight.square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        self.head.weight.copy_((weight / scale)[None])

    def normalise(self, rows: Sequence[Row], tick: Callable[[], None] = lambda: None) -> None:
        """Sets mean and std so that these reference samples score 0 on average, with standard deviation 1."""
        self.mean, self.std = 0.0, 1.0
        scores = self.score(rows, tick=tick)
        self.mean = float(scores.mean())
        # Samples that all score alike have no scale to take.
        self.std = float(scores.std(unbiased=False)) if scores.std(unbiased=False) > 1e-6 else 1.0

    def save(self, folder: Path) -> None:
        """Adapter, head and scale; the scale is written last, so its presence means that all is there."""
        self.backbone.save_adapter(ADAPTER, folder)
        save_file({k: v.detach().cpu().contiguous() for k, v in self.head.state_dict().items()}, folder / HEAD_FILE)
        (folder / SCALE_FILE).write_text(json.dumps({"mean": self.mean, "std": self.std}))

    @classmethod
    def load(cls, backbone: Backbone, config: RewardConfig, folder: Path) -> RewardModel:
        model = cls(backbone, config, seed=0)
        backbone.load_adapter(ADAPTER, folder)
        model.head.load_state_dict(load_file(folder / HEAD_FILE))
        scale = json.loads((folder / SCALE_FILE).read_text())
        model.mean, model.std = scale["mean"], scale["std"]
        return model

    @staticmethod
    def is_saved(folder: Path) -> bool:
        return (folder / SCALE_FILE).is_file()


def depth_of(backbone: Backbone, config: RewardConfig) -> int:
    """How many decoder layers the reward model reads through."""
    return max(1, min(backbone.depth, round(config.depth * backbone.depth)))


class _Trainable(PreTrainedModel):
    """The reward model under the interface that TRL's trainer expects: token ids in, one logit a row out."""

    def __init__(self, model: RewardModel):
        config = copy.deepcopy(model.backbone.base.config)
        config.num_labels = 1
        # This wrapper attends to nothing itself; the backbone keeps the implementation it was loaded with.
        config._attn_implementation = "eager"
        super().__init__(config)
        # The whole PEFT model is registered, so that the trainer's optimiser finds the adapter's weights in it.
        self.peft_model = model.backbone.model
        self.reward_model = model

    def forward(
        self, input_ids: Int[Tensor, "b t"], attention_mask: Int[Tensor, "b t"], starts: Int[Tensor, " b"], **unused
    ) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=self.reward_model.raw(input_ids, attention_mask.bool(), starts)[:, None])


class _Collator:
    """Puts a batch of pairs into rows, chosen ones first, as TRL's loss expects them."""

    def __init__(self, model: RewardModel):
        self.model = model

    def __call__(self, examples: Sequence[dict]) -> dict[str, Tensor]:
        rows = [Row(e[f"{side}_ids"], e["start"]) for side in ("chosen", "rejected") for e in examples]
        ids, mask, starts = self.model.batch(rows)
        return {"input_ids": ids, "attention_mask": mask.long(), "starts": starts}


class _Reporter(TrainerCallback):
    def __init__(self, report: Report, model: RewardModel):
        self.report, self.model = report, model

    def on_log(self, args, state, control, logs=None, **unused):
        if logs and "loss" in logs:
            figures = {"reward/loss": logs["loss"], "reward/accuracy": logs["accuracy"]}
            self.report(state.global_step, state.max_steps, figures, self.model)


def fit(
    backbone: Backbone, pairs: Sequence[PreferencePair], config: RewardConfig, *, seed: int, scratch: Path, report: Report,
    tick: Callable[[], None] = lambda: None,
) -> RewardModel:
    """A probe, then adapter and head on preference pairs: loss = -log sigmoid(chosen - rejected) (Stiennon 2020, eq. 1)."""
    backbone.add_adapter(ADAPTER, config.adapter, seed=seed, depth=depth_of(backbone, config))
    model = RewardModel(backbone, config, seed=seed)
    encoded = [
        (model.row(prompt, backbone.encode_answer(pair.chosen)), model.row(prompt, backbone.encode_answer(pair.rejected)))
        for pair in pairs
        for prompt in [backbone.encode(pair.prompt)]
    ]
    model.probe([c for c, _ in encoded], [r for _, r in encoded], l2=config.probe_l2, tick=tick)
    if config.epochs:
        _fine_tune(model, encoded, config, seed=seed, scratch=scratch, report=report)
    return model


def _fine_tune(
    model: RewardModel, encoded: Sequence[tuple[Row, Row]], config: RewardConfig, *, seed: int, scratch: Path, report: Report
) -> None:
    """Adapter and head together, by TRL's trainer."""
    backbone = model.backbone
    rows = [{"chosen_ids": c.ids, "rejected_ids": r.ids, "start": c.start} for c, r in encoded]
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
    with backbone.using(ADAPTER):
        trainer = RewardTrainer(
            model=_Trainable(model),
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=copy.deepcopy(backbone.tokenizer),
            data_collator=_Collator(model),
            callbacks=[_Reporter(report, model)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    backbone.base.eval()
