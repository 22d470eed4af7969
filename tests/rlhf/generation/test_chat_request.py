"""What a chat request may ask of the policy server; whatever else it asks is refused by name."""

import pytest
from pydantic import ValidationError

from rlhf.generation.chat_request import ChatRequest
from storage.core.records import Sampling

HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}


def test_what_it_says_is_how_is_sampled():
    asked = ChatRequest(**HELLO, temperature=0.5, top_p=0.9, top_k=4, max_tokens=7)
    assert asked.sampling == Sampling(temperature=0.5, top_p=0.9, top_k=4, max_new_tokens=7)
    assert ChatRequest(**HELLO, max_completion_tokens=9).sampling.max_new_tokens == 9


@pytest.mark.parametrize("more", [{"n": 1}, {"stop": None}, {"user": "x"}, {"tools": []}, {"presence_penalty": 0.0}, {"max_tokens": 9}])
def test_fields_that_ask_for_what_is_done_anyway_are_accepted(more):
    assert ChatRequest(**HELLO, max_completion_tokens=9, **more).sampling.max_new_tokens == 9


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"n": 2}, "not supported by this server: 'n'; n is supported as 1 alone"),
        ({"n": True}, "not supported by this server: 'n'"),
        ({"audio": {}, "x" * 99: 1}, "not supported by this server: 'audio', 'x{60}'"),
        ({f"f{i}": 1 for i in range(10)}, "'f7' and 2 more"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens and max_completion_tokens differ: send one of them"),
        ({"temperature": 2.1}, "temperature"),
        ({"messages": [{"role": "user", "content": "Hi", "name": "Ann"}]}, "not supported by this server: 'name'"),
        ({"messages": [{"role": "user", "content": "x" * 15_000}] * 3}, "45,000 characters, of which 40,000 can be read"),
    ],
)
def test_whatever_else_is_refused_by_name(more, said):
    with pytest.raises(ValidationError, match=said):
        ChatRequest(**HELLO | more)
