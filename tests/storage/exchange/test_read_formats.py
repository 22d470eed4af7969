"""The meaning of each format's rows: small rows, with tiers worked out by hand."""

import copy
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.exchange import arena, argilla, choice_labels, helpsteer3, hh_rlhf, labelstudio, oasst, plain, rows, trl, ultrafeedback
from storage.exchange.rows import BadRow, Left, NewComparison, Vote
from storage.exchange.tracking import Tracked


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def only(read, record):
    before = copy.deepcopy(record)
    (item,) = [item for item in read(record) if not isinstance(item, Left)]
    rows.check(item)
    assert record == before
    return item


def refused(read, record, reason):
    with pytest.raises(BadRow, match=reason):
        for item in read(record):
            if not isinstance(item, Left):
                rows.check(item)


def what(item: NewComparison):
    return list(item.messages), item.completions, [vote.tiers for vote in item.votes]


SKY = ([user("Why?")], ("Scattering.", "Magic."), [((0,), (1,))])


# TRL


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Why?", "chosen": "Scattering.", "rejected": "Magic."},
        {"prompt": [user("Why?")], "chosen": [assistant("Scattering.")], "rejected": [assistant("Magic.")]},
        {"chosen": [user("Why?"), assistant("Scattering.")], "rejected": [user("Why?"), assistant("Magic.")]},
        {"prompt": "Why?", "chosen": [user("Why?"), assistant("Scattering.")], "rejected": [user("Why?"), assistant("Magic.")]},
        {"chosen": "\n\nHuman: Why?\n\nAssistant: Scattering.", "rejected": "\n\nHuman: Why?\n\nAssistant: Magic."},
        {
            "prompt": "\n\nHuman: Why?\n\nAssistant:",
            "chosen": "\n\nHuman: Why?\n\nAssistant: Scattering.",
            "rejected": "\n\nHuman: Why?\n\nAssistant: Magic.",
        },
        {"prompt": "Why?", "chosen": "Human: Why?\n\nAssistant: Scattering.", "rejected": "Human: Why?\n\nAssistant: Magic."},
        {"prompt": "Why?", "chosen": ["Scattering."], "rejected": ["Magic."]},
        {
            "prompt": "Why?",
            "chosen": [{"from": "gpt", "value": "Scattering.", "role": None, "content": None}],
            "rejected": [assistant("Magic.") | {"value": None, "from": None}],
        },
    ],
    ids=[
        "explicit text",
        "explicit messages",
        "implicit messages",
        "prompt repeated",
        "dialogue",
        "prompt before a whole dialogue",
        "prompt before a stripped dialogue",
        "lists of one",
        "null beside each message",
    ],
)
def test_trl_in_each_of_its_forms(record):
    assert what(only(trl.read, record)) == SKY


