"""The objects of responses, beyond what the tests over HTTP see."""

from tiny import tokenizer

from rlhf.generation.protocol.responses import ChatFormat, CompletionFormat, Delta, Usage
from rlhf.generation.request import TokenOutput

TINY = tokenizer()
A, B = TINY.encode("ab")
TOKENS = [TokenOutput(A, None, -0.5, ((A, -0.5), (B, float("-inf")))), TokenOutput(B, "length", -1.5, ((B, -1.5), (A, -2.0)))]


def test_usage_adds_up():
    assert Usage(5, 7, 2).object() == {
        "prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12, "completion_tokens_details": {"reasoning_tokens": 2},
    }  # fmt: skip


def test_a_log_probability_of_nothing_is_a_number():
    form = ChatFormat("m", TINY, logprobs=True)
    whole = form.whole([Delta(0, "ab", TOKENS), Delta(0, "", [], "length")], Usage(1, 2))
    first, second = whole["choices"][0]["logprobs"]["content"]
    assert first == {
        "token": "a", "logprob": -0.5, "bytes": [97],
        "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97]}, {"token": "b", "logprob": -9999.0, "bytes": [98]}],
    }  # fmt: skip
    assert second["logprob"] == -1.5 and whole["choices"][0]["finish_reason"] == "length"


def test_the_older_form_says_where_each_token_begins():
    form = CompletionFormat("m", TINY, logprobs=True)
    parts = [Delta(0, "a", TOKENS[:1]), Delta(0, "b", TOKENS[1:]), Delta(0, "", [], "length")]
    chunks = [chunk["choices"][0]["logprobs"] for part in parts for chunk in form.chunks(part)]
    assert [chunk["text_offset"] for chunk in chunks] == [[0], [1], []]
    whole = CompletionFormat("m", TINY, logprobs=True).whole(parts, Usage(1, 2))["choices"][0]["logprobs"]
    assert whole == {
        "tokens": ["a", "b"], "token_logprobs": [-0.5, -1.5], "text_offset": [0, 1],
        "top_logprobs": [{"a": -0.5, "b": -9999.0}, {"b": -1.5, "a": -2.0}],
    }  # fmt: skip


def test_a_part_that_begins_and_ends_an_answer_is_three_events():
    chunks = ChatFormat("m", TINY, logprobs=False).chunks(Delta(2, "ab", [], "stop"))
    assert [(chunk["choices"][0]["delta"], chunk["choices"][0]["finish_reason"]) for chunk in chunks] == [
        ({"role": "assistant", "content": "", "refusal": None}, None), ({"content": "ab"}, None), ({}, "stop"),
    ]  # fmt: skip
