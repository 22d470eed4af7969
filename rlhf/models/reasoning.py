"""Reasoning that some models write before their answer, between `<think>` and `</think>`: it is kept apart from the answer.

Where the chat template has the variable `enable_thinking`, it is off (`chat_template`), so that there is none. Otherwise the tokens up to
the last end mark are no part of the answer that people are shown and that the reward model reads; of reasoning that did not end within
the token limit no answer is left. The policy is still trained on every token it sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

START, END = "<think>", "</think>"


class ReasoningMarks(NamedTuple):
    """The tokens around a model's reasoning."""

    start: int | None
    end: int
    opened: bool
    """Whether the prompt itself ends inside reasoning, so that the answer begins after the end mark."""

    def answer(self, ids: Sequence[int]) -> Sequence[int]:
        """The sampled ids without the reasoning before the answer."""
        if self.end in ids:
            return ids[len(ids) - list(reversed(ids)).index(self.end) :]
        return [] if self.opened or self.start in ids else ids


def reasoning_marks(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]) -> ReasoningMarks | None:
    """The marks that a tokenizer has as tokens of their own; None where it has no end mark.

    Args:
        prompt: ids of a conversation up to where the assistant's turn begins.
    """
    vocabulary = tokenizer.get_vocab()
    if (end := vocabulary.get(END)) is None:
        return None
    start = vocabulary.get(START)
    marks = [token for token in prompt if token in (start, end)]
    return ReasoningMarks(start, end, opened=bool(marks) and marks[-1] == start)
