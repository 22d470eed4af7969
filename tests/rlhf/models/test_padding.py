"""Rows of different lengths as one batch."""

import torch

from rlhf.models.padding import pad_left, pad_right, positions


def test_positions_count_real_tokens_only():
    assert positions(torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2]]


def test_pads_are_where_they_are_said_to_be():
    ids, mask = pad_left([[1, 2, 3], [4]], 9)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]] and mask.long().tolist() == [[1, 1, 1], [0, 0, 1]]
    ids, mask = pad_right([[1, 2, 3], [4]], 9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]] and mask.long().tolist() == [[1, 1, 1], [1, 0, 0]]
