"""Rows of other tools' files, made up: which format each is recognised as, and what it says, worked out by hand."""

import json

import pytest

from storage.core.database import StoreError
from storage.exchange import detect, import_records, imports, maps, rows, undos
from storage.exchange.formats import FORMATS
from storage.exchange.groups import grouped
from storage.exchange.rows import Left
from storage.exchange.tracking import MAX_FIELD_NAMES, OTHER_FIELDS, Tracked


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def read(name, *records):
    """The items of the records, and what is left behind by name."""
    items, left = [], {}
    for _, record in grouped(enumerate(records), FORMATS[name].group):
        tracked = Tracked(record)
        for item in FORMATS[name].read(tracked):
            if isinstance(item, Left):
                left[item.what] = left.get(item.what, 0) + item.count
            else:
                rows.check(item)
                items.append(item)
        for field in set(tracked.unread()) - set(FORMATS[name].ignored):
            left[field] = left.get(field, 0) + 1
    return items, left


FRUIT = ("Pear", "Plum")
A, B, TIE = ((0,), (1,)), ((1,), (0,)), ((0, 1),)
Q = [user("Name a fruit")]

ROWS = {
    "trl": [
        ({"prompt": "Name a fruit", "chosen": "Pear", "rejected": "Plum"}, Q, FRUIT, [A], {}),
        (
            {"chosen": [*Q, assistant("Pear")], "rejected": [*Q, assistant("Plum")], "score_chosen": 9.0, "score_rejected": 2.0},
            Q, FRUIT, [A], {"score_chosen": 1, "score_rejected": 1},
        ),
        (
            {"input": {"messages": Q}, "preferred_output": [assistant("Pear")], "non_preferred_output": [assistant("Plum")]},
            Q, FRUIT, [A], {},
        ),
    ],
    "llama-factory": [
        (
            {"system": "Be brief.", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"},
                                                      {"from": "human", "value": "Name a fruit"}],
             "chosen": {"from": "gpt", "value": "Pear"}, "rejected": {"from": "gpt", "value": "Plum"}, "tools": "[]x"},
            [system("Be brief."), user("Hi"), assistant("Hello"), *Q], FRUIT, [A], {"tools": 1},
        ),
        (
            {"instruction": "Name one", "input": "fruit", "chosen": "Pear", "rejected": "Plum", "history": [["Hi", "Hello"]]},
            [user("Hi"), assistant("Hello"), user("Name one\nfruit")], FRUIT, [A], {},
        ),
        (
            {"chosen_messages": [{"role": "user", "content": [{"type": "text", "value": "Name a fruit"}], "loss_weight": 0.0},
                                 {"role": "assistant", "content": [{"type": "text", "value": "Pear"}], "loss_weight": 1.0}],
             "rejected_messages": [{"role": "user", "content": [{"type": "text", "value": "Name a fruit"}]},
                                   {"role": "assistant", "content": [{"type": "text", "value": "Plum"}]}]},
            Q, FRUIT, [A], {"chosen_messages[].loss_weight": 1},
        ),
    ],
    "axolotl": [
        ({"system": "Be brief.", "question": "Name a fruit", "chosen": "Pear", "rejected": "Plum"},
         [system("Be brief."), *Q], FRUIT, [A], {}),
        ({"messages": Q, "chosen": assistant("Pear"), "rejected": assistant("Plum")}, Q, FRUIT, [A], {}),
        ({"system": "", "instruction": "Name a fruit", "chosen_response": "Pear", "rejected_response": "Plum"}, Q, FRUIT, [A], {}),
    ],
    "arena-55k": [
        (
            {"id": "1", "model_a": "m", "model_b": "n", "prompt": '["Name a fruit", "And a tree?"]', "response_a": '["Pear", "Oak"]',
             "response_b": '["Plum", null]', "winner_model_a": "0", "winner_model_b": "0", "winner_tie": "1"},
            Q, ("Pear\n\nHuman: And a tree?\n\nAssistant: Oak", "Plum\n\nHuman: And a tree?\n\nAssistant: "), [TIE], {},
        ),
        (
            {"prompt": ["Name a fruit"], "response_a": ["Pear"], "response_b": [None], "winner_model_a": 0, "winner_model_b": 1,
             "winner_tie": 0}, Q, ("Pear", ""), [B], {},
        ),
    ],
    "comparia": [
        (
            {"id": 1, "model_a_name": "m", "model_b_name": "n", "conversation_a": [*Q, assistant("Pear")],
             "conversation_b": [*Q, assistant("Plum")], "chosen_model_name": "n", "both_equal": False, "visitor_id": "v"},
            Q, FRUIT, [B], {},
        ),
        (
            {"model_a_name": "m", "model_b_name": "n", "conversation_a": [*Q, assistant("Pear")],
             "conversation_b": [*Q, assistant("Plum")], "both_equal": True}, Q, FRUIT, [TIE], {},
        ),
        (
            {"model_a_name": "m", "model_b_name": "n", "conversation_a": [system("Be brief."), *Q, assistant("Pear")],
             "conversation_b": [*Q, assistant("Plum")], "chosen_model_name": "m", "both_equal": False, "system_prompt_a": "Be brief."},
            Q, FRUIT, [A], {"system messages that only some of the models had": 1},
        ),
        (
            {"model_a_name": "m", "model_b_name": "n", "conversation_a": [*Q, assistant("Pear")],
             "conversation_b": [*Q, assistant("Plum")], "chosen_model_name": "m", "system_prompt_a": "Be brief.",
             "system_prompt_b": "Be brief.", "conv_useful_a": True, "conv_comments_b": "Too sour."},
            [system("Be brief."), *Q], FRUIT, [A], {"conv_useful_a": 1, "conv_comments_b": 1},
        ),
    ],
    "scored": [
        ({"prompt": "Name a fruit", "responses": ["Pear", "Plum"], "rewards": ["0.5", 2]}, Q, FRUIT, [B], {}),
        ({"prompt": "Name a fruit", "completions": ["Pear", "Plum"], "scores": [1, 1.0], "models": ["m", "n"]}, Q, FRUIT, [TIE], {}),
    ],
    "ranked": [({"prompt": "Name a fruit", "completions": ["Pear", "Plum"], "ranks": [3, 1]}, Q, FRUIT, [B], {})],
    "pairwise": [
        ({"prompt": "Name a fruit", "response_a": "Pear", "response_b": "Plum", "winner": "Response B"}, Q, FRUIT, [B], {}),
        (
            {"id": "7", "prompt": "Name a fruit", "response_a": "Pear", "response_b": "Plum", "winner": "model_b", "model_a": "m",
             "model_b": "n", "language": "en"}, Q, FRUIT, [B], {"language": 1},
        ),
        ({"question": "Name a fruit", "answer_a": "Pear", "answer_b": "Plum", "preferred": "answer_a"}, Q, FRUIT, [A], {}),
        ({"prompt": "Name a fruit", "output_a": "Pear", "output_b": "Plum", "vote": "Tie"}, Q, FRUIT, [TIE], {}),
        ({"question": "Name a fruit", "response_a": "Pear", "response_b": "Plum", "label": "B>A"}, Q, FRUIT, [B], {}),
        ({"question": "Name a fruit", "response_a": "Pear", "response_b": "Plum", "label": "A = B"}, Q, FRUIT, [TIE], {}),
    ],
    "pairwise-numbered": [
        ({"prompt": "Name a fruit", "response_1": "Pear", "response_2": "Plum", "winner": 2}, Q, FRUIT, [B], {}),
        ({"prompt": "Name a fruit", "completion_1": "Pear", "completion_2": "Plum", "better": "completion_1"}, Q, FRUIT, [A], {}),
    ],
    "alpacaeval": [
        (
            {"instruction": "Name a fruit", "output_1": "Pear", "generator_1": "m", "output_2": "Plum", "generator_2": "n", "preference": 2,
             "annotator": "judge"}, Q, FRUIT, [B], {},
        ),
        ({"instruction": "Name a fruit", "input": "", "output_1": "Pear", "output_2": "Plum", "preference": 1.5}, Q, FRUIT, [TIE], {}),
        (
            {"instruction": "Name a fruit", "output_1": "Pear", "output_2": "Plum", "preference": 1.03}, Q, FRUIT, [A],
            {"how sure a preference is": 1},
        ),
    ],
    "llmbar": [({"input": "Name a fruit", "output_1": "Pear", "output_2": "Plum", "label": 2}, Q, FRUIT, [B], {})],
    "pandalm": [
        (
            {"idx": 0, "motivation_app": "Mail", "instruction": "Name one", "input": "fruit", "response1": "Pear", "response2": "Plum",
             "annotator1": 1, "annotator2": 0, "annotator3": 2}, [user("Name one\nfruit")], FRUIT, [A, TIE, B], {},
        )
    ],
    "pku-saferlhf": [
        (
            {"prompt": "Name a fruit", "response_0": "Pear", "response_1": "Plum", "better_response_id": 1, "safer_response_id": 0,
             "is_response_0_safe": True}, Q, FRUIT, [B], {"safer_response_id": 1, "is_response_0_safe": 1},
        )
    ],
    "shp": [
        (
            {"post_id": "p", "domain": "food", "history": "Name a fruit", "human_ref_A": "Pear", "human_ref_B": "Plum", "labels": 0,
             "score_A": 3}, Q, FRUIT, [B], {"score_A": 1},
        )
    ],
    "webgpt": [
        (
            {"question": {"full_text": "Name a fruit", "dataset": "d", "id": "1"}, "answer_0": "Pear", "answer_1": "Plum", "score_0": -0.5,
             "score_1": 0.5, "quotes_0": {"title": ["x"]}}, Q, FRUIT, [B], {"quotes_0": 1},
        ),
        (
            {"question": {"full_text": "Name a fruit"}, "answer_0": "Pear", "answer_1": "Plum", "score_0": 0, "score_1": 0},
            Q, FRUIT, [TIE], {},
        ),
    ],
    "summarize": [
        (
            {"info": {"id": "1", "post": "Pears are fruit", "title": "Fruit", "subreddit": "food"},
             "summaries": [{"text": "Pear", "policy": "m"}, {"text": "Plum", "policy": "n"}], "choice": 1, "worker": "w",
             "split": "valid1"},
            [user("Fruit\nPears are fruit")], FRUIT, [B], {"split": 1},
        )
    ],
    "helpsteer2-preference": [
        (
            {"prompt": "Name a fruit", "response_1": "Pear", "response_2": "Plum", "preference_strength": -2, "preference_statement": "@1"},
            Q, FRUIT, [A], {},
        ),
        (
            {"prompt": "Hi\n<extra_id_1>Assistant\nHello\n<extra_id_1>User\nName a fruit", "response_1": "Pear", "response_2": "Plum",
             "preference_strength": 3}, [user("Hi"), assistant("Hello"), *Q], FRUIT, [B], {},
        ),
    ],
    "nectar": [
        (
            {"prompt": "\n\nHuman: Name a fruit\n\nAssistant: ", "answers": [{"answer": "Pear", "model": "m", "rank": 2.0},
                                                                            {"answer": "Plum", "model": "n", "rank": 1.0}],
             "source": ["x"], "good_natured": True}, Q, FRUIT, [B], {"good_natured": 1},
        )
    ],
    "distilabel": [
        (
            {"instruction": "Name a fruit", "generations": ["Pear", "Plum"], "generation_models": ["m", "n"], "ratings": [2, 4],
             "rationales": ["x", "y"]}, Q, FRUIT, [B], {"rationales": 1},
        ),
        # Rated the same, whatever was made a pair of it.
        (
            {"system": "Be brief.", "input": "Name a fruit", "chosen": "Pear", "rejected": "Plum", "generations": ["Pear", "Plum"],
             "rating": [9.0, 9.0], "rationale": "both", "status": "tie"}, [system("Be brief."), *Q], FRUIT, [TIE], {"status": 1},
        ),
    ],
    "openrlhf": [({"context_messages": Q, "chosen": "Pear", "rejected": "Plum"}, Q, FRUIT, [A], {})],
    "stack-exchange-paired": [
        ({"qid": 1, "question": "Name a fruit", "date": "2020/01/02", "response_j": "Pear", "response_k": "Plum"}, Q, FRUIT, [A], {})
    ],
}  # fmt: skip
CASES = [pytest.param(name, *case, id=f"{name}-{number}") for name, cases in ROWS.items() for number, case in enumerate(cases)]


