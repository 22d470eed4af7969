"""The text of an answer while it is sampled: nothing that may still change is returned, and nothing is lost."""

import random

import pytest
from tiny import tokenizer

from rlhf.generation.protocol.text_stream import Piece, TextStream, token_bytes
from rlhf.models.reasoning import ReasoningMarks

TINY = tokenizer()


def decode(ids):
    return TINY.decode(ids, skip_special_tokens=True)


def ids_of(text):
    return TINY.encode(text, add_special_tokens=False)


def pieces(ids, stops=(), reasoning=None):
    stream = TextStream(decode, stops, reasoning)
    return [*(stream.add(token).text for token in ids), stream.finish().text], stream


def test_a_character_is_returned_with_its_last_byte():
    # A byte is a token: the robot has four, the e with its accent two.
    assert pieces(ids_of("a\N{ROBOT FACE}é"))[0] == ["a", "", "", "", "\N{ROBOT FACE}", "", "é", ""]


def test_bytes_that_are_no_character_are_returned_at_the_end():
    assert pieces(ids_of("a\N{ROBOT FACE}")[:3])[0] == ["a", "", "", "\N{REPLACEMENT CHARACTER}"]


def test_any_bytes_are_decoded_as_at_once():
    rng = random.Random(3)
    for _ in range(200):
        ids = [rng.randrange(256) for _ in range(rng.randrange(1, 40))]
        found, _ = pieces(ids)
        assert "".join(found) == decode(ids)


@pytest.mark.parametrize(
    "text, stops, returned",
    [
        ("one STOP two", ["STOP"], ["o", "n", "e", " "] + [""] * 9),
        # Held back while it may be the stop, and returned when it is not.
        ("STAR", ["STOP"], ["", "", "STA", "R", ""]),
        # The rest comes at the end.
        ("xST", ["STOP"], ["x", "", "", "ST"]),
        # The first one in the text ends it, not the first in the list.
        ("ab", ["b", "a"], ["", "", ""]),
        ("aab", ["ab"], ["", "a", "", ""]),
        ("x\n\ny", ["\n\n"], ["x", "", "", "", ""]),
    ],
)
def test_a_stop_text_is_cut_out_and_ends_the_answer(text, stops, returned):
    found, stream = pieces(ids_of(text), stops)
    assert found == returned
    assert stream.stopped == any(stop in text for stop in stops)


def test_a_stop_text_inside_one_token_is_found():
    stream = TextStream(lambda ids: "".join({0: "Hello wor", 1: "ld STOP more"}[one] for one in ids), ["STOP"])
    assert (stream.add(0).text, stream.add(1).text, stream.stopped) == ("Hello wor", "ld ", True)
    assert stream.add(0) == stream.finish() == Piece()


def test_whatever_is_returned_is_never_taken_back():
    rng = random.Random(5)
    for _ in range(300):
        text, stops = "".join(rng.choices("abé", k=20)), ["".join(rng.choices("abé", k=rng.randrange(1, 4))) for _ in range(3)]
        # The first to be complete ends the answer, also where another would begin earlier.
        complete = next((text[:k] for k in range(len(text) + 1) if any(stop in text[:k] for stop in stops)), text)
        ends = min((at for stop in stops if (at := complete.find(stop)) >= 0), default=len(text))
        assert "".join(pieces(ids_of(text), stops)[0]) == text[:ends]


THINK, ENDTHINK = 300, 301
MARKS = ReasoningMarks(THINK, ENDTHINK, opened=False)


@pytest.mark.parametrize(
    "ids, marks, text, tokens",
    [
        ([THINK, *b"hm", ENDTHINK, *b"\n\nyes"], MARKS, "yes", 4),
        ([*b"hm", ENDTHINK, *b"yes"], MARKS._replace(opened=True), "yes", 3),
        ([*b"hm"], MARKS._replace(opened=True), "", 2),
        ([THINK, *b"hm"], MARKS, "", 3),
        ([*b" yes"], MARKS, " yes", 0),
        ([THINK, ENDTHINK, *b"yes", THINK, *b"hm", ENDTHINK, *b"no"], MARKS, "yesno", 6),
    ],
)
def test_reasoning_is_no_part_of_the_answer_and_is_counted(ids, marks, text, tokens):
    stream = TextStream(lambda some: bytes(some).decode(), ["hm"], marks)
    assert "".join([*(stream.add(one).text for one in ids), stream.finish().text]) == text
    assert stream.reasoning_tokens == tokens


def test_each_token_comes_with_the_text_in_which_its_own_begins():
    stream = TextStream(decode, ["ST"])
    found = [stream.add(token, number) for number, token in enumerate(ids_of("aéSxST!"))]
    assert [(piece.text, piece.notes) for piece in found] == [
        ("a", [0]), ("", []), ("é", [1, 2]), ("", []), ("Sx", [3, 4]), ("", []), ("", []), ("", []),
    ]  # fmt: skip
    assert stream.finish().notes == [], "those of the stop text are no part of the answer"


def test_the_bytes_of_a_token():
    robot = ids_of("\N{ROBOT FACE}")
    assert b"".join(token_bytes(TINY, token) for token in robot) == "\N{ROBOT FACE}".encode()
    assert [len(token_bytes(TINY, token)) for token in robot] == [1, 1, 1, 1]
    assert token_bytes(TINY, ids_of("a")[0]) == b"a" and token_bytes(TINY, ids_of(" ")[0]) == b" "
    assert token_bytes(TINY, TINY.eos_token_id) == b"<|end|>" and token_bytes(TINY, 10**6) == b""
