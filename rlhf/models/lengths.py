"""How long a row of tokens may be: prompt, answer and end-of-sequence token together, checked before anything is computed.

`Backbone.max_length` is the limit: `--max-length`, and never more than the model's context. A longer answer is cut at its end; a
prompt that leaves no room is left out and named. Batches are bounded by their tokens too, because the memory of a pass grows with
them. Leaves out chats, whose prompts the policy server refuses (`generation.engine`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rlhf.config import RoundConfig
from rlhf.data.demonstrations import Demonstration
from rlhf.data.pairs import PreferencePair
from rlhf.models.backbone import Backbone
from rlhf.models.chat_template import ChatTemplateError
from rlhf.runs.results import LengthReport, TemplateReport
from storage.core.records import Message, Prompt

BATCH_TOKENS = 8192
"""Most tokens of one forward pass, padding included, where a batch may be split; a row that is longer is a batch of its own."""


class PromptTooLong(ValueError):
    """A prompt leaves no room for an answer; the message names the numbers and the remedy."""


class NothingFits(ValueError):
    """The chat template refuses every pair, prompt or demonstration of a round, or all are too long; the message says which and why."""


@dataclass(frozen=True, slots=True)
class FittingData:
    """What a round works on after rows that are too long were left out."""

    snapshot: list[PreferencePair]
    demonstrations: list[Demonstration]
    train: list[Prompt]
    heldout: list[Prompt]
    report: LengthReport
    template: TemplateReport


def fits(backbone: Backbone, prompt_ids: Sequence[int], max_new_tokens: int) -> bool:
    """Whether a prompt, an answer of `max_new_tokens` and an end-of-sequence token fit one row."""
    return backbone.max_length is None or len(prompt_ids) + max_new_tokens + 1 <= backbone.max_length


def fitting_data(
    backbone: Backbone,
    config: RoundConfig,
    snapshot: Sequence[PreferencePair],
    demonstrations: Sequence[Demonstration],
    train: Sequence[Prompt],
    heldout: Sequence[Prompt],
) -> FittingData:
    """A round's data without what the model's template refuses or what is too long, and the counts and ids of what was cut or left out.

    Raises:
        NothingFits: no training pair, prompt or demonstration is left of those that the round needs.
    """
    measure = _Measure(backbone)
    snapshot, demonstrations, train, heldout, template = _encodable(measure, snapshot, demonstrations, train, heldout)
    pairs_left = [p for p in snapshot if measure.room(p.prompt) > 0]
    demonstrations_left = [d for d in demonstrations if measure.room(d.prompt) > 0]
    train_left = [p for p in train if fits(backbone, measure.encode(p.messages), config.sampling.max_new_tokens)]
    heldout_left = [p for p in heldout if fits(backbone, measure.encode(p.messages), config.evaluation.max_new_tokens)]
    answers = [(p.prompt, text) for p in pairs_left for text in (p.chosen, p.rejected)] + [(d.prompt, d.text) for d in demonstrations_left]
    distinct = {(repr(prompt), text): (prompt, text) for prompt, text in answers}
    report = LengthReport(
        max_length=backbone.max_length,
        cut_answers=sum(measure.is_cut(prompt, text) for prompt, text in distinct.values()),
        judgments=sorted({p.judgment_id for p in snapshot if measure.room(p.prompt) <= 0}),
        demonstrations=len(demonstrations) - len(demonstrations_left),
        prompts=sorted({p.id for p in (*train, *heldout)} - {p.id for p in (*train_left, *heldout_left)}),
    )
    for name, before, after in (
        ("preference pairs on training prompts", _trained(snapshot), _trained(pairs_left)),
        ("training prompts", len(train), len(train_left)),
        ("ideal answers", len(demonstrations), len(demonstrations_left)),
    ):
        if before and not after:
            raise NothingFits(
                f"none of {before} {name} leaves room for an answer within {backbone.max_length} tokens: raise --max-length (the model's "
                f"context is {backbone.context or 'not bounded'}), or lower --sampling-max-new-tokens ({config.sampling.max_new_tokens})"
            )
    return FittingData(pairs_left, demonstrations_left, train_left, heldout_left, report, template)


def _encodable(
    measure: _Measure,
    snapshot: Sequence[PreferencePair],
    demonstrations: Sequence[Demonstration],
    train: Sequence[Prompt],
    heldout: Sequence[Prompt],
) -> tuple[list[PreferencePair], list[Demonstration], list[Prompt], list[Prompt], TemplateReport]:
    """A round's data without the prompts that the chat template refuses, and the counts and ids of these.

    Raises:
        NothingFits: the template refuses all training pairs, prompts or demonstrations; the message has its reason.
    """
    pairs_left = [p for p in snapshot if measure.encodes(p.prompt)]
    demonstrations_left = [d for d in demonstrations if measure.encodes(d.prompt)]
    train_left, heldout_left = ([p for p in some if measure.encodes(p.messages)] for some in (train, heldout))
    report = TemplateReport(
        reasons=sorted(set(measure.refused.values())),
        folded=measure.folded,
        judgments=sorted({p.judgment_id for p in snapshot if not measure.encodes(p.prompt)}),
        demonstrations=len(demonstrations) - len(demonstrations_left),
        prompts=sorted({p.id for p in (*train, *heldout) if not measure.encodes(p.messages)}),
    )
    for name, before, after in (
        ("preference pairs on training prompts", _trained(snapshot), _trained(pairs_left)),
        ("training prompts", len(train), len(train_left)),
        ("ideal answers", len(demonstrations), len(demonstrations_left)),
    ):
        if before and not after:
            raise NothingFits(f"the model's chat template refuses all of {before} {name} ({'; '.join(report.reasons)}): use another model")
    return pairs_left, demonstrations_left, train_left, heldout_left, report


def _trained(pairs: Sequence[PreferencePair]) -> int:
    return sum(p.split == "train" and not p.tie for p in pairs)


class _Measure:
    """Lengths in tokens; a prompt is encoded once, and an answer only where its text does not already show that it fits."""

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        self._prompts: dict[str, list[int]] = {}
        self.refused: dict[str, str] = {}
        """Why the template refuses a prompt, for each one that it does."""
        self.folded = 0
        """Prompts whose system message is put before the first user turn."""

    def encodes(self, prompt: Sequence[Message]) -> bool:
        """Whether the chat template takes a prompt."""
        key = repr(prompt)
        if key not in self._prompts and key not in self.refused:
            try:
                self.encode(prompt)
                self.folded += self.backbone.lacks_role_of(prompt)
            except ChatTemplateError as error:
                self.refused[key] = str(error)
        return key not in self.refused

    def encode(self, prompt: Sequence[Message]) -> list[int]:
        key = repr(prompt)
        if key not in self._prompts:
            self._prompts[key] = self.backbone.encode(prompt)
        return self._prompts[key]

    def room(self, prompt: Sequence[Message]) -> int:
        """How many tokens an answer may have without its end; 1 stands for any number where there is no limit."""
        limit = self.backbone.max_length
        return 1 if limit is None else limit - len(self.encode(prompt)) - 1

    def is_cut(self, prompt: Sequence[Message], text: str) -> bool:
        if self.backbone.max_length is None:
            return False
        # A token is at least one byte of the text; a tokenizer may put one more before it.
        room = self.room(prompt)
        return len(text.encode()) >= room and len(self.backbone.encode_answer(text)) > room


def require_room(backbone: Backbone, prompt_ids: Sequence[int]) -> None:
    """Refuses a prompt after which not even an end-of-sequence token fits.

    Raises:
        PromptTooLong: with the numbers.
    """
    if backbone.max_length is not None and len(prompt_ids) + 1 > backbone.max_length:
        raise PromptTooLong(
            f"a prompt of {len(prompt_ids):,} tokens leaves no room for an answer within {backbone.max_length:,} tokens: "
            f"raise --max-length (the model's context is {backbone.context or 'not bounded'}), or leave the prompt out"
        )


def cut_answer(backbone: Backbone, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> Sequence[int]:
    """The answer, without its end-of-sequence token, up to where prompt, answer and that token fill a row.

    Raises:
        PromptTooLong: the prompt alone fills it.
    """
    require_room(backbone, prompt_ids)
    return answer_ids if backbone.max_length is None else answer_ids[: backbone.max_length - len(prompt_ids) - 1]


def ended_answer(backbone: Backbone, prompt_ids: Sequence[int], text: str) -> list[int]:
    """An answer's tokens as a policy is trained on them: with an end-of-sequence token, unless it is cut, and ends elsewhere.

    Raises:
        PromptTooLong: the prompt alone fills a row.
    """
    answer = backbone.encode_answer(text)
    kept = cut_answer(backbone, prompt_ids, answer)
    return [*kept, backbone.eos_id] if len(kept) == len(answer) else list(kept)


def batches(lengths: Sequence[int], max_rows: int, max_tokens: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Indices of rows in batches of similar length, the shortest first: at most `max_rows`, and `max_tokens` with their padding."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == max_rows or (len(batch) + 1) * lengths[i] > max_tokens):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def in_parts(forward: Callable[..., Tensor], *rows: Tensor, max_tokens: int = BATCH_TOKENS) -> Tensor:
    """`forward(*rows)`, where every argument and the result have one row for each row of the first, which is [b, t].

    A batch of more than `max_tokens` is computed in parts, and the backward pass computes each part again (Chen 2016, arXiv
    1604.06174): activations of one part alone are in memory, and the gradients are the same.
    """
    count, width = rows[0].shape
    size = max(1, max_tokens // max(1, width))
    if count <= size:
        return forward(*rows)
    split = zip(*(torch.split(row, size) for row in rows), strict=True)
    return torch.cat([checkpoint(forward, *part, use_reentrant=False) for part in split])