@pytest.mark.parametrize(("name", "row", "prompt", "completions", "tiers", "left"), CASES)
def test_a_row_has_the_meaning_of_its_own_tool(name, row, prompt, completions, tiers, left):
    assert detect.recognise([row], "file").format == name
    (item,), found = read(name, json.loads(json.dumps(row)))
    assert list(item.messages) == prompt
    assert (item.completions, [vote.tiers for vote in item.votes]) == (completions, tiers)
    assert found == left


def test_models_annotators_and_what_stands_beside_are_kept():
    (item,), _ = read("alpacaeval", ROWS["alpacaeval"][0][0])
    assert (item.models, item.votes[0].annotator) == (("m", "n"), "judge")
    (item,), _ = read("pandalm", ROWS["pandalm"][0][0])
    assert [vote.annotator for vote in item.votes] == ["annotator1", "annotator2", "annotator3"]
    (item,), _ = read("helpsteer2-preference", ROWS["helpsteer2-preference"][0][0])
    assert (item.votes[0].strength, item.votes[0].rationale) == ("better", "@1")
    (item,), _ = read("summarize", ROWS["summarize"][0][0])
    assert (item.models, item.kind, item.votes[0].annotator) == (("m", "n"), "food", "w")


def test_a_vote_of_mt_bench_is_about_the_answers_up_to_its_turn():
    a, b = ([*Q, assistant(text), user("And a tree?"), assistant("Oak")] for text in FRUIT)
    row = {"conversation_a": a, "conversation_b": b, "winner": "model_b", "judge": "j", "turn": 1}
    (item,), left = read("arena", row)
    assert (list(item.messages), item.completions, left) == (Q, FRUIT, {"turns after the one that was judged": 4})
    (item,), _ = read("arena", row | {"turn": 2})
    assert item.completions[0] == "Pear\n\nHuman: And a tree?\n\nAssistant: Oak"


