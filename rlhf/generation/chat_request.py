"""A request of OpenAI's chat protocol, as far as the policy server can do what it asks. Whatever else it asks is refused by name."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlhf.serving.limits import LONGEST_ANSWER, LONGEST_CONVERSATION, LONGEST_MESSAGE, MOST_MESSAGES
from storage.core.records import Sampling

MOST_NAMED = 8
"""Most unknown fields that one error names."""

LONGEST_NAME = 60
"""Characters of an unknown field's name that an error shows."""

LABELS = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"})
"""Fields that change nothing in the answer of one local model: accepted whatever they hold."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "stop": ([], ""),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "min_p": (0,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "stream_options": ({}, {"include_usage": False}),
}
"""Fields that the server does not support, with the values that ask for what it does anyway: accepted with those values alone."""


class ChatMessage(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=LONGEST_MESSAGE)

    @model_validator(mode="after")
    def _supported(self) -> ChatMessage:
        _refuse_unsupported(self.model_extra or {}, {})
        return self


class ChatRequest(BaseModel):
    """The part of OpenAI's chat-completions request that a local policy can honour."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str = Field(max_length=200)
    messages: list[ChatMessage] = Field(min_length=1, max_length=MOST_MESSAGES)
    temperature: float = Field(0.7, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    top_k: int = Field(0, ge=0, lt=2**31)
    max_tokens: int = Field(256, ge=1, le=LONGEST_ANSWER)
    max_completion_tokens: int | None = Field(None, ge=1, le=LONGEST_ANSWER)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stream: bool = False

    @model_validator(mode="after")
    def _supported(self) -> ChatRequest:
        _refuse_unsupported(self.model_extra or {}, NEUTRAL)
        both = self.model_fields_set >= {"max_tokens", "max_completion_tokens"}
        if both and self.max_completion_tokens not in (None, self.max_tokens):
            raise ValueError("max_tokens and max_completion_tokens differ: send one of them")
        return self

    @model_validator(mode="after")
    def _short_enough(self) -> ChatRequest:
        if (length := sum(len(message.content) for message in self.messages)) > LONGEST_CONVERSATION:
            raise ValueError(f"messages: {length:,} characters, of which {LONGEST_CONVERSATION:,} can be read: leave out earlier turns")
        return self

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_new_tokens=self.max_completion_tokens or self.max_tokens,
        )


def _refuse_unsupported(fields: dict[str, Any], neutral: dict[str, tuple[Any, ...]]) -> None:
    """Raises ValueError with the names of the fields that ask for what the server does not do."""
    refused = [name for name, value in fields.items() if not (name in LABELS or value is None or _equals_one(value, neutral.get(name, ())))]
    if not refused:
        return
    named = ", ".join(repr(name[:LONGEST_NAME]) for name in refused[:MOST_NAMED])
    more = f" and {len(refused) - MOST_NAMED:,} more" if len(refused) > MOST_NAMED else ""
    changed = [f"{name} is supported as {' or '.join(map(repr, neutral[name]))} alone" for name in refused if name in neutral]
    raise ValueError("; ".join([f"not supported by this server: {named}{more}", *changed[:MOST_NAMED]]))


def _equals_one(value: Any, accepted: tuple[Any, ...]) -> bool:
    # True == 1 in Python, and a protocol's true is not its 1.
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in accepted)
