"""JSON columns of a store that may come from elsewhere: what cannot be read is named, and the other rows are read."""

import logging

import pytest

from storage.core import json_columns
from storage.core.json_columns import Unreadable
from storage.core.records import Sampling


def test_valid_columns_are_read():
    assert json_columns.ids("[3, 1, 2]", "x") == (3, 1, 2)
    assert json_columns.id_lists("[[3], [1, 2]]", "x") == ((3,), (1, 2))
    assert json_columns.sampling('{"temperature": 1, "max_new_tokens": 48}', "x") == Sampling(temperature=1, max_new_tokens=48)


@pytest.mark.parametrize(
    ("read", "encoded"),
    [
        (json_columns.ids, "[1, true]"),
        (json_columns.ids, '["1"]'),
        (json_columns.ids, "{}"),
        (json_columns.ids, "[1"),
        (json_columns.ids, None),
        (json_columns.ids, "[" * 100_000),
        (json_columns.id_lists, "[1, 2]"),
        (json_columns.id_lists, "[[]]"),
        (json_columns.id_lists, "[[1.0]]"),
        (json_columns.sampling, "[]"),
        (json_columns.sampling, '{"temperature": "hot"}'),
        (json_columns.sampling, '{"max_new_tokens": 1.5}'),
        (json_columns.sampling, '{"beams": 4}'),
    ],
)
def test_invalid_columns_are_named_by_row_and_column(read, encoded):
    with pytest.raises(Unreadable, match=r"^The order of presentation 7 cannot be read: "):
        read(encoded, "The order of presentation 7")


def test_rows_that_cannot_be_read_are_logged_and_left_out(caplog):
    with caplog.at_level(logging.WARNING):
        found = list(json_columns.readable(["[1]", "no", "[2]"], lambda row: json_columns.ids(row, "A row")))
    assert found == [(1,), (2,)] and caplog.text.count("left out: A row cannot be read") == 1


def test_invalid_rows_are_counted_by_column(world):
    world.comparisons(2)
    with world.store.atomic() as opened:
        assert json_columns.unreadable(opened.conn) == []
