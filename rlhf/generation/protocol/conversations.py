"""How the messages of a request become the conversation that the chat template renders, and what is refused.

- `developer` is the newer name of `system`. Where the template has no system role, system messages at the beginning are joined by empty
  lines and put before the first user turn, unless the project says otherwise; one that comes later is refused.
- `tool` and an assistant's `tool_calls` are refused where the template does not show their text: nothing is left out in silence.
- A last message of the assistant is an earlier turn like others: the answer is a new turn.
- A model without a chat template takes no conversations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from rlhf.generation.protocol.errors import ApiError
from rlhf.generation.protocol.requests import ChatMessage
from rlhf.models.backbone import Backbone
from rlhf.models.chat_template import ChatTemplateError
from storage.core.records import Message

TOOL_TEXT, TOOL_NAME = "rankloop-tool-probe", "rankloop_call_probe"


def conversation(backbone: Backbone, messages: Sequence[ChatMessage]) -> list[Message]:
    """The conversation as `Backbone.encode` takes it.

    Raises:
        ApiError: the model's chat template cannot show it.
    """
    if backbone.tokenizer.chat_template is None:
        raise _refused(
            "this model has no chat template, so that it takes no conversations: send a text to /v1/completions", "no_chat_template"
        )
    if any(message.role == "tool" for message in messages) and not _shows(backbone, TOOL_TEXT):
        raise _refused("the chat template has no tool role: send a tool's result as a user's message")
    if any(message.tool_calls for message in messages) and not _shows(backbone, TOOL_NAME):
        raise _refused("the chat template does not show tool_calls: leave them out, or write them into the content")
    turns = [_turn(message) for message in messages]
    return turns if backbone.has_system_role else _one_system(turns)


def _turn(message: ChatMessage) -> Message:
    turn: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role, "content": message.text}
    if message.tool_calls:
        turn["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    # Templates take more keys than those that are stored.
    return cast(Message, turn)


def _one_system(turns: list[Message]) -> list[Message]:
    """The conversation with one system message at most, before a user's turn, for a template without a system role."""
    first = next((i for i, turn in enumerate(turns) if turn["role"] != "system"), len(turns))
    if any(turn["role"] == "system" for turn in turns[first:]):
        raise _refused("the chat template has no system role: a system message can stand at the beginning alone")
    if not first:
        return turns
    if first == len(turns) or turns[first]["role"] != "user":
        raise _refused("the chat template has no system role: a user's message must follow the system message")
    return [{"role": "system", "content": "\n\n".join(turn["content"] for turn in turns[:first])}, *turns[first:]]


def _shows(backbone: Backbone, probe: str) -> bool:
    """Whether the chat template renders a tool's result (`TOOL_TEXT`) or the call of a tool (`TOOL_NAME`)."""
    call = {"id": "probe0000", "type": "function", "function": {"name": TOOL_NAME, "arguments": {}}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": TOOL_TEXT, "tool_call_id": call["id"]},
    ]
    try:
        return probe in backbone.tokenizer.apply_chat_template(messages, tokenize=False)
    except ChatTemplateError:
        return False


def completion_prompts(backbone: Backbone, prompts: Sequence[str] | Sequence[Sequence[int]], longest: int) -> list[list[int]]:
    """The token ids of texts as the model reads them without a chat template, or of lists of ids. Marks in a text are control tokens.

    Raises:
        ApiError: a prompt has no tokens, too many, or ids that the model does not have.
    """
    return [_prompt_ids(backbone, prompt, longest) for prompt in prompts]


def _prompt_ids(backbone: Backbone, prompt: str | Sequence[int], longest: int) -> list[int]:
    ids: list[int] = backbone.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    if not ids:
        raise ApiError(
            400, "prompt: it has no tokens, and this model has no token for the beginning of a text: write a word", param="prompt"
        )
    if (largest := max(ids)) >= (count := vocabulary_size(backbone)):
        raise ApiError(400, f"prompt: there is no token {largest}: the model has {count:,}, from 0", param="prompt")
    if len(ids) > longest:
        message = f"prompt: it has {len(ids):,} tokens, of which {longest:,} can be read: shorten it"
        raise ApiError(400, message, param="prompt", code="context_length_exceeded")
    return ids


def vocabulary_size(backbone: Backbone) -> int:
    """How many tokens the tokenizer knows; a model's embedding may have more rows, which stand for nothing."""
    return len(backbone.tokenizer)


def _refused(message: str, code: str | None = None) -> ApiError:
    return ApiError(400, f"messages: {message}", param="messages", code=code)