def test_sides_are_known_only_where_a_file_has_them():
    known = {name for name, cases in ROWS.items() for vote in read(name, cases[0][0])[0][0].votes if vote.shown}
    assert known == {"arena-55k", "comparia"}


def test_helpsteer2_rows_of_one_prompt_are_one_comparison():
    scores = {"correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 0}
    answers = [("Name a fruit", "Pear", 1), ("Name a fruit", "Plum", 4), ("Name a tree", "Oak", 3), ("Name a tree", "Fern", 3)]
    records = [{"prompt": prompt, "response": text, "helpfulness": score} | scores for prompt, text, score in answers]
    assert detect.recognise(records, "file").format == "helpsteer2"
    (first, second), left = read("helpsteer2", *records)
    assert (list(first.messages), first.completions, first.votes[0].tiers) == (Q, FRUIT, B)
    assert (second.completions, second.votes[0].tiers, left) == (("Oak", "Fern"), TIE, {})
    # 0 to 4 there, 1 to 5 here.
    assert set(first.votes[0].aspects) >= {(0, "helpfulness", 2), (1, "helpfulness", 5), (0, "verbosity", 1)}


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("llmbar", {"label": 3}, "label is '3', which is no model's name and none of 1, 2"),
        ("pandalm", {"annotator2": 5}, "annotator2 is '5', which is no model's name and none of 0, 1, 2"),
        ("webgpt", {"answer_1": 3}, "answer_1 must be text or messages"),
        ("arena-55k", {"winner_model_a": "1"}, "several verdicts: winner_model_a, winner_tie"),
        ("arena-55k", {"winner_model_a": "WAHR"}, "winner_model_a must be true or false, 1 or 0, not 'WAHR'"),
        ("arena-55k", {"winner_model_a": 0.5}, "winner_model_a must be true or false, 1 or 0, not '0.5'"),
        ("pairwise", {"winner": "a", "model_a": "b", "model_b": "a"}, "winner is 'a', which is no model's name"),
        ("pairwise", {"winner": "a", "preference": "b"}, "winner and preference say different things: say which is the verdict"),
        ("arena-55k", {"prompt": "Name a fruit"}, "prompt must be a list, in CSV as JSON"),
        ("arena-55k", {"prompt": '["One"]'}, "one text for each answer"),
    ],
)
def test_rows_that_say_something_else_are_wrong(name, change, reason):
    with pytest.raises(rows.BadRow, match=reason):
        read(name, ROWS[name][0][0] | change)


TALK = [user("Hi"), assistant("Hello"), *Q]


@pytest.mark.parametrize(
    ("record", "name", "expected"),
    [
        ({"prompt": "Name a fruit", "completion": "Pear", "label": True}, "kto", (Q, "Pear", True)),
        ({"prompt": "Name a fruit", "completion": "Pear", "label": "0"}, "kto", (Q, "Pear", False)),
        ({"prompt": "Name a fruit", "completion": "Pear", "label": 1.0}, "kto", (Q, "Pear", True)),
        ({"prompt": "Name a fruit", "completion": "Pear", "label": "thumbsdown"}, "kto", (Q, "Pear", False)),
        ({"prompt": TALK, "completion": [assistant("Pear")], "label": False}, "kto", (TALK, "Pear", False)),
        ({"messages": [*TALK, assistant("Pear")], "label": False}, "kto", (TALK, "Pear", False)),
        ({"instruction": "Name a fruit", "output": "Pear", "kto_tag": True}, "kto", (Q, "Pear", True)),
        ({"instruction": "Name one", "input": "fruit", "system": "Be brief.", "output": "Pear", "kto_tag": "false"}, "kto",
         ([system("Be brief."), user("Name one\nfruit")], "Pear", False)),
        ({"conversations": [{"from": "human", "value": "Name a fruit"}, {"from": "gpt", "value": "Pear"}], "kto_tag": True}, "kto",
         (Q, "Pear", True)),
        ({"instruction": "Name a fruit", "completion": "Pear", "label": True}, "kto", (Q, "Pear", True)),
        ({"system": "Be brief.", "question": "Name a fruit", "completion": "Pear", "label": False}, "kto",
         ([system("Be brief."), *Q], "Pear", False)),
        ({"input": "Name a fruit", "output": "Pear", "label": 1}, "kto", (Q, "Pear", True)),
        ({"prompt": "Name a fruit", "response": "Pear", "rating": "GOOD", "workspace": "w", "username": "ann", "sent_at": "2025-01-01"},
         "anythingllm", (Q, "Pear", True)),
        ({"prompt": "Name a fruit", "response": "Pear", "rating": "BAD", "workspace": "w"}, "anythingllm", (Q, "Pear", False)),
    ],
)  # fmt: skip
def test_a_single_answer_is_labelled_good_or_bad(record, name, expected):
    assert detect.recognise([record], "file").format == name
    (item,), left = read(name, record)
    assert (list(item.messages), item.completion, item.good) == expected
    assert left == {}


def test_an_unrated_answer_is_counted_and_an_unknown_label_is_wrong():
    row = {"prompt": "Name a fruit", "response": "Pear", "rating": "--", "workspace": "w"}
    assert read("anythingllm", row) == ([], {"answers without a rating": 1})
    with pytest.raises(rows.BadRow, match="label or kto_tag must be one of true, .*, not '2'"):
        read("kto", {"prompt": "Name a fruit", "completion": "Pear", "label": 2})
    with pytest.raises(rows.BadRow, match="no prompt"):
        read("kto", {"completion": "Pear", "label": True})


