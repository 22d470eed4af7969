"""Requests of OpenAI's protocol, as far as the policy server can do what they ask. Whatever else they ask is refused by name.

`ChatRequest` asks for an answer to a conversation, `CompletionRequest` for the continuation of a text. A field that is null has its
default. Leaves out how a conversation becomes tokens: that is `conversations`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, StringConstraints, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from rlhf.generation.request import LogitAdjustments
from rlhf.serving.limits import (
    MAX_ANSWER_TOKENS,
    MAX_CHOICES,
    MAX_CONVERSATION_CHARS,
    MAX_LOGIT_BIASES,
    MAX_MESSAGE_CHARS,
    MAX_MESSAGES,
    MAX_PARTS,
    MAX_PROMPT_TOKENS,
    MAX_STOP_CHARS,
    MAX_STOP_TOKENS,
    MAX_STOPS,
    MAX_TOOL_CALLS,
    MAX_TOP_LOGPROBS,
)
from storage.core.records import Sampling

MAX_NAMED = 8
"""Most unknown fields that one error names."""

MAX_NAME_CHARS = 60
"""Characters of an unknown field's name that an error shows."""

LABELS = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls"}
)
"""Fields that change nothing in the answer of one local model: accepted whatever they hold."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (1,),
    "min_p": (0,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
"""Fields that the server does not support, with the values that ask for what it does anyway: accepted with those values alone."""

NEUTRAL_COMPLETION: dict[str, tuple[Any, ...]] = {"repetition_penalty": (1,), "min_p": (0,), "echo": (False,), "suffix": ("",)}
"""The same for the continuation of a text."""

Stop = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_CHARS)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=MAX_PROMPT_TOKENS)]
Text = Annotated[str, StringConstraints(max_length=MAX_CONVERSATION_CHARS)]


def wrong(param: str, message: str, code: str = "invalid_value") -> PydanticCustomError:
    """A validation error that names its field and says why, in the words of this module."""
    return PydanticCustomError("refused", "{message}", {"message": message, "param": param, "code": code})


class ProtocolModel(BaseModel):
    """An object of a request. A field that is null counts as one that is not there."""

    model_config = ConfigDict(strict=True, extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        described = handler.resolve_ref_schema(schema)
        for name, field in described["properties"].items():
            if name not in described.get("required", ()):
                described["properties"][name] = {"anyOf": [*field.pop("anyOf", [field.copy()]), {"type": "null"}]} | {
                    key: field[key] for key in ("default", "title") if key in field
                }
        return schema


class TextPart(ProtocolModel):
    """One part of a message. Images, audio and files are refused."""

    type: Literal["text"]
    text: str = Field(max_length=MAX_MESSAGE_CHARS)

    @model_validator(mode="after")
    def _supported(self) -> TextPart:
        refuse_unsupported(self.model_extra or {}, {})
        return self


class CalledFunction(ProtocolModel):
    """The function that an earlier answer of the assistant called."""

    name: str = Field(max_length=200)
    arguments: str = Field(max_length=MAX_MESSAGE_CHARS)


class ToolCall(ProtocolModel):
    """A call in an earlier turn of the assistant; the server itself calls nothing."""

    id: str = Field(max_length=200)
    type: Literal["function"] = "function"
    function: CalledFunction

    @property
    def arguments(self) -> dict[str, Any]:
        """Raises an error where they are no JSON object."""
        try:
            found = json.loads(self.function.arguments)
        except (json.JSONDecodeError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise wrong("tool_calls", "the arguments of a call must be the text of a JSON object")
        return found


class ChatMessage(ProtocolModel):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str, StringConstraints(max_length=MAX_MESSAGE_CHARS)] | Annotated[list[TextPart], Field(max_length=MAX_PARTS)] = ""
    tool_calls: list[ToolCall] = Field(default=[], max_length=MAX_TOOL_CALLS)
    tool_call_id: str = Field("", max_length=200)

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, data: Any) -> Any:
        parts = data.get("content") if isinstance(data, dict) else None
        for part in parts if isinstance(parts, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind != "text":
                message = f"a part of type {kind[:MAX_NAME_CHARS]!r} is not supported by this server: send text alone"
                raise wrong("content", message, "unsupported_value")
        return data

    @model_validator(mode="after")
    def _supported(self) -> ChatMessage:
        refuse_unsupported(self.model_extra or {}, {})
        if self.tool_calls and self.role != "assistant":
            raise wrong("tool_calls", "not supported by this server: 'tool_calls' of another role than assistant")
        if self.tool_call_id and self.role != "tool":
            raise wrong("tool_call_id", "not supported by this server: 'tool_call_id' of another role than tool")
        if "content" not in self.model_fields_set and not self.tool_calls:
            raise wrong("content", "a message needs it, unless it has tool_calls")
        for call in self.tool_calls:
            _ = call.arguments
        return self

    @property
    def text(self) -> str:
        """The content; its parts are joined by line breaks."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)

    @property
    def characters(self) -> int:
        return len(self.text) + sum(len(call.function.arguments) for call in self.tool_calls)


class StreamOptions(ProtocolModel):
    """What a stream says beside its answer."""

    include_usage: bool = False

    @model_validator(mode="after")
    def _supported(self) -> StreamOptions:
        refuse_unsupported(self.model_extra or {}, {"include_obfuscation": (False,)})
        return self


