"""From conversations to token ids and back: what a model's tokenizer and chat template say, and which tokens end an answer.

Leaves out the template's own limits (`chat_template`) and how long a row may be (`lengths`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import takewhile
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.models.chat_template import ChatTemplateError, bound
from rlhf.models.reasoning import ReasoningMarks, reasoning_marks
from storage.core.records import Message


class ChatTokens:
    """The tokenizer of one model, its chat template and its end-of-sequence tokens."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = bound(tokenizer)
        self.eos_token_ids: tuple[int, ...] = eos_token_ids(model, tokenizer)
        """Every token that ends an answer, as transformers' `generate` and the tokenizer have them."""
        self.eos_id: int = self._turn_end()
        """The one of them that ends an assistant's turn in the chat template: it is put after answers that are read as text."""
        self.has_system_role: bool = self._shows_system()
        """Whether the chat template takes a system message and shows its text."""
        self.fold_system: bool = True
        """Whether `encode` puts a system message before the first user turn where the template has no system role."""
        self.reasoning: ReasoningMarks | None = self._reasoning_marks()
        self.pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.eos_id

    def encode(self, messages: Sequence[Message], *, fold_system: bool | None = None) -> list[int]:
        """Token ids of a conversation, up to where the assistant's answer begins.

        Args:
            fold_system: whether a system message that the template has no role for is put before the first user turn, with an empty
                line between them; None for `self.fold_system`.

        Raises:
            ChatTemplateError: the model's chat template refuses it, or went over a limit.
        """
        if self.lacks_role_of(messages):
            if not (self.fold_system if fold_system is None else fold_system):
                raise ChatTemplateError("the chat template has no system role, and system messages are not folded into the user's turn")
            messages = folded(messages)
        ids: list[int] = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False)
        return ids

    def lacks_role_of(self, messages: Sequence[Message]) -> bool:
        """Whether the conversation begins with a system message for which the chat template has no role."""
        return not self.has_system_role and bool(messages) and messages[0]["role"] == "system"

    def _shows_system(self) -> bool:
        """Whether the template renders a system message's text; some refuse the role, and some drop what it says."""
        said = "rankloop-system-probe"
        messages: list[Message] = [{"role": "system", "content": said}, {"role": "user", "content": "Hi"}]
        try:
            return said in self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except ChatTemplateError:
            return False
        except ValueError:
            # No template at all.
            return True

    def ends(self, tokens: Int[Tensor, "*b"]) -> Bool[Tensor, "*b"]:
        """Which tokens end an answer."""
        # Comparisons and not torch.isin, which would copy the ids to the device at every token.
        return reduce(torch.logical_or, (tokens == token for token in self.eos_token_ids))

    def finish_reason(self, ids: Sequence[int]) -> Literal["stop", "length"]:
        """Whether an answer's last token ends it (`stop`), or the token limit did (`length`)."""
        return "stop" if ids and ids[-1] in self.eos_token_ids else "length"

    def _turn_end(self) -> int:
        """The first end token after an assistant's text in the chat template; the tokenizer's own where there is none."""
        return next((token for token in self.turn_suffix() if token in self.eos_token_ids), self.eos_token_ids[0])

    def turn_suffix(self) -> list[int]:
        """What the chat template puts after an assistant's text; nothing where there is no template, or one that refuses."""
        try:
            rendered = [self._conversation_ids(text) for text in ("Hi", "Yes")]
        except (ChatTemplateError, ValueError):
            return []
        # Two answers differ up to the end of their text, so what both end with comes after it.
        suffix = [a for a, b in takewhile(lambda pair: pair[0] == pair[1], zip(*map(reversed, rendered), strict=False))]
        return suffix[::-1]

    def _conversation_ids(self, answer: str) -> list[int]:
        messages: list[Message] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]
        ids: list[int] = self.tokenizer.apply_chat_template(messages, return_dict=False)
        return ids

    def encode_answer(self, text: str) -> list[int]:
        """Token ids of an answer's text, without its end."""
        # An end-of-turn mark that an answer spells out is only text.
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids

    def _reasoning_marks(self) -> ReasoningMarks | None:
        try:
            prompt = self.encode([{"role": "user", "content": "Hi"}])
        except (ChatTemplateError, ValueError):
            prompt = []
        return reasoning_marks(self.tokenizer, prompt)

    def answer_ids(self, ids: Sequence[int]) -> Sequence[int]:
        """Sampled ids without the reasoning before the answer, if the model writes any."""
        return ids if self.reasoning is None else self.reasoning.answer(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, without reasoning before it and without space around it."""
        text: str = self.tokenizer.decode(self.answer_ids(ids), skip_special_tokens=True)
        return text.strip()


def folded(messages: Sequence[Message]) -> list[Message]:
    """The conversation with its system message put before the first user turn, an empty line between them."""
    system, first, *rest = messages
    return [{"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokenizer's end-of-sequence token and those of the generation config, which may name several (Gemma, Llama 3, Qwen)."""
    config = model.generation_config.eos_token_id if model.generation_config else None
    generation = config if isinstance(config, list) else [config]
    return tuple(dict.fromkeys(token for token in (tokenizer.eos_token_id, *generation) if token is not None))