# ---- a system message in two places


@pytest.mark.parametrize(
    ("given", "prompt"),
    [("Be brief.", [system("Be brief."), *Q]), (" Be brief.\n", [system(" Be brief.\n"), *Q]), ("", [system("Be brief."), *Q])],
)
def test_a_system_message_beside_conversations_that_begin_with_it_is_one(given, prompt):
    turns = [system("Be brief."), *Q]
    (item,), left = read("llama-factory", {"system": given, "conversations": turns, "chosen": "Pear", "rejected": "Plum"})
    assert (list(item.messages), left) == (prompt, {})
    whole = {"system": given, "chosen": [*turns, assistant("Pear")], "rejected": [*turns, assistant("Plum")]}
    (item,), left = read("trl", whole)
    assert (list(item.messages), left) == (prompt, {})


def test_a_system_message_beside_conversations_without_one_is_theirs():
    (item,), _ = read("trl", {"system": "Be brief.", "chosen": [*Q, assistant("Pear")], "rejected": [*Q, assistant("Plum")]})
    assert list(item.messages) == [system("Be brief."), *Q]


def test_two_different_system_messages_are_refused():
    turns = [system("Be kind."), *Q]
    with pytest.raises(rows.BadRow, match="two system messages: one in a field of its own, another in the conversation"):
        read("trl", {"system": "Be brief.", "chosen": [*turns, assistant("Pear")], "rejected": [*turns, assistant("Plum")]})


# ---- flattened Argilla, and Label Studio's JSON-MIN

FLAT = {"id": "1", "status": "completed", "prompt": "Name a fruit", "response1": "Pear", "response2": "Plum"}


def test_a_column_of_metadata_is_no_answer():
    asked = {"preference.responses": ["response2"], "preference.responses.users": ["ann"], "preference.responses.status": ["submitted"]}
    (item,), left = read("argilla", FLAT | asked | {"source": "web"})
    assert (list(item.messages), item.completions, item.votes[0].tiers, left) == (Q, FRUIT, B, {"source": 1})
    unclear = {"prompt": "Name a fruit", "pear": "Pear", "plum": "Plum", "source": "web", **asked}
    with pytest.raises(rows.BadRow, match="which of pear, plum, source are the answers"):
        read("argilla", unclear)


def test_flattened_argilla_without_external_ids():
    ranking = [{"rank": 1, "value": "response-2"}, {"rank": 2, "value": "response-1"}]
    record = {
        "prompt": "Name a fruit", "response-1": "Pear", "response-2": "Plum", "external_id": None, "metadata": "{}",
        "preference": [{"user_id": "ann", "value": ranking, "status": "submitted"}], "preference-suggestion": None,
        "preference-suggestion-metadata": {"type": None, "score": None, "agent": None},
    }  # fmt: skip
    assert detect.recognise([record], "file").format == "argilla"
    (item,), _ = read("argilla", record)
    assert (list(item.messages), item.completions, item.votes[0].tiers, item.votes[0].annotator) == (Q, FRUIT, B, "ann")


@pytest.mark.parametrize("said", [{"rank": [{"ranker": {"rank": ["b", "a"]}}]}, {"better": [{"selected": "right"}]}])
def test_json_min_puts_lists_around_results(said):
    items = [{"id": "a", "body": "Pear"}, {"id": "b", "body": "Plum"}]
    answers = {"items": items} if "rank" in said else {"answer1": "Pear", "answer2": "Plum"}
    record = {"id": 1, "prompt": "Name a fruit", **answers, **said, "annotation_id": 3, "annotator": 7, "lead_time": 2.0}
    (item,), left = read("labelstudio", record)
    assert (list(item.messages), item.completions, item.votes[0].tiers, left) == (Q, FRUIT, B, {})


# ---- trees of messages


def webui(rating, siblings, *, deeper=False):
    messages = {
        "u": {"id": "u", "parentId": None, "role": "user", "content": "Name a fruit"},
        "a": {"id": "a", "parentId": "u", "role": "assistant", "content": "Pear", "model": "m"},
        "b": {"id": "b", "parentId": "u", "role": "assistant", "content": "Plum", "model": "n"},
        "c": {"id": "c", "parentId": "u", "role": "assistant", "content": "Fig", "model": "o"},
    }
    chat = {"history": {"messages": messages, "currentId": "b"}}
    return {
        "id": "f", "user_id": "ann", "type": "rating", "created_at": 1735689600, "meta": {"message_id": "b", "chat_id": "x"},
        "data": {"rating": rating, "sibling_model_ids": siblings, "reason": "helpful", "comment": "Short.", "details": {"rating": 8}},
        "snapshot": {"chat": {"chat": chat}} if deeper else {"chat": chat},
    }  # fmt: skip


@pytest.mark.parametrize(("rating", "tiers"), [(1, ((1,), (0,))), (-1, ((0,), (1,)))])
def test_open_webui_rates_an_answer_against_its_siblings(rating, tiers):
    record = webui(rating, ["m"], deeper=rating == 1)
    assert detect.recognise([record], "file").format == "open-webui"
    (item,), _ = read("open-webui", record)
    (vote,) = item.votes
    assert (list(item.messages), item.completions, item.models, vote.tiers) == (Q, FRUIT, ("m", "n"), tiers)
    assert (vote.annotator, vote.rationale, vote.aspects) == ("ann", "helpful: Short.", ((1, "rating", 8),))
    assert vote.created_at == "2025-01-01T00:00:00.000+00:00"


@pytest.mark.parametrize("siblings", [None, ["m of another message"]])
def test_open_webui_rating_of_an_answer_alone_is_a_label(siblings):
    (item,), left = read("open-webui", webui(-1, siblings))
    assert (list(item.messages), item.completion, item.good, item.model) == (Q, "Plum", False, "n")
    assert (item.annotator, item.rationale, item.created_at) == ("ann", "helpful: Short.", "2025-01-01T00:00:00.000+00:00")
    assert left["ratings from 1 to 10 of single answers"] == 1


