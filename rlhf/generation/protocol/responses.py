"""Responses of OpenAI's protocol, as objects for JSON: whole answers and chunks of a stream, for chats and for completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rlhf.generation.protocol.text_stream import token_bytes
from rlhf.generation.request import TokenOutput


@dataclass(frozen=True, slots=True)
class Delta:
    """A part of one of the answers of a request, and how it ends if it is the last one."""

    index: int
    text: str
    tokens: Sequence[TokenOutput]
    """Those whose text begins in this part, if log-probabilities or token ids are asked for."""
    finish_reason: str | None = None


@dataclass(slots=True)
class Usage:
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    def object(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        }


@runtime_checkable
class Format(Protocol):
    """One kind of response."""

    def whole(self, deltas: Sequence[Delta], usage: Usage) -> dict[str, Any]:
        """The response with all answers, from all of their parts."""

    def chunks(self, delta: Delta) -> list[dict[str, Any]]:
        """The events of a stream for one part."""

    def usage_chunk(self, usage: Usage) -> dict[str, Any]:
        """The last event of a stream, if usage is asked for."""


class _Format:
    prefix: str
    kind: str
    chunk_kind: str

    def __init__(self, model: str, tokenizer: Any, *, logprobs: bool, include_usage: bool = False):
        self.tokenizer, self.logprobs, self.include_usage = tokenizer, logprobs, include_usage
        self.head = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def usage_chunk(self, usage: Usage) -> dict[str, Any]:
        return self.head | {"object": self.chunk_kind, "choices": [], "usage": usage.object()}

    def whole(self, deltas: Sequence[Delta], usage: Usage) -> dict[str, Any]:
        choices = []
        for index in sorted({delta.index for delta in deltas}):
            mine = [delta for delta in deltas if delta.index == index]
            text, tokens = "".join(delta.text for delta in mine), [token for delta in mine for token in delta.tokens]
            choices.append(self._choice(Delta(index, text, tokens, mine[-1].finish_reason)))
        return self.head | {"object": self.kind, "choices": choices, "usage": usage.object()}

    def _choice(self, delta: Delta) -> dict[str, Any]:
        raise NotImplementedError

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        # Where usage is asked for, every chunk has the field.
        return self.head | {"object": self.chunk_kind, "choices": [choice]} | ({"usage": None} if self.include_usage else {})

    def _token(self, token: int) -> tuple[str, bytes]:
        found = token_bytes(self.tokenizer, token)
        return found.decode(errors="replace"), found


class ChatFormat(_Format):
    """Chats."""

    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, model: str, tokenizer: Any, *, logprobs: bool, include_usage: bool = False):
        super().__init__(model, tokenizer, logprobs=logprobs, include_usage=include_usage)
        self._begun: set[int] = set()

    def _choice(self, delta: Delta) -> dict[str, Any]:
        message = {"role": "assistant", "content": delta.text, "refusal": None}
        return {"index": delta.index, "message": message, "logprobs": self._logprobs(delta), "finish_reason": delta.finish_reason}

    def chunks(self, delta: Delta) -> list[dict[str, Any]]:
        found = []
        if delta.index not in self._begun:
            self._begun.add(delta.index)
            found.append(self._piece(delta.index, {"role": "assistant", "content": "", "refusal": None}))
        if delta.text or delta.tokens:
            found.append(self._piece(delta.index, {"content": delta.text}, self._logprobs(delta)))
        if delta.finish_reason is not None:
            found.append(self._piece(delta.index, {}, None, delta.finish_reason))
        return found

    def _piece(self, index: int, delta: dict[str, Any], logprobs: Any = None, finish_reason: str | None = None) -> dict[str, Any]:
        return self._chunk({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason})

    def _logprobs(self, delta: Delta) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        content = [
            self._entry(token.id, token.logprob) | {"top_logprobs": [self._entry(*one) for one in token.top_logprobs]}
            for token in delta.tokens
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        text, found = self._token(token)
        return {"token": text, "logprob": _finite(logprob), "bytes": [*found]}


class CompletionFormat(_Format):
    """Continuations of texts."""

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, tokenizer: Any, *, logprobs: bool, include_usage: bool = False, return_token_ids: bool = False):
        super().__init__(model, tokenizer, logprobs=logprobs, include_usage=include_usage)
        self.return_token_ids = return_token_ids
        # Characters of each answer that the chunks so far have.
        self._offsets: dict[int, int] = {}

    def _choice(self, delta: Delta) -> dict[str, Any]:
        choice = {"index": delta.index, "text": delta.text, "logprobs": self._logprobs(delta), "finish_reason": delta.finish_reason}
        return choice | ({"token_ids": [token.id for token in delta.tokens]} if self.return_token_ids else {})

    def chunks(self, delta: Delta) -> list[dict[str, Any]]:
        return [self._chunk(self._choice(delta))]

    def _logprobs(self, delta: Delta) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        offset = self._offsets.get(delta.index, 0)
        self._offsets[delta.index] = offset + len(delta.text)
        texts = [self._token(token.id)[0] for token in delta.tokens]
        offsets = [offset + sum(map(len, texts[:i])) for i in range(len(texts))]
        return {
            "tokens": texts,
            "token_logprobs": [_finite(token.logprob) for token in delta.tokens],
            "top_logprobs": [{self._token(one)[0]: _finite(logprob) for one, logprob in token.top_logprobs} for token in delta.tokens],
            "text_offset": offsets,
        }


MIN_LOGPROB = -9999.0
"""What stands for a log-probability of minus infinity, as elsewhere in the protocol: JSON has no infinity."""


def _finite(logprob: float | None) -> float:
    return MIN_LOGPROB if logprob is None else max(logprob, MIN_LOGPROB)
