"""The order in which one annotator sees the completions of a comparison."""

import random

import pytest

from storage.content import comparisons
from storage.core.database import StoreError
from storage.judging import presentations


def test_the_shuffled_order_is_stored(world):
    comparison = comparisons.get(world.store, world.comparison(4))
    shown = presentations.record(world.store, comparison, world.ann.id, random.Random(1))
    assert sorted(shown.order) == sorted(completion.id for completion in comparison.completions)
    assert presentations.get(world.store, shown.id) == presentations.existing(world.store, shown.id) == shown
    assert shown.purpose == "vote" and shown.guidelines_id is None


def test_a_repeat_has_the_slots_in_reverse(world):
    comparison = comparisons.get(world.store, world.comparison(3))
    shown = presentations.record(world.store, comparison, world.ann.id, random.Random(1))
    again = presentations.repeat(world.store, shown)
    assert again.order == shown.order[::-1] and again.purpose == "repeat" and again.annotator_id == world.ann.id
    assert presentations.get(world.store, again.id) == again


def test_one_that_is_not_there(world):
    assert presentations.get(world.store, 99) is None
    with pytest.raises(StoreError, match="There is no presentation 99 in .*: reload the page"):
        presentations.existing(world.store, 99)