def test_open_webui_names_the_models_of_an_arena_and_what_it_leaves():
    asked, pear, plum, later = (f"{key * 8}-0000-4000-8000-000000000000" for key in "abcd")

    def message(key, parent, role, text, **more):
        return {"id": key, "parentId": parent, "childrenIds": [], "role": role, "content": text, **more}

    history = [
        message(asked, None, "user", "Name a fruit", models=["arena-model"]),
        message(pear, asked, "assistant", "Pear", model="arena-model", arena=True, selectedModelId="m"),
        message(plum, asked, "assistant", "Plum", model="arena-model", arena=True, selectedModelId="n", files=["x"]),
        message(later, plum, "user", "Thanks"),
    ]
    record = webui(1, ["m"]) | {"meta": {"message_id": plum, "arena": True, "chat_id": "x"}}
    messages = {one["id"]: one for one in history}
    record["snapshot"] = {"chat": {"id": "x", "title": "t", "chat": {"history": {"messages": messages}, "params": {"system": "Be brief."}}}}
    (item,), left = read("open-webui", record)
    assert (list(item.messages), item.completions, item.models) == ([system("Be brief."), *Q], FRUIT, ("m", "n"))
    assert item.votes[0].tiers == B
    # Messages stand under their ids; the name of what is left has none of them.
    assert left == {"other messages of the chat": 1, "snapshot.chat.chat.history.messages[].files": 1}


def test_open_assistant_messages_are_trees_again():
    def row(id, parent, role, text, rank=None, tree="t"):
        return {
            "message_id": id,
            "parent_id": parent,
            "role": role,
            "text": text,
            "rank": rank,
            "message_tree_id": tree,
            "synthetic": False,
        }

    records = [
        row("1", None, "prompter", "Name a fruit"), row("2", "1", "assistant", "Pear", 1.0), row("3", "1", "assistant", "Plum", 0.0),
        row("4", "3", "prompter", "Why?"), row("5", "4", "assistant", "It is."), row("6", None, "prompter", "Hi", tree="u"),
    ]  # fmt: skip
    assert detect.recognise(records, "file").format == "oasst-messages"
    (item,), left = read("oasst-messages", *records)
    assert (list(item.messages), item.completions, item.votes[0].tiers, item.models) == (Q, FRUIT, B, ("human", "human"))
    assert left == {"replies without a rank": 1}
    with pytest.raises(rows.BadRow, match="the message 'x' is not there"):
        read("oasst-messages", row("2", "x", "assistant", "Pear", 1), row("3", "x", "assistant", "Plum", 0))
    circle = [row("1", "1", "prompter", "Hi"), row("2", "1", "assistant", "Pear", 1), row("3", "1", "assistant", "Plum", 0)]
    with pytest.raises(rows.BadRow, match="more than 200 turns"):
        read("oasst-messages", *circle)


def test_a_rating_of_nothing_in_open_webui_is_no_vote():
    for rating in (0, "0", None):
        assert read("open-webui", webui(rating, ["m"])) == ([], {"answers without a rating": 1})


def librechat():
    """A chat with an answer that was asked for again: the first one got a thumb down, the second one up."""
    thumb = {"rating": "thumbsDown", "tag": {"key": "not_helpful", "label": "x"}, "text": "Too sour."}
    said = [
        {"messageId": "1", "parentMessageId": "00000000-0000-0000-0000-000000000000", "isCreatedByUser": True, "text": "Name a fruit"},
        {"messageId": "2", "parentMessageId": "1", "isCreatedByUser": False, "text": "Pear", "model": "m", "feedback": thumb},
        {"messageId": "3", "parentMessageId": "1", "isCreatedByUser": False, "text": "", "model": "m", "createdAt": "2025-01-01T00:00:00Z",
         "content": [{"type": "think", "think": "Hm."}, {"type": "text", "text": "Plum"}],
         "feedback": {"rating": "thumbsUp", "tag": "accurate_reliable"}},
        {"messageId": "4", "parentMessageId": "3", "isCreatedByUser": True, "text": "And a tree?"},
        {"messageId": "5", "parentMessageId": "4", "isCreatedByUser": False, "text": "Oak", "sender": "GPT"},
    ]  # fmt: skip
    chat = {"conversationId": "c", "exportAt": "12:00:00", "branches": True, "options": {"promptPrefix": "Be brief."}}
    return chat, said


def test_librechat_thumbs_are_labels():
    chat, said = librechat()
    record = chat | {"recursive": False, "messages": said}
    assert detect.recognise([record], "file").format == "librechat"
    (down, up), left = read("librechat", record)
    assert (list(down.messages), down.completion, down.good, down.model) == ([system("Be brief."), *Q], "Pear", False, "m")
    assert (down.rationale, up.rationale) == ("not_helpful: Too sour.", "accurate_reliable")
    assert (list(up.messages), up.completion, up.good) == ([system("Be brief."), *Q], "Plum", True)
    assert up.created_at == "2025-01-01T00:00:00.000+00:00"
    assert left["answers without a rating"] == 1


def test_librechat_trees_are_read_as_lists_are():
    chat, said = librechat()
    root, first, second, further, last = said
    tree = root | {"children": [first | {"children": []}, second | {"children": [further | {"children": [last]}]}]}
    record = chat | {"recursive": True, "messagesTree": [tree]}
    assert detect.recognise([record], "file").format == "librechat"
    assert sorted(read("librechat", record)[0], key=lambda label: label.good) == read("librechat", chat | {"messages": said})[0]


def test_prism_utterances_of_a_table_have_their_numbers_as_text():
    row = {"utterance_id": "1", "conversation_id": "c", "turn": "0", "user_prompt": "Name a fruit", "model_response": "Pear",
           "model_name": "m", "score": "90", "if_chosen": "True"}  # fmt: skip
    rows = [row, row | {"model_response": "Plum", "model_name": "n", "score": "10", "if_chosen": "False"}]
    further = [said | {"turn": "1", "user_prompt": "And a tree?", "model_response": text, "score": score}
               for said, text, score in ((row, "Fern", "1"), (row, "Oak", "2"))]  # fmt: skip
    first, second = read("prism-utterances", *rows, *further)[0]
    assert (first.completions, first.votes[0].tiers) == (FRUIT, A)
    assert (list(second.messages), second.votes[0].tiers) == ([*Q, assistant("Pear"), user("And a tree?")], B)


