"""A reward model from elsewhere: a sequence-classification model with one output, which pays alone or beside the learned reward model.

It has a base, a tokenizer and a chat template of its own, so it reads conversations as text. Its scores are put on the learned model's
scale: mean 0 and standard deviation 1 on the same answers of the base. Leaves out which folders are safe to read
(`rlhf.model_files.outside_reward_model`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rlhf.models.backbone import Backbone, context_length
from rlhf.models.chat_template import ChatTemplateError, bound
from rlhf.models.chat_tokens import folded
from rlhf.models.lengths import batches
from rlhf.models.padding import pad_right
from rlhf.reward.model import SCORE_BATCH_SIZE, RewardModel, TokenizedExample
from rlhf.runs.work import NO_PROGRESS, Work
from rlhf.safe_files import ModelError
from storage.core.records import Message

log = logging.getLogger("rankloop.reward")

SCALE_FILE = "outside.json"


class Answered(NamedTuple):
    """A conversation with the answer that is scored."""

    prompt: Sequence[Message]
    answer: str


class Encoded(NamedTuple):
    """One row as the model reads it."""

    ids: list[int]
    types: list[int] | None
    """Which of the pair's texts a token belongs to; None for a model that does not ask."""
    is_cut: bool


class OutsideRewardModel:
    """`scores = (logit - mean) / std` of a conversation's text."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str):
        # transformers leaves `eval` without types.
        self.model: PreTrainedModel = model.eval().requires_grad_(False)  # type: ignore[no-untyped-call]
        self.tokenizer, self.name = bound(tokenizer), name
        self.limit = context_length(model)
        """Most tokens of a row; None where its config names none."""
        self.mean, self.std = 0.0, 1.0

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> OutsideRewardModel:
        """Loads a folder that `rlhf.model_files.outside_reward_model` has checked.

        Raises:
            ModelError: it cannot be read, or weights are missing, in whose place there would be random ones.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model, info = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
        except Exception as error:
            # transformers and safetensors raise many kinds for a file that is cut off or of another shape.
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"{folder}: cannot be read as a sequence-classification model ({reason}). Fetch it again.") from error
        if missing := sorted(info["missing_keys"]):
            raise ModelError(f"{folder}: its weights lack {missing[0]}, so that its scores would be random. Fetch it again.")
        return cls(model.to(device), tokenizer, name=folder.name)

    def encode(self, row: Answered) -> Encoded:
        """The row by this model's chat template, or as a pair of texts where it has none. A longer row is cut before its last token."""
        if self.tokenizer.chat_template is None:
            pair = ("\n\n".join(turn["content"] for turn in row.prompt), row.answer)
            whole = self.tokenizer(*pair)
            is_cut = self.limit is not None and len(whole["input_ids"]) > self.limit
            read = self.tokenizer(*pair, truncation=True, max_length=self.limit) if is_cut else whole
            return Encoded(read["input_ids"], read.get("token_type_ids"), is_cut)
        ids = self._templated(row)
        if self.limit is None or len(ids) <= self.limit:
            return Encoded(ids, None, False)
        return Encoded([*ids[: self.limit - 1], ids[-1]], None, True)

    def _templated(self, row: Answered) -> list[int]:
        messages: list[Message] = [*row.prompt, {"role": "assistant", "content": row.answer}]
        try:
            return self._rendered(messages)
        except ChatTemplateError:
            if messages[0]["role"] != "system":
                raise
            return self._rendered(folded(messages))

    def _rendered(self, messages: Sequence[Message]) -> list[int]:
        ids: list[int] = self.tokenizer.apply_chat_template(list(messages), return_dict=False)
        return ids

    @torch.no_grad()
    def logits(self, rows: Sequence[Answered], *, on_progress: Work = NO_PROGRESS) -> Float[Tensor, " b"]:
        """The model's own output for each row.

        Raises:
            ModelError: its chat template refuses a conversation, or an output is no finite number.
        """
        try:
            encoded = [self.encode(row) for row in rows]
        except ChatTemplateError as error:
            raise ModelError(f"{self.name}: its chat template refuses a prompt of this project ({error})") from error
        if cut := sum(row.is_cut for row in encoded):
            log.warning("%s reads %s tokens: %d of %d conversations were cut at their end", self.name, self.limit, cut, len(encoded))
        found = torch.empty(len(rows))
        pad_id = getattr(self.model.config, "pad_token_id", None)
        on_progress.total(len(rows))
        # Without a token for padding a decoder cannot tell where a shorter row ends.
        for indices in batches([len(row.ids) for row in encoded], SCORE_BATCH_SIZE if pad_id is not None else 1):
            batch = [encoded[i] for i in indices]
            ids, mask = pad_right([row.ids for row in batch], pad_id or 0)
            read = {"input_ids": ids, "attention_mask": mask.long()}
            if types := [row.types for row in batch if row.types is not None]:
                read["token_type_ids"] = pad_right(types, 0)[0]
            logits = self.model(**{name: tensor.to(self.model.device) for name, tensor in read.items()}).logits
            found[indices] = logits.squeeze(-1).float().cpu()
            on_progress(len(indices))
        if not found.isfinite().all():
            raise ModelError(f"{self.name}: a score is no finite number. Use another reward model, or --dtype float32")
        return found

    def score(self, rows: Sequence[Answered], *, on_progress: Work = NO_PROGRESS) -> Float[Tensor, " b"]:
        """Scores on the scale that `normalise` set."""
        return (self.logits(rows, on_progress=on_progress) - self.mean) / self.std

    def normalise(self, rows: Sequence[Answered]) -> None:
        """Sets mean and std so that these rows score 0 on average, with standard deviation 1."""
        logits = self.logits(rows)
        std = float(logits.std(unbiased=False))
        self.mean, self.std = float(logits.mean()), std if std > 1e-6 else 1.0

    def save_scale(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SCALE_FILE).write_text(json.dumps({"mean": self.mean, "std": self.std}))

    def load_scale(self, folder: Path) -> None:
        scale = json.loads((folder / SCALE_FILE).read_text())
        self.mean, self.std = scale["mean"], scale["std"]


class WeightedReward:
    """A scorer: `weight` of the outside model's score and the rest of the learned one's. Both read the same answers."""

    def __init__(
        self, learned: RewardModel, outside: OutsideRewardModel, weight: float, backbone: Backbone, prompts: Sequence[Sequence[Message]]
    ):
        self.learned, self.outside, self.weight, self.backbone = learned, outside, weight, backbone
        self.messages = {tuple(backbone.encode(p)): list(p) for p in prompts}

    def row(self, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> TokenizedExample:
        return self.learned.row(prompt_ids, answer_ids)

    def answered(self, row: TokenizedExample) -> Answered:
        # The learned model's row has no reasoning any more, which `Backbone.decode` would look for.
        text: str = self.backbone.tokenizer.decode(row.ids[row.start :], skip_special_tokens=True)
        return Answered(self.messages[tuple(row.ids[: row.start])], text.strip())

    def score(self, rows: Sequence[TokenizedExample], *, on_progress: Work = NO_PROGRESS) -> Float[Tensor, " b"]:
        on_progress.total(2)
        scores = self.weight * self.outside.score([self.answered(row) for row in rows], on_progress=on_progress.part(1))
        if self.weight < 1:
            scores = scores + (1 - self.weight) * self.learned.score(rows, on_progress=on_progress.part(1))
        return scores