class GenerationFields(ProtocolModel):
    """The fields that both kinds of request have."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    model: str = Field(max_length=200)
    temperature: float = Field(0.7, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    top_k: int = Field(0, ge=0, lt=2**31)
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    best_of: int = Field(1, ge=1, le=MAX_CHOICES)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: Annotated[str, StringConstraints(max_length=MAX_STOP_CHARS)] | Annotated[list[Stop], Field(max_length=MAX_STOPS)] = ""
    presence_penalty: float = Field(0.0, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float = Field(0.0, ge=-2, le=2, allow_inf_nan=False)
    logit_bias: dict[str, Bias] = Field(default={}, max_length=MAX_LOGIT_BIASES)
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _supported(self) -> GenerationFields:
        refuse_unsupported(self.model_extra or {}, self.neutral)
        if "best_of" in self.model_fields_set and self.best_of != self.n:
            raise wrong("best_of", "best_of: all answers are returned, so that it must equal n: send n alone")
        if self.include_usage and not self.stream:
            raise wrong("stream_options", "stream_options: include_usage is for a stream; a whole answer always has its usage")
        if odd := [token for token in self.logit_bias if not (token.isascii() and token.isdecimal() and len(token) < 10)]:
            raise wrong("logit_bias", f"logit_bias: {odd[0][:MAX_NAME_CHARS]!r} is no token id: its keys are ids as text")
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        return tuple(filter(None, [self.stop] if isinstance(self.stop, str) else self.stop))

    @property
    def adjustments(self) -> LogitAdjustments:
        return LogitAdjustments(
            self.presence_penalty, self.frequency_penalty, {int(token): bias for token, bias in self.logit_bias.items()}
        )

    def _sampling(self, max_new_tokens: int) -> Sampling:
        return Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, max_new_tokens=max_new_tokens)


class ChatRequest(GenerationFields):
    """Asks for answers to a conversation."""

    neutral = NEUTRAL

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int = Field(256, ge=1, le=MAX_ANSWER_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_ANSWER_TOKENS)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MAX_TOP_LOGPROBS)

    @model_validator(mode="after")
    def _consistent(self) -> ChatRequest:
        both = self.model_fields_set >= {"max_tokens", "max_completion_tokens"}
        if both and self.max_completion_tokens not in (None, self.max_tokens):
            raise wrong("max_tokens", "max_tokens and max_completion_tokens differ: send one of them")
        if self.top_logprobs and not self.logprobs:
            raise wrong("top_logprobs", "top_logprobs: it needs logprobs: true")
        if (length := sum(message.characters for message in self.messages)) > MAX_CONVERSATION_CHARS:
            raise wrong(
                "messages", f"messages: {length:,} characters, of which {MAX_CONVERSATION_CHARS:,} can be read: leave out earlier turns"
            )
        return self

    @property
    def sampling(self) -> Sampling:
        return self._sampling(self.max_completion_tokens or self.max_tokens)

    @property
    def token_logprobs(self) -> int | None:
        """How many of the likeliest tokens are returned with each token's log-probability; None for none."""
        return self.top_logprobs if self.logprobs else None


class CompletionRequest(GenerationFields):
    """Asks for continuations of one or several texts, or lists of token ids. The model's chat template is not used."""

    neutral = NEUTRAL_COMPLETION

    prompt: (
        Text
        | TokenIds
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_CHOICES)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_CHOICES)]
    )
    max_tokens: int = Field(16, ge=1, le=MAX_ANSWER_TOKENS)
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    stop_token_ids: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(default=[], max_length=MAX_STOP_TOKENS)
    return_token_ids: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> CompletionRequest:
        if (choices := self.n * len(self.prompts)) > MAX_CHOICES:
            raise wrong(
                "prompt", f"prompt: {choices} answers, of which {MAX_CHOICES} can be asked for at once: send fewer prompts, or a lower n"
            )
        if (length := sum(map(len, self.prompts))) > MAX_CONVERSATION_CHARS:
            raise wrong(
                "prompt", f"prompt: {length:,} characters or tokens, of which {MAX_CONVERSATION_CHARS:,} can be read: send fewer prompts"
            )
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        # A list of numbers is one prompt.
        one = [token for token in self.prompt if isinstance(token, int)]
        texts = [text for text in self.prompt if isinstance(text, str)]
        return [one] if one else texts or [ids for ids in self.prompt if isinstance(ids, list)]

    @property
    def sampling(self) -> Sampling:
        return self._sampling(self.max_tokens)

    @property
    def token_logprobs(self) -> int | None:
        return self.logprobs


WHY = {
    "tools": "tools are not called here",
    "functions": "tools are not called here",
    "tool_choice": "tools are not called here",
    "response_format": "answers are not held to a schema",
    "modalities": "answers are text",
    "audio": "answers are text",
    "echo": "the prompt is not repeated",
    "suffix": "nothing is filled in before a text",
}
"""Why a field is not supported, where its name does not say it."""


def refuse_unsupported(fields: Mapping[str, Any], neutral: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises an error with the names of the fields that ask for what the server does not do."""
    refused = [name for name, value in fields.items() if not (name in LABELS or value is None or _equals_one(value, neutral.get(name, ())))]
    if not refused:
        return
    named = ", ".join(repr(name[:MAX_NAME_CHARS]) for name in refused[:MAX_NAMED])
    more = f" and {len(refused) - MAX_NAMED:,} more" if len(refused) > MAX_NAMED else ""
    changed = [f"{name} is supported as {' or '.join(map(repr, neutral[name]))} alone" for name in refused if name in neutral]
    why = dict.fromkeys(WHY[name] for name in refused if name in WHY)
    message = "; ".join([f"not supported by this server: {named}{more}", *changed[:MAX_NAMED], *why])
    raise wrong(refused[0][:MAX_NAME_CHARS], message, "unsupported_value" if refused[0] in neutral else "unsupported_parameter")


def _equals_one(value: Any, accepted: tuple[Any, ...]) -> bool:
    # True == 1 in Python, and a protocol's true is not its 1.
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in accepted)
