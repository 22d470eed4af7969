"""Fields that may hold votes are seen by their names and values."""

import pytest

from storage.exchange import unread


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"good_answer": "Pear", "badAnswer": "Plum"}, ["good_answer", "badAnswer"]),
        ({"x1": "Pear", "x2": "Plum", "who": "x2"}, ["who"]),
        ({"answers": [{"text": "Pear"}, {"text": "Plum"}]}, ["answers"]),
        ({"answers": ["Pear", "a pear"]}, []),
        ({"output": "Pear", "score": 3}, ["output", "score"]),
        ({"score": 3}, []),
        ({"output": "Pear"}, []),
        ({"votes": 3}, ["votes"]),
        ({"answers": {"text": ["Pear", "Plum"], "score": [5, 3]}}, ["answers"]),
        ({"answers": {"text": ["Pear", "a pear"], "answer_start": [0, 0]}}, []),
        ({"output": ["Pear", "Plum"]}, ["output"]),
        ({"output": ["Pear"]}, []),
        ({"pos": "Pear", "neg": "Plum"}, ["pos", "neg"]),
        ({"y_w": "Pear", "y_l": "Plum"}, ["y_w", "y_l"]),
        ({"accepted": "Pear", "reject": "Plum"}, ["accepted", "reject"]),
        ({"chosen": None, "rejected": "", "answers": []}, []),
    ],
)
def test_votes_are_answers_with_a_verdict(row, found):
    assert unread.votes({"prompt": "Name a fruit", **row}, {"prompt"}) == found


def test_verdicts_and_parts():
    row = {"prompt": "q", "completions": ["x", "y"], "ranks": [1, 2], "best": 0, "context": "c", "note": 1}
    assert unread.verdicts(row, {"prompt", "completions"}) == ["ranks", "best"]
    assert unread.parts(row, {"prompt", "completions"}) == ["context"]
    assert unread.parts(row | {"context": ""}, {"prompt"}) == [] and unread.verdicts({"best": None}, ()) == []
