"""What a request may ask of the policy server; whatever else it asks is refused by name."""

import pytest
from pydantic import ValidationError

from rlhf.generation.protocol.requests import ChatRequest, CompletionRequest
from rlhf.generation.request import LogitAdjustments
from storage.core.records import Sampling

HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
TEXT = {"model": "tiny", "prompt": "Once"}


def test_what_it_says_is_how_is_sampled():
    asked = ChatRequest(**HELLO, temperature=0.5, top_p=0.9, top_k=4, max_tokens=7)
    assert asked.sampling == Sampling(temperature=0.5, top_p=0.9, top_k=4, max_new_tokens=7)
    assert ChatRequest(**HELLO, max_completion_tokens=9).sampling.max_new_tokens == 9
    assert CompletionRequest(**TEXT, temperature=0).sampling == Sampling(temperature=0.0, max_new_tokens=16)


def test_penalties_and_biases_become_adjustments():
    asked = ChatRequest(**HELLO, presence_penalty=0.5, frequency_penalty=-2, logit_bias={"7": -100, "9": 1.5})
    assert asked.adjustments == LogitAdjustments(0.5, -2.0, {7: -100.0, 9: 1.5})
    assert not ChatRequest(**HELLO).adjustments


@pytest.mark.parametrize("stop, texts", [(None, ()), ("", ()), ("a", ("a",)), (["a", "\n\n"], ("a", "\n\n")), ([], ())])
def test_texts_that_end_an_answer(stop, texts):
    assert ChatRequest(**HELLO, stop=stop).stops == CompletionRequest(**TEXT, stop=stop).stops == texts


def test_null_means_the_default():
    nothing = dict.fromkeys(
        ["temperature", "top_p", "top_k", "n", "seed", "stop", "logprobs", "top_logprobs", "logit_bias", "stream", "stream_options", "user",
         "max_tokens", "max_completion_tokens", "presence_penalty", "frequency_penalty", "tools", "response_format", "audio"]
    )  # fmt: skip
    assert ChatRequest(**HELLO, **nothing).model_dump(exclude=set(nothing)) == ChatRequest(**HELLO).model_dump(exclude=set(nothing))
    assert ChatRequest(**HELLO, **nothing).sampling == ChatRequest(**HELLO).sampling
    with pytest.raises(ValidationError, match="model"):
        ChatRequest(**HELLO | {"model": None})


@pytest.mark.parametrize(
    "more",
    [{"n": 1}, {"best_of": 1}, {"n": 3, "best_of": 3}, {"stop": None}, {"user": "x"}, {"tools": []}, {"presence_penalty": 0.0},
     {"max_tokens": 9}, {"response_format": {"type": "text"}}, {"tool_choice": "none"}, {"stream_options": {"include_usage": False}},
     {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}}, {"logprobs": True, "top_logprobs": 20}],
)  # fmt: skip
def test_fields_that_ask_for_what_is_done_are_accepted(more):
    assert ChatRequest(**HELLO, max_completion_tokens=9, **more).sampling.max_new_tokens == 9


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"n": 17}, "n\n  Input should be less than or equal to 16"),
        ({"n": True}, "n\n  Input should be a valid integer"),
        ({"n": 2, "best_of": 3}, "best_of: all answers are returned, so that it must equal n"),
        ({"repetition_penalty": 1.1}, "not supported by this server: 'repetition_penalty'; repetition_penalty is supported as 1 alone"),
        ({"audio": {}, "x" * 99: 1}, "not supported by this server: 'audio', 'x{60}'; answers are text"),
        ({"tools": [{"type": "function"}]}, "not supported by this server: 'tools'; .*; tools are not called here"),
        ({"response_format": {"type": "json_object"}}, "'response_format'; .*; answers are not held to a schema"),
        ({f"f{i}": 1 for i in range(10)}, "'f7' and 2 more"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens and max_completion_tokens differ: send one of them"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_logprobs": 2}, "top_logprobs: it needs logprobs: true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"a": 1}}, "logit_bias: 'a' is no token id"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"logit_bias": {"1": float("nan")}}, "logit_bias.1"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ["a", ""]}, "stop"),
        ({"presence_penalty": float("inf")}, "presence_penalty"),
        ({"stream_options": {"include_usage": True}}, "stream_options: include_usage is for a stream"),
        ({"stream": True, "stream_options": {"more": 1}}, "not supported by this server: 'more'"),
        ({"messages": [{"role": "user", "content": "Hi", "name": "Ann"}]}, "not supported by this server: 'name'"),
        ({"messages": [{"role": "user", "content": "x" * 15_000}] * 3}, "45,000 characters, of which 40,000 can be read"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
         "a part of type 'image_url' is not supported by this server: send text alone"),
        ({"messages": [{"role": "user"}]}, "a message needs it, unless it has tool_calls"),
        ({"messages": [{"role": "user", "content": "", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}]},
         "'tool_calls' of another role than assistant"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "["}}]}]}, "a JSON object"),
    ],
)  # fmt: skip
def test_whatever_else_is_refused_by_name(more, said):
    with pytest.raises(ValidationError, match=said):
        ChatRequest(**HELLO | more)


def test_parts_of_a_message_are_joined_by_line_breaks():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert ChatRequest(**HELLO | {"messages": [{"role": "developer", "content": parts}]}).messages[0].text == "one\ntwo"


@pytest.mark.parametrize(
    "prompt, prompts", [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]]), ("", [""])]
)
def test_a_text_or_several_or_their_token_ids(prompt, prompts):
    assert CompletionRequest(model="tiny", prompt=prompt).prompts == prompts


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["a"] * 9, "n": 2}, "prompt: 18 answers, of which 16 can be asked for at once"),
        ({"echo": True}, "not supported by this server: 'echo'; .*; the prompt is not repeated"),
        ({"suffix": "x"}, "'suffix'"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": []}, "not supported by this server: 'messages'"),
    ],
)
def test_what_no_continuation_can_be_asked_for(more, said):
    with pytest.raises(ValidationError, match=said):
        CompletionRequest(**TEXT | more)