@pytest.mark.parametrize(
    "beside, prompt",
    [
        ({"question": "Why?"}, [user("Why?")]),
        ({"instruction": "Say why.", "input": "The sky is blue."}, [user("Say why.\nThe sky is blue.")]),
        ({"instruction": "Say why.", "input": ""}, [user("Say why.")]),
        ({"input": "Why?"}, [user("Why?")]),
        ({"input": {"messages": [user("Why?")]}}, [user("Why?")]),
        ({"system": "Be brief.", "prompt": "Why?"}, [{"role": "system", "content": "Be brief."}, user("Why?")]),
        ({"system": " ", "prompt": "Why?"}, [user("Why?")]),
        ({"history": [["Hi", "Hello"]], "query": "Why?"}, [user("Hi"), assistant("Hello"), user("Why?")]),
        ({"conversations": [{"from": "human", "value": "Why?"}]}, [user("Why?")]),
        ({"messages": [{"role": "developer", "content": "Hm."}, user("Why?")]}, [{"role": "system", "content": "Hm."}, user("Why?")]),
        ({"prompt": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:"}, [user("Hi"), assistant("Hello"), user("Why?")]),
    ],
)  # fmt: skip
def test_trl_reads_the_prompt_from_where_it_stands(beside, prompt):
    item = only(trl.read, beside | {"chosen": "The sky scatters.", "rejected": "The sky is magic."})
    assert what(item) == (prompt, ("The sky scatters.", "The sky is magic."), [((0,), (1,))])


def test_trl_answers_as_single_messages():
    chosen, rejected = {"from": "gpt", "value": "Scattering."}, {"from": "gpt", "value": "Magic."}
    assert what(only(trl.read, {"conversations": [{"from": "human", "value": "Why?"}], "chosen": chosen, "rejected": rejected})) == SKY


@pytest.mark.parametrize(
    "record, reason",
    [
        ({"chosen": "The capital is Riga.", "rejected": "The capital is Vilnius."}, "no prompt: needs one of prompt"),
        ({"chosen": "Why? Scattering.", "rejected": "Why? Magic."}, "no prompt"),
        ({"question": "Why?", "context": "The sky.", "chosen": "a", "rejected": "b"}, "which field is the prompt, question or context"),
        ({"prompt": "Where?", "chosen": [user("Why?"), assistant("a")], "rejected": [user("Why?"), assistant("b")]}, "something else"),
    ],
)
def test_trl_guesses_no_prompt(record, reason):
    refused(trl.read, record, reason)


def test_calls_of_tools_are_marked_turns():
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Riga"}}}]}
    turns = [user("Rain?"), call, {"role": "tool", "name": "weather", "content": "dry"}]
    item = only(trl.read, {"prompt": turns, "chosen": [assistant("No.")], "rejected": [assistant("Yes.")]})
    assert item.messages[1:] == [assistant('[tool call] weather {"city":"Riga"}'), user("[tool result] weather: dry")]


def test_trl_keeps_what_rankloop_writes_beside_the_pair():
    record = {"prompt": "Why?", "chosen": "a", "rejected": "b", "annotator": "3f", "annotator_kind": "human", "kind": "science"}
    item = only(trl.read, record | {"split": "heldout"})
    assert (item.kind, item.split, item.votes[0].annotator, item.votes[0].rule) == ("science", "heldout", "3f", None)
    assert only(trl.read, record | {"annotator_kind": "simulated"}).votes[0].rule == "unknown"


@pytest.mark.parametrize(
    "record, reason",
    [
        ({"prompt": "Why?", "chosen": "a", "rejected": "a"}, "are the same"),
        ({"chosen": "yes", "rejected": "no"}, "no prompt"),
        ({"prompt": "Why?", "chosen": "a"}, "needs rejected"),
        ({"prompt": "Why?", "chosen": ["a", "c"], "rejected": ["b"]}, "chosen must be text or messages"),
        ({"prompt": "Who?", **{k: f"\n\nHuman: Why?\n\nAssistant: {k}" for k in ("chosen", "rejected")}}, "prompt says something else"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "a message is empty"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "no prompt"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt must be a list"),
        ({"chosen": [user("x"), assistant("a")], "rejected": [user("y"), assistant("a")]}, "share no prompt"),
        ({"prompt": "x", "chosen": [assistant([{"type": "image"}])], "rejected": [assistant("b")]}, "only text"),
        ({"prompt": "x", "chosen": "a\0", "rejected": "b"}, "NUL"),
        ({"prompt": "x", "chosen": "\ud83d", "rejected": "b"}, "surrogate"),
        ({}, "needs chosen"),
    ],
)
def test_invalid_trl_rows(record, reason):
    refused(trl.read, record, reason)


# HH-RLHF


def dialogue(*turns):
    return "".join(f"\n\n{'Human' if place % 2 == 0 else 'Assistant'}: {turn}" for place, turn in enumerate(turns))


def test_hh_rlhf_takes_the_common_turns_as_the_prompt():
    before = ("Hi", "Hello", "Why?")
    item = only(hh_rlhf.read, {"chosen": dialogue(*before, "Scattering."), "rejected": dialogue(*before, "Magic.")})
    assert what(item) == ([user("Hi"), assistant("Hello"), user("Why?")], ("Scattering.", "Magic."), [((0,), (1,))])


def test_hh_rlhf_dialogues_that_part_early_keep_their_further_turns():
    item = only(hh_rlhf.read, {"chosen": dialogue("Hi", "Hello", "Why?", "Scattering."), "rejected": dialogue("Hi", "Go away")})
    assert what(item)[:2] == ([user("Hi")], ("Hello\n\nHuman: Why?\n\nAssistant: Scattering.", "Go away"))


def test_hh_rlhf_dialogue_that_goes_on_where_the_other_ends():
    item = only(hh_rlhf.read, {"chosen": dialogue("Hi", "Hello"), "rejected": dialogue("Hi", "Hello", "Why?", "Magic.")})
    assert what(item)[:2] == ([user("Hi")], ("Hello", "Hello\n\nHuman: Why?\n\nAssistant: Magic."))


def test_hh_rlhf_dialogues_that_part_where_the_human_speaks_part_at_the_answer_before():
    item = only(hh_rlhf.read, {"chosen": dialogue("Hi", "Hello", "Why?", "a"), "rejected": dialogue("Hi", "Hello", "How?", "a")})
    assert what(item)[:2] == ([user("Hi")], ("Hello\n\nHuman: Why?\n\nAssistant: a", "Hello\n\nHuman: How?\n\nAssistant: a"))


def test_dialogues_that_differ_only_in_what_the_human_says_last_are_no_comparison():
    row = {"chosen": dialogue("Hi", "Hello", "Thanks"), "rejected": dialogue("Hi", "Hello", "Bye")}
    refused(hh_rlhf.read, row, "differ in what the user says")


def test_hh_rlhf_two_turns_of_the_assistant_in_a_row_and_an_empty_answer():
    item = only(hh_rlhf.read, {"chosen": dialogue("Hi") + "\n\nAssistant: One.\n\nAssistant: Two.", "rejected": dialogue("Hi", "")})
    assert item.completions == ("One.\n\nAssistant: Two.", "")


def test_hh_rlhf_text_before_the_first_turn_is_the_system_message():
    item = only(hh_rlhf.read, {"chosen": "Be kind." + dialogue("Hi", "a"), "rejected": "Be kind." + dialogue("Hi", "b")})
    assert item.messages == [{"role": "system", "content": "Be kind."}, user("Hi")]


@pytest.mark.parametrize(
    "chosen, rejected, reason",
    [
        (dialogue("Hi", "a"), dialogue("Hi", "a"), "are the same"),
        (dialogue("Hi", "a"), dialogue("Hello", "a"), "share no prompt"),
        ("Hi", "Hello", "must have turns"),
        (dialogue("Hi"), dialogue("Hi", "a"), "share no prompt"),
        (dialogue("Hi") + "\n\nHuman: more\n\nAssistant: a", dialogue("Hi", "a"), "begin with the assistant"),
        (3, dialogue("Hi", "a"), "chosen must be text"),
        (None, dialogue("Hi", "a"), "needs chosen"),
    ],
)
def test_hh_rlhf_rows_that_are_none(chosen, rejected, reason):
    refused(hh_rlhf.read, {"chosen": chosen, "rejected": rejected}, reason)


# Open-Assistant


def turn(text, role, *replies, **more):
    return {"text": text, "role": role, "replies": list(replies), **more}


def test_oasst_ranked_siblings_at_every_depth():
    tree = {
        "message_tree_id": "t",
        "prompt": turn(
            "Why?", "prompter",
            turn("Magic.", "assistant", rank=2, synthetic=True, model_name="m"),
            turn(
                "Scattering.", "assistant",
                turn(
                    "More?", "prompter",
                    turn("No.", "assistant", rank=1, synthetic=False),
                    turn("Sure.", "assistant", rank=0),
                    turn("Gone.", "assistant", rank=2, deleted=True),
                ),
                turn("And?", "prompter", turn("Alone.", "assistant", rank=0)),
                rank=0,
            ),
            turn("Light.", "assistant", rank=1),
            turn("Spam.", "assistant"),
        ),
    }  # fmt: skip
    first, second = [item for item in oasst.read(tree) if isinstance(item, NewComparison)]
    assert what(first) == ([user("Why?")], ("Magic.", "Scattering.", "Light."), [((1,), (2,), (0,))])
    assert first.models == ("m", None, None)
    assert what(second) == ([user("Why?"), assistant("Scattering."), user("More?")], ("No.", "Sure."), [((1,), (0,))])
    assert second.models == ("human", None)


def test_oasst_replies_that_are_not_compared_are_counted():
    replies = [turn(text, "assistant", **({"rank": rank} if rank is not None else {})) for text, rank in (("a", 0), ("b", 1), ("c", None))]
    assert [item for item in oasst.read({"prompt": turn("Why?", "prompter", *replies)}) if isinstance(item, Left)] == [
        Left("replies without a rank", 1)
    ]


def test_oasst_equal_ranks_are_tied():
    replies = [turn(text, "assistant", rank=rank) for text, rank in (("a", 0), ("b", 1), ("c", 0))]
    assert what(only(oasst.read, {"prompt": turn("Why?", "prompter", *replies)}))[2] == [((0, 2), (1,))]


@pytest.mark.parametrize(
    "record, reason",
    [
        ({}, "needs a prompt"),
        ({"prompt": turn("x", "bot")}, "role prompter or assistant"),
        ({"prompt": {"role": "prompter"}}, "must have a text"),
        ({"prompt": {"role": "prompter", "text": "x", "replies": "y"}}, "replies must be a list"),
        ({"prompt": turn("x", "prompter", *[turn(str(n), "assistant", rank=n) for n in range(10)])}, "10 completions"),
    ],
)
def test_invalid_oasst_trees(record, reason):
    refused(oasst.read, record, reason)


# UltraFeedback


def test_ultrafeedback_ranks_by_the_overall_score():
    record = {
        "source": "evol",
        "instruction": "Why?",
        "completions": [
            {"model": "m1", "response": "a", "overall_score": 7.5, "annotations": {"honesty": {"Rating": "4"}, "other": {"Rating": "N/A"}}},
            {"model": "m2", "response": "b", "overall_score": 8},
            {"model": "m3", "response": "c", "overall_score": 7.5},
            {"model": "m4", "response": "d"},
        ],
    }
    item = only(ultrafeedback.read, record)
    assert what(item) == ([user("Why?")], ("a", "b", "c", "d"), [((1,), (0, 2))])
    assert (item.models, item.kind, item.votes[0].aspects) == (("m1", "m2", "m3", "m4"), "evol", ((0, "honesty", 4),))


def test_ultrafeedback_without_overall_scores_ranks_by_the_mean_rating():
    answers = [
        {"response": "a", "annotations": {"x": {"Rating": "2"}, "y": {"Rating": "5"}}},
        {"response": "b", "annotations": {"x": [{"Rating": "4"}], "y": {"Rating": "4"}}},
    ]
    assert what(only(ultrafeedback.read, {"instruction": "Why?", "completions": answers}))[2] == [((1,), (0,))]


def test_ultrafeedback_without_scores_waits_for_people():
    item = only(ultrafeedback.read, {"instruction": "Why?", "completions": [{"response": "a"}, {"response": "b", "overall_score": 3}]})
    assert item.votes == ()


@pytest.mark.parametrize(
    "record, reason",
    [
        ({"instruction": "x"}, "needs completions"),
        ({"instruction": "x", "completions": []}, "0 completions"),
        ({"completions": [{"response": "a"}, {"response": "b"}]}, "needs instruction"),
        ({"instruction": "x", "completions": [{"response": "a"}, {}]}, "needs response"),
    ],
)
def test_ultrafeedback_rows_that_are_none(record, reason):
    refused(ultrafeedback.read, record, reason)


# HelpSteer3


def helpsteer(score, **more):
    return {"domain": "code", "context": [user("Why?")], "response1": "a", "response2": "b", "overall_preference": score, **more}


@pytest.mark.parametrize(
    "score, tiers, strength",
    [
        (-3, ((0,), (1,)), "significantly"),
        (-2, ((0,), (1,)), "better"),
        (-1, ((0,), (1,)), "slightly"),
        (0, ((0, 1),), None),
        (1, ((1,), (0,)), "slightly"),
        (3.0, ((1,), (0,)), "significantly"),
    ],
)
def test_helpsteer3_scores(score, tiers, strength):
    item = only(helpsteer3.read, helpsteer(score))
    assert what(item) == ([user("Why?")], ("a", "b"), [tiers])
    assert (item.votes[0].strength, item.kind) == (strength, "code")


def test_helpsteer3_annotators_have_a_vote_each_and_the_overall_score_none():
    item = only(
        helpsteer3.read,
        helpsteer(-1, individual_preference=[{"score": -2, "reasoning": "clearer"}, {"score": 0, "reasoning": None}, {"score": None}]),
    )
    assert item.votes == (
        Vote(((0,), (1,)), "helpsteer3-1", strength="better", rationale="clearer"),
        Vote(((0, 1),), "helpsteer3-2"),
    )


@pytest.mark.parametrize("score", [4, 1.5, "much", True, float("nan")])
def test_helpsteer3_scores_that_are_none(score):
    refused(helpsteer3.read, helpsteer(score), "from -3 to 3")


# Argilla


def ranked(field, rank):
    return {"value": field, "rank": rank}


def test_argilla_ranking_by_several_people():
    record = {
        "id": "r1",
        "fields": {"instruction": "Why?", "reply-1": "a", "reply-2": "b", "reply-3": "c"},
        "suggestions": {"preference": {"value": ["reply-3", "reply-1", "reply-2"], "agent": "gpt"}},
        "responses": {
            "preference": [
                {"value": ["reply-2", "reply-3", "reply-1"], "user_id": "u1"},
                {"value": [ranked("reply-1", 1), ranked("reply-3", 1), ranked("reply-2", 3)], "user_id": "u2"},
            ],
            "rationale": [{"value": "shorter", "user_id": "u2"}],
        },
    }
    item = only(argilla.read, record)
    assert what(item) == ([user("Why?")], ("a", "b", "c"), [((1,), (2,), (0,)), ((0, 2), (1,))])
    assert [(vote.annotator, vote.rationale) for vote in item.votes] == [("u1", ""), ("u2", "shorter")]


def test_argilla_ratings_and_the_shape_by_person():
    record = {
        "fields": {"chat": [user("Hi"), assistant("Hello"), user("Why?")], "response_1": "a", "response_2": "b"},
        "responses": [
            {
                "user_id": "u1",
                "status": "submitted",
                "updated_at": "2025-01-02T03:04:05",
                "values": {"response_1_rating": {"value": 2}, "response_2_rating": {"value": 5}},
            },
            {"user_id": "u2", "status": "draft", "values": {"response_1_rating": {"value": 5}, "response_2_rating": {"value": 1}}},
            {"user_id": "u3", "values": {"response_1_rating": {"value": 3}, "response_2_rating": {"value": 3}}},
        ],
    }
    item = only(argilla.read, record)
    assert what(item) == ([user("Hi"), assistant("Hello"), user("Why?")], ("a", "b"), [((1,), (0,)), ((0, 1),)])
    assert [vote.created_at for vote in item.votes] == ["2025-01-02T03:04:05.000+00:00", None]


def test_argilla_ratings_and_answers_that_no_vote_holds_are_counted():
    responses = {"a_rating": [{"value": 4, "user_id": "u1"}], "b_rating": [{"value": v, "user_id": u} for v, u in ((2, "u1"), (5, "u2"))]}
    left, item = argilla.read({"fields": {"prompt": "Why?", "a": "x", "b": "y"}, "responses": responses})
    assert left == Left("ratings of one answer alone") and [vote.tiers for vote in item.votes] == [((0,), (1,))]
    ranking = [{"rank": 1, "value": "b"}, {"rank": 2, "value": "a"}]
    record = Tracked({"fields": {"prompt": "Why?", "a": "x", "b": "y", "c": "z"}, "responses": {"best": [{"value": ranking}]}})
    only(argilla.read, record)
    assert list(record.unread()) == ["fields.c"]


def test_argilla_records_that_nobody_answered_wait():
    item = only(argilla.read, {"fields": {"prompt": "Why?", "a": "x", "b": "y"}, "responses": {}})
    assert (item.completions, item.votes) == (("x", "y"), ())


@pytest.mark.parametrize(
    "record, reason",
    [
        ({}, "needs fields"),
        ({"fields": {"x": "a", "y": "b"}}, "no ranking or rating"),
        ({"fields": {"x": "a", "y": "b"}, "responses": {"rank": [{"value": ["x", "y"]}]}}, "which field is the prompt"),
        ({"fields": {"prompt": "p", "x": "a", "y": "b"}, "responses": 3}, "responses must be"),
        (
            {"fields": {"prompt": "p", "x": "a", "y": "b"}, "responses": {"r": [{"value": ["x", "y"]}, {"value": ["x", "z"]}]}},
            "must name fields",
        ),
    ],
)
def test_invalid_argilla_records(record, reason):
    refused(argilla.read, record, reason)


# Label Studio


def selected(side, by=1, **more):
    return {"completed_by": by, "result": [{"type": "pairwise", "to_name": "p,q", "value": {"selected": side}}], **more}


def test_labelstudio_annotations():
    task = {
        "data": {"prompt": "Why?", "answer1": "a", "answer2": "b"},
        "annotations": [
            selected("right", 7, created_at="2025-01-02T03:04:05.678Z", lead_time=1.5),
            selected("left", {"id": 9, "email": "ann@example.org"}),
            selected("left", 8, was_cancelled=True),
            {"completed_by": 3, "result": []},
        ],
    }
    item = only(labelstudio.read, task)
    assert what(item) == ([user("Why?")], ("a", "b"), [((1,), (0,)), ((0,), (1,))])
    assert [(v.annotator, v.created_at, v.client_ms) for v in item.votes] == [
        ("labelstudio-7", "2025-01-02T03:04:05.678+00:00", 1500),
        ("ann@example.org", None, None),
    ]


def test_labelstudio_ground_truth_is_a_known_answer():
    data = {"prompt": "Why?", "left": "a", "right": "b"}
    item = only(labelstudio.read, {"data": data, "annotations": [selected("right", ground_truth=True)]})
    assert (item.gold, item.votes) == (((1,), (0,)), ())


@pytest.mark.parametrize(
    "data, completions",
    [
        ({"prompt": "Why?", "q": "b", "p": "a"}, ("a", "b")),
        ({"question": "Why?", "one": "a", "other": "b"}, ("a", "b")),
        ({"text": "Why?", "text1": "a", "text2": "b"}, ("a", "b")),
        ({"messages": [user("Why?")], "response_a": "a", "response_b": "b"}, ("a", "b")),
    ],
)
def test_labelstudio_finds_left_and_right(data, completions):
    item = only(labelstudio.read, {"data": data, "annotations": [selected("left")]})
    assert (item.messages, item.completions) == ([user("Why?")], completions)


@pytest.mark.parametrize(
    "task, reason",
    [
        ({}, "needs data"),
        ({"data": {"left": "a", "right": "b"}}, "data has no prompt"),
        ({"data": {"prompt": "x", "a1": "a", "a2": "b", "a3": "c"}}, "which fields"),
        ({"data": {"prompt": "x", "left": "a", "right": "b"}, "annotations": [selected("both")]}, "left or right"),
        ({"data": {"prompt": "x", "left": "a", "right": "b"}, "annotations": 1}, "annotations must be"),
    ],
)
def test_labelstudio_tasks_that_are_none(task, reason):
    refused(labelstudio.read, task, reason)


# Chatbot Arena


def battle(winner, **more):
    return {
        "model_a": "m1",
        "model_b": "m2",
        "winner": winner,
        "judge": "arena_user_1",
        "conversation_a": [user("Why?"), assistant("a")],
        "conversation_b": [user("Why?"), assistant("b")],
        "tstamp": 1700000000.5,
        **more,
    }


@pytest.mark.parametrize(
    "winner, tiers, all_bad",
    [
        ("model_a", ((0,), (1,)), False),
        ("model_b", ((1,), (0,)), False),
        ("tie", ((0, 1),), False),
        ("tie (bothbad)", ((0, 1),), True),
        ("Model_A", ((0,), (1,)), False),
        ("B", ((1,), (0,)), False),
        ("m2", ((1,), (0,)), False),
        ("both bad", ((0, 1),), True),
    ],
)
def test_arena_winners(winner, tiers, all_bad):
    item = only(arena.read, battle(winner))
    assert what(item) == ([user("Why?")], ("a", "b"), [tiers]) and item.models == ("m1", "m2")
    vote = item.votes[0]
    assert (vote.annotator, vote.all_bad, vote.created_at) == ("arena_user_1", all_bad, "2023-11-14T22:13:20.500+00:00")


def test_arena_later_turns_belong_to_the_completions():
    more = {
        "conversation_a": [user("Why?"), assistant("a"), user("Sure?"), assistant("Yes.")],
        "conversation_b": [user("Why?"), assistant("b"), user("Sure?"), assistant("No.")],
    }
    left, right = only(arena.read, battle("tie", **more)).completions
    assert left == "a\n\nHuman: Sure?\n\nAssistant: Yes." and right == "b\n\nHuman: Sure?\n\nAssistant: No."


@pytest.mark.parametrize(
    "record, reason",
    [
        (battle("nobody"), "winner must be"),
        (battle(1), "winner must be"),
        (battle("b", model_a="b"), "winner must be"),
        (battle("tie", tstamp="soon"), "not a time"),
        (battle("tie", tstamp=1e300), "not a time"),
        (battle("tie", conversation_a=[]), "conversation_a must be"),
        (battle("tie", judge=["x"]), "a name must be text"),
        (battle("tie", conversation_a=[user("What?"), assistant("a")]), "share no prompt"),
        (battle("tie", model_a="x" * 201), "at most 200"),
    ],
)
def test_arena_battles_that_are_none(record, reason):
    refused(arena.read, record, reason)


# Plain rows


def row(**more):
    return {"prompt": "Why?", "completions": ["a", "b", "c"], **more}


@pytest.mark.parametrize(
    "more, tiers, all_bad",
    [
        ({"tiers": [[2], [0, 1]]}, ((2,), (0, 1)), False),
        ({"tiers": [[1], [0]]}, ((1,), (0,)), False),
        ({"tiers": [[0, 1, 2]], "all_bad": True}, ((0, 1, 2),), True),
        ({"choice": 1}, ((1,), (0, 2)), False),
        ({"choice": "tie"}, ((0, 1, 2),), False),
        ({"choice": "both_bad"}, ((0, 1, 2),), True),
        ({"tiers": "[[0],[1],[2]]", "models": '["x","y","z"]', "all_bad": "false"}, ((0,), (1,), (2,)), False),
        ({"choice": "2"}, ((2,), (0, 1)), False),
    ],
)
def test_plain_votes(more, tiers, all_bad):
    item = only(plain.read, row(**more))
    assert what(item) == ([user("Why?")], ("a", "b", "c"), [tiers]) and item.votes[0].all_bad == all_bad


def test_plain_row_with_everything():
    item = only(
        plain.read,
        {
            "messages": [user("Hi"), assistant("Hello"), user("Why?")],
            "completions": ["a", "b"],
            "models": ["m1", None],
            "tiers": [[1], [0]],
            "shown": [1, 0],
            "annotator": "Ann",
            "created_at": "2025-01-02 03:04:05+01:00",
            "strength": "slightly",
            "rationale": "clearer",
            "aspects": [{"honest": 2}, {"honest": 5, "helpful": None}],
            "ideal": "ab",
            "active_ms": 900,
            "idle_ms": "5",
            "kind": "science",
            "split": "heldout",
        },
    )
    assert item == NewComparison(
        [user("Hi"), assistant("Hello"), user("Why?")],
        ("a", "b"),
        ("m1", None),
        (
            Vote(
                ((1,), (0,)), "Ann", created_at="2025-01-02T02:04:05.000+00:00", strength="slightly", rationale="clearer",
                aspects=((0, "honest", 2), (1, "honest", 5)), shown=(1, 0), ideal="ab", active_ms=900, idle_ms=5,
            ),
        ),
        None,
        "science",
        "heldout",
    )  # fmt: skip


def test_plain_rows_without_a_vote_and_with_a_known_answer():
    assert only(plain.read, row()).votes == ()
    item = only(plain.read, row(tiers=[[2], [0], [1]], gold=True))
    assert (item.votes, item.gold) == ((), ((2,), (0,), (1,)))


@pytest.mark.parametrize(
    "record, reason",
    [
        ({"completions": ["a", "b"]}, "either prompt or messages"),
        ({"prompt": "x"}, "needs completions"),
        ({"prompt": "x", "completions": ["a"]}, "1 completions"),
        ({"prompt": "x", "completions": ["a"] * 10}, "10 completions"),
        ({"prompt": "x", "completions": ["a", 3]}, "completion must be text"),
        ({"prompt": "x", "completions": "a, b"}, "in CSV as JSON"),
        ({"prompt": "x", "completions": {"a": 1}}, "completions must be a list"),
        ({"prompt": "x", "completions": ["a", "a"]}, "are the same"),
        ({"prompt": "x", "completions": ["a", "a"], "models": ["m", "m"], "choice": 0}, "are the same"),
        (row(models=["m"]), "1 models for 3"),
        (row(models=["m", {}, "n"]), "a name must be text"),
        (row(tiers=[[0]]), "at least two"),
        (row(tiers=[[0], [0]]), "ranked twice"),
        (row(tiers=[[0], []]), "tier is empty"),
        (row(tiers=[[0], [3]]), "indexes from 0 to 2"),
        (row(tiers=[[0], [-1]]), "indexes from 0 to 2"),
        (row(tiers=[[True], [0]]), "indexes from 0 to 2"),
        (row(tiers=[0, 1]), "lists of indexes"),
        (row(tiers=[[0], [1]], choice=0), "tiers or choice"),
        (row(choice=3), "choice must be"),
        (row(choice=True), "choice must be"),
        (row(choice="best"), "choice must be"),
        (row(gold=True), "needs the known answer"),
        (row(gold=True, tiers=[[0], [1]]), "rank every completion"),
        (row(gold=True, choice="tie"), "one before another"),
        (row(gold="perhaps"), "gold must be true or false"),
        (row(choice=0, strength="slightly"), "one of two"),
        (row(choice=0, shown=[0, 1]), "each of the 3"),
        (row(choice=0, created_at="yesterday"), "not a time"),
        (row(choice=0, created_at={"x": 1}), "not a time"),
        (row(choice=0, active_ms=-1), "milliseconds"),
        (row(choice=0, active_ms="1.5"), "milliseconds"),
        (row(choice=0, aspects=[{"honest": 11}]), "from 1 to 10"),
        (row(choice=0, aspects=[3]), "aspects must be"),
        (row(choice=0, rationale=3), "rationale must be text"),
        (row(choice=0, annotator="x" * 300), "at most 200"),
        (row(split="test"), "train or heldout"),
        (row(kind=3), "kind must be a word"),
    ],
)
def test_plain_rows_that_are_none(record, reason):
    refused(plain.read, record, reason)


# Times


@pytest.mark.parametrize(
    "text, kept",
    [
        ("2025-01-02T03:04:05Z", "2025-01-02T03:04:05.000+00:00"),
        ("2025-01-02", "2025-01-02T00:00:00.000+00:00"),
        (1700000000, "2023-11-14T22:13:20.000+00:00"),
        (1700000000123, "2023-11-14T22:13:20.123+00:00"),
        ("1700000000.5", "2023-11-14T22:13:20.500+00:00"),
        (1700000000123456, "2023-11-14T22:13:20.123+00:00"),
        (1700000000123456789, "2023-11-14T22:13:20.123+00:00"),
        ("Thu, 02 Jan 2025 04:04:05 +0100", "2025-01-02T03:04:05.000+00:00"),
        (datetime(2025, 1, 2, 3, tzinfo=UTC), "2025-01-02T03:00:00.000+00:00"),
        (None, None),
    ],
)
def test_times(text, kept):
    assert rows.timestamp(text) == kept


# Anything at all

WORDS = ["prompt", "messages", "value", "rank", "selected", "left", "role", "content", "user", "score", "Rating", "text", "replies"]

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**30) | st.floats() | st.sampled_from([*WORDS, "", "[", "\ud83d", "\0", "1e999"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=6,
)

GOOD = [
    (trl, {"prompt": [user("Why?")], "chosen": [assistant("a")], "rejected": [assistant("b")], "annotator": "x", "kind": "k"}),
    (trl, {"chosen": "Why? a", "rejected": "Why? b"}),
    (hh_rlhf, {"chosen": dialogue("Hi", "a"), "rejected": dialogue("Hi", "b")}),
    (oasst, {"prompt": turn("Why?", "prompter", turn("a", "assistant", rank=0), turn("b", "assistant", rank=1))}),
    (ultrafeedback, {"instruction": "Why?", "completions": [{"response": "a", "annotations": {"x": {"Rating": "2"}}}] * 2}),
    (helpsteer3, helpsteer(-1, individual_preference=[{"score": -2, "reasoning": "clearer"}])),
    (argilla, {"fields": {"prompt": "Why?", "x": "a", "y": "b"}, "responses": {"r": [{"value": [ranked("x", 1), ranked("y", 2)]}]}}),
    (argilla, {"fields": {"prompt": "Why?", "x": "a", "y": "b"}, "responses": [{"user_id": "u", "values": {"x_rating": {"value": 2}}}]}),
    (labelstudio, {"data": {"prompt": "Why?", "left": "a", "right": "b"}, "annotations": [selected("left", {"id": 1}, lead_time=2)]}),
    (arena, battle("tie")),
    (plain, row(models=["m", "n", "o"], tiers=[[0], [1]], shown=[0, 1, 2], aspects=[{"x": 1}, {}, {}], created_at=1, strength="better")),
]  # fmt: skip


def places_in(value, before=()):
    """Every path into a nested value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*before, key)
        yield from places_in(item, (*before, key))


@pytest.mark.slow
@pytest.mark.parametrize("module, record", GOOD, ids=lambda item: getattr(item, "__name__", "").rpartition(".")[2])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_row_with_anything_in_one_place_is_good_or_bad_but_no_crash(module, record, data):
    changed = copy.deepcopy(record)
    *path, last = data.draw(st.sampled_from(list(places_in(changed))))
    within = changed
    for key in path:
        within = within[key]
    within[last] = data.draw(ANYTHING)
    try:
        for item in module.read(changed):
            if not isinstance(item, Left):
                rows.check(item)
    except BadRow as error:
        assert str(error)


# What buttons say


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("Answer 1", ("answer1", "answer2"), (0, None)),
        ("answer_2", ("answer1", "answer2"), (1, None)),
        ("2", ("answer1", "answer2"), (1, None)),
        ("response_a", ("response_a", "response_b"), (0, None)),
        ("Response B is slightly better", ("response_a", "response_b"), (1, "slightly")),
        ("B", ("left", "right"), (1, None)),
        ("Left is much better", ("text1", "text2"), (0, "significantly")),
        ("The first one", ("text1", "text2"), (0, None)),
        ("Prefer A", ("x", "y"), (0, None)),
        ("Option A", ("x", "y"), (0, None)),
        ("Tie", ("x", "y"), ("tie", None)),
        ("About the same", ("x", "y"), ("tie", None)),
        ("Both are good", ("x", "y"), ("tie", None)),
        ("Equally good", ("x", "y", "z"), ("tie", None)),
        ("Both are bad", ("x", "y"), ("both_bad", None)),
        ("Neither", ("x", "y"), ("both_bad", None)),
        ("z", ("x", "y", "z"), (2, None)),
    ],
)
def test_a_button_names_the_better_answer(text, names, expected):
    assert choice_labels.parse(text, names) == expected


@pytest.mark.parametrize("text", ["Safe", "Left is worse", "Good", "Yes", "Helpful", "5", "Response C is better", "A bad question", ""])
def test_a_button_that_names_none(text):
    assert choice_labels.parse(text, ("response_a", "response_b")) is None


CHOICES = {"prompt": "Name a fruit", "answer1": "Pear", "answer2": "Plum"}


def choice(text, name="better"):
    return {"from_name": name, "to_name": "t", "type": "choices", "value": {"choices": [text]}}


def rated(number, rating):
    return {"type": "rating", "from_name": "quality", "to_name": f"answer{number}", "value": {"rating": rating}}


@pytest.mark.parametrize(
    ("results", "tiers", "all_bad"),
    [
        ([choice("Answer 2")], ((1,), (0,)), False),
        ([choice("Tie")], ((0, 1),), False),
        ([choice("Both are bad")], ((0, 1),), True),
        ([choice("Answer 1"), choice("Safe", "safety")], ((0,), (1,)), False),
        ([{"type": "pairwise", "value": {"selected": "right"}}, choice("Answer 2")], ((1,), (0,)), False),
        ([rated(1, 4), rated(2, 3)], ((0,), (1,)), False),
    ],
)  # fmt: skip
def test_labelstudio_choices_are_votes(results, tiers, all_bad):
    item = only(labelstudio.read, {"data": CHOICES, "annotations": [{"completed_by": 3, "result": results}]})
    assert [(vote.tiers, vote.all_bad, vote.annotator) for vote in item.votes] == [(tiers, all_bad, "labelstudio-3")]


def test_labelstudio_counts_unread_fields():
    annotations = [
        {"result": [choice("Safe", "safety")]},
        {"result": [choice("Answer 1")], "was_cancelled": True},
        {"result": [choice("Answer 1"), {"type": "textarea", "from_name": "why", "value": {"text": ["Sweet.", "Ripe."]}}]},
    ]
    found = list(labelstudio.read({"data": CHOICES, "annotations": annotations}))
    assert [item for item in found if isinstance(item, Left)] == [
        Left("cancelled annotations"), Left("results of safety"), Left("annotations without a verdict"),
    ]  # fmt: skip
    assert [vote.rationale for vote in found[-1].votes] == ["Sweet.\nRipe."]
    refused(labelstudio.read, {"data": CHOICES, "annotations": [{"result": [choice("Answer 1"), choice("Tie", "x")]}]}, "different things")


def test_labelstudio_ranker_orders_the_items_of_a_list():
    items = [{"id": "p", "body": "Pear", "model": "m"}, {"id": "q", "body": "Plum"}, {"id": "r", "title": "Fig"}]
    ranked = {"type": "ranker", "value": {"ranker": {"rank": ["r", "p", "q"]}}}
    item = only(labelstudio.read, {"data": {"prompt": "Name a fruit", "items": items}, "annotations": [{"result": [ranked]}]})
    assert (item.completions, item.models, item.votes[0].tiers) == (("Pear", "Plum", "Fig"), ("m", None, None), ((2,), (0,), (1,)))
    empty = [{"id": "p", "body": ""}, *items[1:]]
    item = only(labelstudio.read, {"data": {"prompt": "Name a fruit", "items": empty}, "annotations": [{"result": [ranked]}]})
    assert item.completions == ("", "Plum", "Fig")
    buckets = {"type": "ranker", "value": {"ranker": {"good": ["r"], "bad": ["p", "q"]}}}
    annotations = [{"result": [buckets]}, {"result": [ranked]}]
    *left, item = labelstudio.read({"data": {"prompt": "x", "items": items}, "annotations": annotations})
    assert left == [Left("rankings in several buckets"), Left("annotations without a verdict")]
    assert [vote.tiers for vote in item.votes] == [((2,), (0,), (1,))]


@pytest.mark.parametrize(
    "beside",
    [
        {"better": "Answer 2"},
        {"better": {"choices": ["Answer 2"]}},
        {"pw": {"selected": "right"}},
        {"better": "Answer 2", "why": "Ripe."},
        {"better": '{"choices": ["Answer 2"]}'},
        {"pw": '{"selected": "right"}'},
    ],
)
def test_labelstudio_json_min(beside):
    row = {"id": 1, **CHOICES, **beside, "annotator": 3, "annotation_id": 9, "created_at": "2025-01-01T00:00:00Z", "lead_time": 3.2}
    item = only(labelstudio.read, row)
    assert what(item) == ([user("Name a fruit")], ("Pear", "Plum"), [((1,), (0,))])
    assert (item.votes[0].annotator, item.votes[0].client_ms, item.votes[0].rationale) == ("labelstudio-3", 3200, beside.get("why", ""))


def test_labelstudio_json_min_in_the_cells_of_a_table():
    items = '[{"id": "p", "body": "Pear"}, {"id": "q", "body": "Plum"}]'
    row = {"prompt": "Name a fruit", "items": items, "ranking": '{"ranker": {"rank": ["q", "p"]}}', "annotation_id": "1", "annotator": "2"}
    assert what(only(labelstudio.read, row)) == ([user("Name a fruit")], ("Pear", "Plum"), [((1,), (0,))])
    answers = {"prompt": "Write JSON", "left": '{"a": 1}', "right": "[1]", "pw": "left", "annotation_id": "1", "annotator": "2"}
    assert what(only(labelstudio.read, answers)) == ([user("Write JSON")], ('{"a": 1}', "[1]"), [((0,), (1,))])


def test_labelstudio_choices_among_three_answers():
    data = {"prompt": "Name a fruit", "answer1": "Pear", "answer2": "Plum", "answer3": "Fig", "answer3_model": "m"}
    annotations = [{"result": [choice(words)]} for words in ("Answer 3", "Tie", "answer1 is best")]
    item = only(labelstudio.read, {"data": data, "annotations": annotations})
    assert (item.completions, item.models) == (("Pear", "Plum", "Fig"), (None, None, "m"))
    assert [(vote.tiers, vote.shown) for vote in item.votes] == [(((2,), (0, 1)), None), (((0, 1, 2),), None), (((0,), (1, 2)), None)]
    sides = {"type": "pairwise", "value": {"selected": "right"}}
    item = only(labelstudio.read, {"data": data, "annotations": [{"result": [sides]}]})
    assert (item.completions, item.votes[0].tiers, item.votes[0].shown) == (("Pear", "Plum"), ((1,), (0,)), (0, 1))


FIELDS = {"prompt": "Name a fruit", "response_a": "Pear", "response_b": "Plum"}


@pytest.mark.parametrize(
    ("value", "tiers"), [("response_b", ((1,), (0,))), ("A", ((0,), (1,))), ("tie", ((0, 1),)), (["response_b"], ((1,), (0,)))]
)
def test_argilla_labels_are_votes(value, tiers):
    responses = {"preference": [{"value": value, "user_id": "u1"}], "safe": [{"value": "yes", "user_id": "u1"}]}
    found = list(argilla.read({"fields": FIELDS, "responses": responses | {"other": [{"value": "x", "status": "draft"}]}}))
    assert found[:2] == [Left("draft responses"), Left("responses to safe")]
    assert [(vote.tiers, vote.annotator) for vote in found[-1].votes] == [(tiers, "u1")]


def test_argilla_labels_that_name_nothing_among_others_are_wrong():
    responses = {"preference": [{"value": "response_b", "user_id": "u1"}, {"value": "unsure", "user_id": "u2"}]}
    refused(argilla.read, {"fields": FIELDS, "responses": responses}, "preference says 'unsure', which names no answer and no tie")


@pytest.mark.parametrize(
    "columns",
    [
        {"better.responses": ["response_b", "response_a"], "better.responses.users": ["u1", "u2"],
         "better.responses.status": ["submitted", "draft"]},
        {"better": [{"user_id": "u1", "value": "response_b", "status": "submitted"}], "better-suggestion": "x", "external_id": "1"},
        {"better.responses": '["response_b", "response_a"]', "better.responses.users": '["u1", "u2"]',
         "better.responses.status": '["submitted", "draft"]'},
        {"better": {"user_id": ["u1"], "value": ["response_b"], "status": ["submitted"]}},
        {"better": [{"user_id": "u1", "value": {"rank": [1, 2], "value": ["response_b", "response_a"]}, "status": "submitted"}]},
    ],
    ids=["2.x", "1.x", "2.x in CSV", "by column", "ranking by column"],
)  # fmt: skip
def test_argilla_flattened(columns):
    item = only(argilla.read, {"id": "1", "status": "completed", **FIELDS, **columns})
    assert what(item) == ([user("Name a fruit")], ("Pear", "Plum"), [((1,), (0,))]) and item.votes[0].annotator == "u1"
