"""How messages become a conversation, by what the model's chat template can show."""

import pytest
import tiny

from rlhf.generation.protocol.conversations import completion_prompts, conversation
from rlhf.generation.protocol.errors import ApiError
from rlhf.generation.protocol.requests import ChatMessage
from rlhf.models.backbone import Backbone
from rlhf.models.chat_template import ChatTemplateError

NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + tiny.TEMPLATE
ONLY_TWO = "{% for m in messages if m.role in ('system', 'user', 'assistant') %}{{ m.content }}{% endfor %}"
CALLS = tiny.TEMPLATE + (
    "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments.a }}{% endfor %}{% endfor %}"
)


def backbone(template):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    return Backbone(tiny.model(len(tokenizer)), tokenizer)


def said(role, content="x", **more):
    return ChatMessage(role=role, content=content, **more)


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 7}'}}


def test_a_developer_is_the_system():
    assert conversation(backbone(tiny.TEMPLATE), [said("developer", "a"), said("user", "b")]) == [
        {"role": "system", "content": "a"},
        {"role": "user", "content": "b"},
    ]


def test_without_a_system_role_the_first_system_messages_are_joined_before_a_user():
    made = backbone(NO_SYSTEM)
    turns = conversation(made, [said("system", "a"), said("developer", "b"), said("user", "c"), said("assistant", "d"), said("user", "e")])
    assert [turn["content"] for turn in turns] == ["a\n\nb", "c", "d", "e"]
    assert made.tokenizer.decode(made.encode(turns)).startswith("<|user|>a\n\nb\n\nc<|end|>")


@pytest.mark.parametrize(
    "roles, why",
    [
        (["user", "assistant", "system", "user"], "at the beginning alone"),
        (["system"], "a user's message must follow"),
        (["system", "assistant", "user"], "a user's message must follow"),
    ],
)
def test_what_a_template_without_a_system_role_cannot_show_is_refused(roles, why):
    with pytest.raises(ApiError, match=f"messages: the chat template has no system role: .*{why}"):
        conversation(backbone(NO_SYSTEM), [said(role) for role in roles])
    assert len(conversation(backbone(tiny.TEMPLATE), [said(role) for role in roles])) == len(roles)


def test_a_result_of_a_tool_that_the_template_would_leave_out_is_refused():
    messages = [said("user"), said("tool", "4", tool_call_id="1")]
    with pytest.raises(ApiError, match="the chat template has no tool role: send a tool's result as a user's message"):
        conversation(backbone(ONLY_TWO), messages)
    assert conversation(backbone(tiny.TEMPLATE), messages)[1] == {"role": "tool", "content": "4", "tool_call_id": "1"}


def test_a_call_is_given_to_a_template_that_shows_it():
    messages = [said("user"), ChatMessage(role="assistant", content=None, tool_calls=[CALL])]
    with pytest.raises(ApiError, match="the chat template does not show tool_calls"):
        conversation(backbone(tiny.TEMPLATE), messages)
    made = backbone(CALLS)
    assert "f7" in made.tokenizer.decode(made.encode(conversation(made, messages)))


def test_a_model_without_a_template_takes_no_conversation_but_continues_a_text():
    made = backbone(None)
    with pytest.raises(ApiError, match="no chat template, so that it takes no conversations: send a text to /v1/completions") as caught:
        conversation(made, [said("user")])
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "messages", "no_chat_template")
    with pytest.raises(ChatTemplateError, match="no chat template"):
        made.encode([{"role": "user", "content": "x"}])
    assert completion_prompts(made, ["ab"], 10) == [made.tokenizer.encode("ab")]


def test_marks_in_a_text_to_be_continued_are_control_tokens():
    made = backbone(tiny.TEMPLATE)
    ((first, *_),) = completion_prompts(made, ["<|user|>Hi<|end|>"], 100)
    assert made.tokenizer.convert_ids_to_tokens(first) == "<|user|>"


@pytest.mark.parametrize(
    "prompt, said", [("", "no tokens"), ([10**6], "there is no token 1000000"), ("abc", "3 tokens, of which 2 can be read")]
)
def test_a_text_that_cannot_be_read(prompt, said):
    with pytest.raises(ApiError, match=said):
        completion_prompts(backbone(tiny.TEMPLATE), [prompt], 2)
