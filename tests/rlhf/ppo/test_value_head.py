"""What the value head reads, and the fit that it may start from, by hand."""

import torch
from torch.testing import assert_close

from rlhf.ppo.value_head import ValueHead, linear_fit


def test_what_the_value_head_reads_by_hand():
    # Two positions of at most four: 1 then 3, and of the other row 2 then 0.
    inputs = ValueHead(1, 4).inputs(torch.tensor([[[1.0], [3.0]], [[2.0], [0.0]]]))
    assert_close(inputs[0], torch.tensor([[1.0, 1.0, 0.25, 0.25], [3.0, 2.0, 1.0, 0.5]]))
    assert_close(inputs[1], torch.tensor([[2.0, 2.0, 0.5, 0.25], [0.0, 1.0, 0.5, 0.5]]))


def test_the_linear_fit_by_hand():
    # Inputs -1 and 1 once standardised; without a penalty the line through both points, with 1 half its slope.
    inputs, targets = torch.tensor([[0.0, 7.0], [2.0, 7.0]]), torch.tensor([1.0, 5.0])
    weight, bias = linear_fit(inputs, targets, l2=1e-9)
    assert_close(weight, torch.tensor([2.0, 0.0]))
    assert_close(bias, torch.tensor(1.0))
    weight, bias = linear_fit(inputs, targets, l2=1.0)
    assert_close(weight, torch.tensor([1.0, 0.0]))
    # The targets' mean stays where it is.
    assert_close(bias, torch.tensor(2.0))
