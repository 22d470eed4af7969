"""Rows of different lengths in one cache: where they are written, what they see, and how they are moved."""

import pytest
import tiny
import torch
from torch.testing import assert_close

from rlhf.models.kv_cache import COLUMNS, FULL, SLIDING, SlotCache, has_slots


@pytest.fixture
def slots():
    return SlotCache(tiny.model(300))


def states(rows, tokens, value):
    return torch.full((rows, 2, tokens, 8), float(value))


def test_each_row_is_written_where_it_ends(slots):
    slots.begin(torch.tensor([0, 0]), 3, width=3)
    slots.layers[0].update(states(2, 3, 1), states(2, 3, -1))
    # The first row goes on at column 3, the second overwrites its third column, which was padding.
    slots.begin(torch.tensor([3, 2]), 1, width=4)
    keys, values = slots.layers[0].update(states(2, 1, 5), states(2, 1, -5))
    assert keys[:, 0, :, 0].tolist() == [[1, 1, 1, 5], [1, 1, 5, 0]]
    assert_close(values, -keys)


def test_each_token_sees_the_columns_up_to_its_own(slots):
    slots.begin(torch.tensor([0, 2]), 2, width=4)
    mask = slots.mask()
    assert mask.shape == (2, 1, 2, 4)
    assert mask[:, 0].int().tolist() == [[[1, 0, 0, 0], [1, 1, 0, 0]], [[1, 1, 1, 0], [1, 1, 1, 1]]]


def test_a_window_hides_what_lies_before_it(monkeypatch):
    import architectures

    fields = {**architectures.ARCHITECTURES["gemma3_text"], "sliding_window": 2, "layer_types": ["sliding_attention", "full_attention"]}
    monkeypatch.setitem(architectures.ARCHITECTURES, "gemma3_text", fields)
    model = architectures.model("gemma3_text")
    assert has_slots(model.config)
    both = SlotCache(model)
    both.begin(torch.tensor([3]), 1, width=4)
    masks = both.mask()
    assert masks[FULL].int().flatten().tolist() == [1, 1, 1, 1] and masks[SLIDING].int().flatten().tolist() == [0, 0, 1, 1]


def test_memory_grows_and_keeps_what_it_has(slots):
    slots.begin(torch.tensor([0]), 2, width=2)
    slots.layers[0].update(states(1, 2, 3), states(1, 2, 4))
    slots.begin(torch.tensor([2, 0, 0]), COLUMNS, width=COLUMNS + 2)
    keys, _ = slots.layers[0].update(states(3, COLUMNS, 7), states(3, COLUMNS, 8))
    assert keys.shape == (3, 2, COLUMNS + 2, 8) and slots.columns % COLUMNS == 0
    assert keys[0, 0, :3, 0].tolist() == [3, 3, 7]


def test_a_row_is_copied_with_its_columns_alone(slots):
    other = SlotCache(tiny.model(300))
    for cache, value in ((slots, 1), (other, 9)):
        cache.begin(torch.tensor([0, 0]), 3, width=3)
        for layer in cache.layers:
            layer.update(states(2, 3, value), states(2, 3, value))
    slots.copy_from(other, 1, 0, 2)
    slots.copy_from(other, 0, 4, 3)
    assert slots.layers[1].keys[[0, 1, 4], 0, :3, 0].tolist() == [[9, 9, 1], [1, 1, 1], [9, 9, 9]]


def test_rows_are_copied_together_and_what_stood_there_is_gone(slots):
    other = SlotCache(tiny.model(300))
    for cache, value in ((slots, 1), (other, 9)):
        cache.begin(torch.tensor([0, 0, 0]), 3, width=3)
        for layer in cache.layers:
            layer.update(states(3, 3, value), states(3, 3, value))
    slots.copy_rows(other, [2, 0], [1, 4], 2)
    for layer in slots.layers:
        assert layer.keys[[0, 1, 2, 4], 0, :3, 0].tolist() == [[1, 1, 1], [9, 9, 0], [1, 1, 1], [9, 9, 0]]
        assert torch.equal(layer.keys, layer.values)
    slots.copy_rows(slots, [4], [0], 3)
    assert slots.layers[0].keys[[0, 4], 0, :3, 0].tolist() == [[9, 9, 0], [9, 9, 0]]