def test_prism_ranks_each_turn_and_goes_on_with_the_chosen_answer():
    def answer(turn, text, model, score, chosen=False):
        return {"turn": turn, "role": "model", "content": text, "model_name": model, "score": score, "if_chosen": chosen}

    history = [
        {"turn": 0, "role": "user", "content": "Name a fruit"}, answer(0, "Pear", "m", 20), answer(0, "Plum", "n", 90, True),
        {"turn": 1, "role": "user", "content": "And a tree?"}, answer(1, "Oak", "n", 50, True), answer(1, "Fern", "n", 50),
    ]  # fmt: skip
    record = {
        "conversation_id": "c",
        "user_id": "u",
        "opening_prompt": "Name a fruit",
        "conversation_history": history,
        "open_feedback": "x",
    }
    assert detect.recognise([record], "file").format == "prism"
    (first, second), left = read("prism", record)
    assert (list(first.messages), first.completions, first.votes[0].tiers, first.models) == (Q, FRUIT, B, ("m", "n"))
    assert list(second.messages) == [*Q, assistant("Plum"), user("And a tree?")] and second.votes[0].tiers == TIE
    assert left == {"open_feedback": 1}
    utterances = [
        {"utterance_id": str(n), "conversation_id": "c", "user_id": "u", "turn": one["turn"], "model_response": one["content"],
         "user_prompt": ["Name a fruit", "And a tree?"][one["turn"]], "model_name": one["model_name"], "score": one["score"],
         "if_chosen": one["if_chosen"]}
        for n, one in enumerate(history) if one["role"] == "model"
    ]  # fmt: skip
    assert detect.recognise(utterances, "file").format == "prism-utterances"
    assert [(item.messages, item.completions, item.votes) for item in read("prism-utterances", *utterances)[0]] == [
        (item.messages, item.completions, item.votes) for item in (first, second)
    ]


# ---- recognising


@pytest.mark.parametrize(
    ("record", "format"),
    [
        ({"prompt": "Name a fruit"}, "prompts"),
        ({"instruction": "Name a fruit", "input": "", "output": "Pear"}, "prompts"),
        ({"question_id": 1, "category": "writing", "turns": ["Name a fruit", "And another"]}, "prompts"),
        ({"question_id": 1, "text": "Name a fruit", "category": "generic"}, "prompts"),
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"}, "hh-rlhf"),
        ({"prompt": {"text": "Hi", "role": "prompter", "replies": []}, "message_tree_id": "1"}, "oasst"),
        ({"instruction": "Hi", "completions": [{"response": "a"}]}, "ultrafeedback"),
        ({"context": [user("Hi")], "response1": "a", "response2": "b", "overall_preference": 1}, "helpsteer3"),
        ({"fields": {"prompt": "Hi"}, "responses": {}}, "argilla"),
        ({"prompt": "Hi", "a": "x", "b": "y", "better.responses": ["a"], "better.responses.users": ["u"]}, "argilla"),
        ({"data": {"prompt": "Hi"}, "annotations": []}, "labelstudio"),
        ({"prompt": "Hi", "answer1": "a", "answer2": "b", "better": "Answer 1", "annotation_id": 1, "annotator": 2}, "labelstudio"),
        ({"conversation_a": [user("Hi")], "conversation_b": [user("Hi")], "winner": "tie"}, "arena"),
        ({"prompt": "Hi", "completions": ["a", "b"], "choice": 0}, "plain"),
        ({"messages": '[{"role":"user","content":"Hi"}]', "completions": '["a","b"]', "tiers": "[[0],[1]]"}, "plain"),
    ],
)
def test_each_format_is_recognised(record, format):
    assert detect.recognise([record] * 3, "file").format == format


def test_the_evidence_of_a_recognition_is_reported():
    found = detect.recognise([{"prompt": "a", "chosen": "b", "rejected": "c"}] * 9 + [{"x": 1}, rows.BadRow("not JSON")], "file")
    assert found == detect.Recognised("trl", "by its fields prompt, chosen, rejected, in 9 of 10 rows")


@pytest.mark.parametrize(
    ("record", "likely"),
    [
        ({"question": "Name a fruit", "better": "Pear", "worse": "Plum"}, "Its fields: question, better, worse. Nearest: "),
        ({"chosen": "The capital is Riga", "rejected": "The capital is Vilnius"}, r"Nearest: trl \(lacks prompt\)"),
        ({"prompt": "Name a fruit", "good_answer": "Pear", "bad_answer": "Plum"}, r"prompts \(knows nothing of good_answer, bad_answer\)"),
        ({"prompt": "Name a fruit", "votes": 3}, "knows nothing of votes"),
        ({"prompt": "Name a fruit", "x1": "Pear", "x2": "Plum", "who": "x2"}, "knows nothing of who"),
        ({"instruction": "When?", "context": "In May.", "response": "May"}, r"prompts \(knows nothing of context\)"),
        ({"question": "Name a fruit", "good": "Pear", "bad": "Plum"}, "knows nothing of good, bad"),
        ({"prompt": "Name a fruit", "output": "Pear", "score": 3}, r"prompts \(knows nothing of output, score\)"),
        ({"a\x1b": 1}, "Its fields: a\N{REPLACEMENT CHARACTER}. Say --format NAME"),
    ],
)
def test_what_is_not_recognised_is_refused_with_the_likely_formats(record, likely):
    with pytest.raises(detect.Unrecognised, match=likely):
        detect.recognise([record], "file")


@pytest.mark.parametrize(
    "beside",
    [
        {"difficulty": 3, "author": "bo"},
        {"instruction_id_list": ["no_comma"], "kwargs": [{}]},
        {"answer": "72"},
        {"quality_score": 4},
        {"output": "", "meta": {"winner": 1}},
        {"response": "Pear", "model": "m"},
    ],
)
def test_a_file_of_prompts_may_have_fields_of_its_own(beside):
    assert detect.recognise([{"prompt": "Name a fruit", **beside}], "file").format == "prompts"


def test_rows_of_several_formats_are_read_by_the_one_of_more_than_half():
    pair, prompt = {"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a"}
    found = detect.recognise([prompt] * 3 + [pair] * 2, "file")
    assert found == detect.Recognised("prompts", "by its fields prompt, in 3 of 5 rows")
    assert detect.recognise([prompt] * 2 + [pair] * 3, "file") == detect.Recognised(
        "trl", "by its fields prompt, chosen, rejected, in 3 of 5 rows"
    )
    with pytest.raises(detect.Unrecognised):
        detect.recognise([prompt] * 2 + [pair] * 2, "file")


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("pairwise-numbered", (1, 0)), ("pairwise-numbered", (-1, 0, 1)), ("pairwise-numbered", ("1.0", "0.5")),
        ("pairwise-numbered", (1, 2, 4)), ("alpacaeval", (0, 1)), ("alpacaeval", (-1, 1)), ("llmbar", (0, 1)),
    ],
)  # fmt: skip
def test_numbers_that_may_mean_either_answer_are_refused_with_the_map_that_says_which(name, numbers):
    row = ROWS[name][0][0]
    verdict = next(path for path in FORMATS[name].fields.winner if path in row)
    with pytest.raises(detect.Unrecognised, match=rf"{verdict} has the numbers .*, which may .*winner={verdict},first=NUMBER") as refused:
        detect.recognise([row | {verdict: number} for number in numbers], "file")
    assert "+".join(name for name in row if name.endswith(("_1", "_2"))) in str(refused.value) or name == "alpacaeval"


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("pairwise-numbered", (1, 2)), ("pairwise-numbered", (1, "tie")), ("alpacaeval", (0, 1, 2)), ("alpacaeval", (1.2, 1.9))],
)
def test_numbers_that_can_mean_one_thing_are_read(name, numbers):
    row = ROWS[name][0][0]
    verdict = next(path for path in FORMATS[name].fields.winner if path in row)
    assert detect.recognise([row | {verdict: number} for number in numbers], "file").format == name


