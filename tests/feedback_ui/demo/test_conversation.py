"""Conversations of the Demo page: turns, blind draws, what each version is sent, and links."""

import base64
import json
import random

import pytest

from feedback_ui.demo.conversation import LETTERS, Answer, Conversation, Refusal, from_link, to_link
from rlhf.serving.limits import MAX_DEMO_CHARS, MAX_DEMO_LINK_CHARS, MAX_DEMO_TURNS, MAX_DEMO_VERSIONS
from storage.core.records import Sampling

SAMPLING = Sampling(0.7, 0.9, 5, 96)


def asked(conversation=None, prompt="Hi", versions=("base", "t1"), blind=False, seed=3, rng=None):
    return (conversation or Conversation()).asked(versions, blind, prompt, SAMPLING, seed, rng)


def answered(conversation, *texts, finish_reason="stop"):
    number = len(conversation.turns) - 1
    turn = conversation.turns[number]
    for place, text in enumerate(texts):
        turn = turn.with_answer(place, Answer(text, finish_reason))
    return conversation.with_turn(number, turn)


def refused(key, call, *arguments, **options):
    with pytest.raises(Refusal) as caught:
        call(*arguments, **options)
    assert caught.value.key == f"demo.{key}"
    return caught.value.values


def test_each_version_goes_on_from_its_own_answers():
    conversation = asked(answered(asked(), "I am base", "I am t1"), "Why?")
    assert [m["content"] for m in conversation.messages(1, 0)] == ["Hi", "I am base", "Why?"]
    assert [m["content"] for m in conversation.messages(1, 1)] == ["Hi", "I am t1", "Why?"]
    assert [m["role"] for m in conversation.messages(1, 1)] == ["user", "assistant", "user"]


def test_the_versions_are_those_of_the_first_turn():
    conversation = asked(answered(asked(), "a", "b"), "Why?", versions=("other",), blind=True)
    assert conversation.versions == ("base", "t1") and not conversation.blind


def test_a_blind_turn_draws_two_versions_and_their_order():
    drawn = {asked(versions=("x", "y", "z"), blind=True, rng=random.Random(seed)).turns[0].order for seed in range(60)}
    assert drawn == {(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)}


def test_after_a_vote_all_go_on_from_the_better_answer():
    conversation = answered(asked(versions=("x", "y", "z"), blind=True, rng=random.Random(1)), "first", "second")
    assert conversation.hidden and conversation.votable
    refused("vote_first", asked, conversation, "Why?")
    after = asked(conversation.judged("b"), "Why?")
    assert [[m["content"] for m in after.messages(1, place)] for place in (0, 1)] == [["Hi", "second", "Why?"]] * 2
    assert after.hidden and not after.votable
    assert asked(conversation.judged("tie"), "Why?").messages(1, 0)[1]["content"] == "first"


@pytest.mark.parametrize("finish_reason, votable", [("stop", True), ("length", True), ("stopped", False), ("", False)])
def test_only_complete_answers_are_voted_on(finish_reason, votable):
    conversation = answered(asked(blind=True), "a", "b", finish_reason=finish_reason)
    assert conversation.votable == votable and conversation.hidden


def test_stopping_keeps_what_has_come():
    turn = asked().turns[0].with_answer(0, Answer("Half a")).with_answer(1, Answer())
    stopped = Conversation(("base", "t1"), False, (turn,)).stopped().turns[0]
    assert [a.finish_reason for a in stopped.answers] == ["stopped", ""] and stopped.pending == [1]
    broken = turn.with_answer(0, Answer("Half a", problem="It broke off."))
    assert Conversation(("base", "t1"), False, (broken,)).stopped().turns[0].pending == [0, 1]


def test_a_retry_has_the_next_seed_and_no_answers():
    again = answered(asked(seed=3), "a", "b").retried().turns[0]
    assert (again.seed, again.answers, again.order) == (4, (), (0, 1))
    refused("nothing_to_retry", Conversation().retried)
    conversation = answered(asked(blind=True), "a", "b").judged("a")
    assert conversation.retried().hidden, "a blind turn is drawn again"


def test_an_empty_prompt_is_refused_unless_answers_are_missing():
    for prompt in ("", " \n"):
        refused("empty_prompt", asked, prompt=prompt)
        refused("empty_prompt", asked, answered(asked(), "a", "b"), prompt)
    pending = asked()
    assert asked(pending, "") is pending


