"""Untrusted JSON: its size is bounded before it is decoded, repeated keys are refused, and NaN is read as null."""

import pytest

from storage.exchange.limits import MAX_JSON_DEPTH, Limits
from storage.exchange.rows import BadRow
from storage.exchange.strict_json import TOO_DEEP, decode, decode_at, too_large

SMALL = Limits(row_bytes=1_000)
"""A thousand values, the fewest there are."""


def why(found) -> str:
    """The reason why a value is no row."""
    assert isinstance(found, BadRow), found
    return str(found)


def test_what_is_small_is_decoded():
    assert decode('{"a": [1, NaN, "x,[{"], "b": -Infinity}') == {"a": [1, None, "x,[{"], "b": None}


def test_a_key_stands_once_in_each_object():
    assert decode('{"a": {"b": 1}, "b": 2}') == {"a": {"b": 1}, "b": 2}
    assert why(decode('[{"a": 1, "a": 2}]')) == "the key 'a' stands twice in one object"


def test_what_is_no_json_is_an_error():
    for text in ("", "{", "[1,]", "'a'"):
        with pytest.raises(ValueError):
            decode(text)


def test_values_are_counted_outside_of_strings():
    # A list is a value, and each comma begins another.
    assert too_large("[" + "0," * 999 + "0]", 0, 2_001, SMALL) is None
    found = decode("[" + "0," * 1_000 + "0]", SMALL)
    assert why(found) == "more than 1,000 values in one row: import with a larger --max-row-mib if it is right"
    assert decode('["' + "," * 5_000 + r"\"" + "[" * 600 + '"]', SMALL) == ["," * 5_000 + '"' + "[" * 600]


def test_depth_has_a_limit():
    assert decode("[" * MAX_JSON_DEPTH + "]" * MAX_JSON_DEPTH) is not None
    assert why(decode("[" * (MAX_JSON_DEPTH + 1) + "]" * (MAX_JSON_DEPTH + 1))) == TOO_DEEP


def test_the_first_of_several_values_is_decoded_with_its_end():
    assert decode_at('x [1, {"a": 2}] [', 2) == ([1, {"a": 2}], 15)
    found, end = decode_at('{"a": 1, "a": 2},', 0)
    assert why(found) == "the key 'a' stands twice in one object" and end == 16
    assert too_large("[1] " + "[" * 600, 0, 604, SMALL) is None, "what follows the value is not its size"