def test_a_file_that_is_mostly_not_judged_yet_is_recognised_by_the_rows_that_are(store):
    row = {"prompt": "Name a fruit", "response_1": "Pear", "response_2": "Plum"}
    found = detect.recognise([row | {"winner": 1}, *[row | {"prompt": f"Q{n}", "winner": None} for n in range(3)], row], "file")
    assert found == detect.Recognised("pairwise-numbered", "by its fields response_1, response_2, winner, in 5 of 5 rows")
    with pytest.raises(detect.Unrecognised):
        detect.recognise([row], "file")


def test_a_verdict_under_an_unknown_name_is_not_left_behind():
    with pytest.raises(detect.Unrecognised, match=r"plain \(knows nothing of best\)"):
        detect.recognise([{"prompt": "a", "completions": ["x", "y"], "best": 1}], "file")
    assert detect.recognise([{"prompt": "a", "completions": ["x", "y"], "best": 1, "choice": 1}], "file").format == "plain"
    with pytest.raises(detect.Unrecognised, match=r"prompts \(knows nothing of answers\)"):
        detect.recognise([{"question": "a", "answers": [{"text": "x", "score": 1}, {"text": "y", "score": 2}]}], "file")


def test_ratings_that_are_no_numbers_are_wrong_rows():
    row = {"instruction": "Name a fruit", "generations": ["Pear", "Plum", "Fig"]}
    with pytest.raises(rows.BadRow, match="ratings must hold numbers, not '4/5'"):
        read("distilabel", row | {"ratings": ["4/5", "3/5", "1/5"]})
    (item,), _ = read("distilabel", row | {"ratings": ["4.5", "N/A", 3]})
    assert item.votes[0].tiers == ((0,), (2,))


def test_rows_about_images_are_wrong_rows():
    with pytest.raises(rows.BadRow, match="only text can be imported, not images"):
        read("trl", {"prompt": "<image>What?", "chosen": "x", "rejected": "y", "images": ["a.png"]})


def test_a_file_of_two_kinds_of_rows_is_refused():
    with pytest.raises(detect.Unrecognised, match="trl .in too few rows"):
        detect.recognise([{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "completions": ["x", "y"], "choice": 0}], "file")
    with pytest.raises(detect.Unrecognised, match="no row that can be read"):
        detect.recognise([rows.BadRow("not JSON")], "file")


# ---- nothing is left behind in silence


def test_an_import_names_what_it_leaves_and_strict_refuses_it(store):
    pairs = [{"prompt": f"Q{n}", "chosen": "a", "rejected": "b", "margin": 2, "meta": {"x": 1}, "id": n, "note": ""} for n in range(3)]
    with pytest.raises(StoreError, match=r"not kept would be margin \(3\), meta \(3\): nothing imported \(--strict\)"):
        imports.import_rows(store, pairs, "trl", strict=True)
    assert store.value("SELECT count(*) FROM imports") == 0
    import_id, report = imports.import_rows(store, pairs, "trl")
    assert report.left == {"margin": 3, "meta": 3} and report.numbering == {"id": 3}
    assert import_records.get(store, import_id).report.left == report.left
    plain = [{"prompt": "Q", "chosen": "a", "rejected": "b", "id": 1, "Unnamed: 0": 0, "": 0}]
    assert imports.import_rows(store, plain, "trl", strict=True)[1].judgments == 1


def test_fields_in_objects_and_lists_are_named_by_their_path():
    record = Tracked({"a": {"b": 1, "c": 2}, "d": [{"e": 1, "f": None}, {"e": 2, "g": 3}], "h": "", "i": [], "j": [[{"k": 1}]]})
    assert set(record.unread()) == {"a", "d", "j"}
    assert (record["a"]["b"], [item["e"] for item in record["d"]], record.get("j")[0]) == (1, [1, 2], [{"k": 1}])
    assert set(record.unread()) == {"a.c", "d[].g", "j[][].k"}


def test_the_names_of_a_count_are_bounded_and_printable(store):
    pairs = [{"prompt": f"Q{n}", "chosen": "a", "rejected": "b", f"x\x1b{n}{'y' * 200}": 1} for n in range(MAX_FIELD_NAMES + 50)]
    left = imports.import_rows(store, pairs, "trl")[1].left
    assert len(left) == MAX_FIELD_NAMES + 1 and left[OTHER_FIELDS] == 50
    assert all(name.isprintable() and len(name) <= 80 for name in left)


# ---- maps of one's own


def test_a_map_reads_an_unknown_format(store):
    row = {"meta": {"ask": "Name a fruit"}, "better": "Pear", "worse": "Plum", "who": "Ann", "rest": 1}
    fields = maps.parse("prompt=meta.ask, chosen=better, rejected=worse, annotator=who")
    _, report = imports.import_rows(store, [row], "map", mapping=fields)
    assert (report.judgments, report.left) == (1, {"rest": 1})
    assert store.value("SELECT messages FROM prompts") == '[{"role":"user","content":"Name a fruit"}]'
    assert store.value("SELECT name FROM annotators WHERE judged > 0") == "Ann"