def test_limits():
    assert refused("too_long", asked, prompt="x" * (MAX_DEMO_CHARS + 1)) == {"found": MAX_DEMO_CHARS + 1, "limit": MAX_DEMO_CHARS}
    refused("choose_versions", asked, versions=())
    refused("choose_two", asked, versions=("base", "base"), blind=True)
    refused("too_many_versions", asked, versions=[str(i) for i in range(MAX_DEMO_VERSIONS + 1)])
    conversation = Conversation()
    for _ in range(MAX_DEMO_TURNS):
        conversation = answered(asked(conversation), "a", "b")
    refused("too_many_turns", asked, conversation)
    long = Conversation()
    for _ in range(5):
        long = answered(asked(long, "x" * 5_000), "y" * 3_000, "y")
    assert refused("too_long_conversation", asked, long) == {"found": 5 * 8_000 + 2, "limit": 40_000}
    assert len(LETTERS) == MAX_DEMO_VERSIONS


def test_a_link_holds_everything_but_the_answers():
    conversation = asked(answered(asked(prompt="안녕? <b>", seed=2**31 - 1), "a", "b"), "Why?")
    again = from_link(to_link(conversation))
    assert again.versions == ("base", "t1") and not again.blind
    assert [(t.user, t.seed, t.sampling, t.order, t.answers) for t in again.turns] == [
        ("안녕? <b>", 2**31 - 1, SAMPLING, (0, 1), ()),
        ("Why?", 3, SAMPLING, (0, 1), ()),
    ]


def test_a_link_to_a_blind_conversation_waits_for_the_names():
    conversation = answered(asked(versions=("x", "y", "z"), blind=True, rng=random.Random(1)), "first", "second")
    refused("vote_first", to_link, conversation)
    (turn,) = from_link(to_link(conversation.judged("b"))).turns
    assert (turn.order, turn.continued) == (conversation.turns[0].order, 1)
    filled = answered(from_link(to_link(conversation.judged("b"))), "first", "second")
    assert asked(filled.retried()).turns[0].continued == 1, "all versions can go on after another try"


def test_a_conversation_that_is_too_long_has_no_link():
    values = refused("link_too_long", to_link, asked(prompt="가" * 4_000))
    assert values["found"] > MAX_DEMO_LINK_CHARS == values["limit"]
    refused("nothing_to_link", to_link, Conversation())


GOOD = {"m": ["base", "t1"], "turns": [{"u": "Hi", "s": 3, "t": 0.7, "p": 0.9, "k": 5, "n": 96, "o": [0, 1], "c": None}]}


def link_of(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def with_turn(**changes):
    return GOOD | {"turns": [GOOD["turns"][0] | changes]}


def test_the_example_is_a_link():
    assert to_link(from_link(link_of(GOOD))) == to_link(asked())


@pytest.mark.parametrize(
    "link",
    [
        "",
        "%",
        "x" * (MAX_DEMO_LINK_CHARS + 1),
        link_of([]),
        link_of({"m": ["base"]}),
        link_of(GOOD | {"m": []}),
        link_of(GOOD | {"m": ["base", "base"]}),
        link_of(GOOD | {"m": ["x" * 201, "t1"]}),
        link_of(GOOD | {"m": [1, 2]}),
        link_of(GOOD | {"m": [str(i) for i in range(5)]}),
        link_of(GOOD | {"turns": GOOD["turns"] * 17}),
        *(
            link_of(with_turn(**changes))
            for changes in (
                {"u": " "}, {"u": "x" * 8_001}, {"u": 1}, {"s": -1}, {"s": 2**31}, {"s": 0.5}, {"t": 2.1}, {"t": -0.1}, {"p": 0},
                {"p": 1.1},
                {"k": -1}, {"n": 0}, {"n": 1025}, {"o": []}, {"o": [0]}, {"o": [0, 0]}, {"o": [0, 2]}, {"o": [-1, 0]}, {"c": 2}, {"c": -1},
            )
        ),
        base64.urlsafe_b64encode(b'{"m": ["base"], "turns": ' + b"[" * 5_000).decode().rstrip("="),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)  # fmt: skip
def test_any_other_link_is_refused(link):
    refused("bad_link", from_link, link)