@pytest.mark.parametrize(
    ("text", "row", "tiers"),
    [
        ("prompt=q,completions=x+y,winner=w,first=1,second=2,tie=0", {"w": 2}, [B]),
        ("prompt=q,completions=x+y,winner=w,first=1,second=2,tie=0", {"w": "0"}, [TIE]),
        ("prompt=q,completions=x+y,winner=w", {"w": "B"}, [B]),
        ("prompt=q,completions=x+y,winner=w,models=m+n", {"w": "heron", "m": "swift", "n": "heron"}, [B]),
        ("prompt=q,completions=x+y,scores=s+t", {"s": 1, "t": 1}, [TIE]),
        ("prompt=q,completions=l[].t,ranks=l[].r", {"l": [{"t": "Pear", "r": 2}, {"t": "Plum", "r": 1}]}, [B]),
        ("prompt=q,completions=x+y,flags=l+r+e", {"l": False, "r": True}, [B]),
        ("prompt=q,completions=x+y,winner=w", {"w": "y"}, [B]),
        ("prompt=q,chosen=A+,rejected=A-", {"A+": "Plum", "A-": "Pear"}, [B]),
    ],
)
def test_maps_of_each_kind_of_verdict(store, text, row, tiers):
    row = {"q": "Name a fruit", "x": "Pear", "y": "Plum"} | row
    imports.import_rows(store, [row], "map", mapping=maps.parse(text))
    found = [json.loads(tiers) for (tiers,) in store.rows("SELECT tiers FROM judgments")]
    names = {id: text for id, text in store.rows("SELECT id, text FROM completions")}
    assert [[[names[item] for item in tier] for tier in ranking] for ranking in found] == [
        [[FRUIT[i] for i in tier] for tier in ranking] for ranking in tiers
    ]


def test_a_map_of_the_prompt_alone_reads_prompts(store):
    row = {"ask": "Name a fruit", "with": "In one word.", "sys": "Be brief.", "topic": "food", "x": 1}
    _, report = imports.import_rows(store, [row, {"x": 2}], "map", mapping=maps.parse("prompt=ask+with,system=sys,kind=topic"))
    assert (report.prompts, report.judgments, report.left) == (1, 0, {"x": 1})
    assert report.wrong_rows == [(2, "needs ask+with")]
    kind, turns = store.row("SELECT kind, messages FROM prompts")
    assert kind == "food" and json.loads(turns) == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a fruit\nIn one word."},
    ]  # fmt: skip


def test_a_row_with_votes_among_prompts_is_wrong_unless_prompts_were_asked_for(store, tmp_path):
    path = tmp_path / "mixed.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b", "note": 1}\n{"prompt": "c", "chosen": "x", "rejected": "y"}\n', encoding="utf-8")
    assert imports.look(store, path, "prompts", recognised=True).wrong == 1
    _, report = imports.import_file(store, path, "prompts", recognised=True)
    assert (report.prompts, report.wrong, report.left) == (2, 1, {"note": 1})
    assert report.wrong_rows[0][0] == 3 and "votes or more of the prompt in chosen, rejected" in report.wrong_rows[0][1]
    undos.undo(store, 1)
    _, report = imports.import_file(store, path, "prompts")
    assert (report.prompts, report.wrong, report.left) == (3, 0, {"note": 1, "chosen": 1, "rejected": 1})


def test_numbers_of_a_winner_are_not_guessed(store):
    row = {"q": "Name a fruit", "x": "Pear", "y": "Plum", "w": 1}
    _, report = imports.import_rows(store, [row], "map", mapping=maps.parse("prompt=q,completions=x+y,winner=w"))
    assert report.judgments == 0 and "which is no model's name and none of a, b" in report.wrong_rows[0][1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("prompt", "'prompt' is not NAME=FIELD"),
        ("prompt=a, b", "' b' is not NAME=FIELD; fields with a comma go into a TOML file"),
        ("prompt=a,prompt=b", r"prompt stands twice; join fields by \+"),
        ("prompt=a,foo=b", "knows no foo"),
        ("prompt=a,chosen=b", "needs both chosen and rejected"),
        ("kind=a", "needs the prompt, or the answers"),
        ("prompt=a,winner=b", "has winner and no answers"),
        ("prompt=a,completions=b+c", "needs the verdict"),
        ("chosen=a,rejected=b,completions=c", "not both"),
        ("prompt=a,completions=b+c,winner=d,sides=maybe", "sides= is known or unknown"),
    ],
)
def test_invalid_maps_are_refused(text, reason):
    with pytest.raises(StoreError, match=reason):
        maps.parse(text)


def test_a_map_is_saved_and_found_by_its_name(tmp_path):
    text = 'prompt=a "b" \\c,completions=x+y,winner=w,first=1,second=2'
    maps.save(text, tmp_path, "ours")
    assert maps.load("ours", tmp_path) == maps.load(str(tmp_path / "maps" / "ours.toml"), tmp_path) == maps.parse(text)
    assert maps.names(tmp_path) == ["ours"]
    with pytest.raises(StoreError, match="There is no map 'theirs' .*saved are ours"):
        maps.load("theirs", tmp_path)
    with pytest.raises(StoreError, match="cannot be a map's name"):
        maps.save(text, tmp_path, "../x")


def test_an_empty_answer_is_an_answer_and_a_missing_one_is_wrong(store):
    pair = {"prompt": "Name a fruit", "chosen": "Pear", "rejected": ""}
    _, report = imports.import_rows(store, [pair, pair | {"chosen": ""}, {"prompt": "Q", "chosen": "a"}], "trl")
    assert (report.judgments, report.left) == (1, {})
    assert [reason for _, reason in report.wrong_rows] == [
        "chosen and rejected are the same: there is nothing to compare",
        "needs rejected or rejected_response or non_preferred_output or rejected_messages",
    ]
    worst = "SELECT k.text FROM judgments j JOIN completions k ON k.id = json_extract(j.tiers, '$[1][0]')"
    assert store.value(worst) == ""


@pytest.mark.parametrize("time", [
    "2024-01-02 03:04:05 UTC", "2024-01-02T03:04:05 GMT", "2024-01-02 05:04:05 +0200", "2024-01-02 03:04:05 +0000 UTC",
    "2024/01/02 03:04:05", "Tue, 02 Jan 2024 03:04:05 GMT", "1704164645", 1704164645000,
])  # fmt: skip
def test_times_of_other_programs(time):
    assert rows.timestamp(time) == "2024-01-02T03:04:05.000+00:00"


@pytest.mark.parametrize("time", ["02/01/2024", "1.2.2024", "yesterday", "0000-00-00", "2024-13-01", "12"])
def test_times_that_may_mean_several_things_are_refused(time):
    with pytest.raises(rows.BadRow, match="not a time"):
        rows.timestamp(time)


def test_models_beside_the_answers_of_ultrafeedback():
    answers = [{"response": "Pear", "overall_score": 9}, {"response": "Plum", "overall_score": 2}]
    row = {"instruction": "Name a fruit", "completions": answers, "models": ["swift", "heron"]}
    ((found,), left) = read("ultrafeedback", row)
    assert (found.models, left) == (("swift", "heron"), {})
    ((found,), left) = read("ultrafeedback", row | {"completions": [one | {"model": "m"} for one in answers]})
    assert (found.models, left) == (("m", "m"), {})
    ((found,), left) = read("ultrafeedback", row | {"models": ["swift"]})
    assert found.models == (None, None)
