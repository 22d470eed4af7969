"""Shapes in annotations are checked while the tests run, in every package that computes with tensors or arrays."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from rlhf.analysis.bootstrap import interval
from rlhf.generation.sampling import sample_from_weights
from rlhf.models.padding import positions
from rlhf.ppo.ppo_math import gae, masked_mean
from rlhf.reward.preference_losses import plackett_luce

pytest.importorskip("beartype", reason="beartype is not installed: pip install -e '.[test]'")

MASK = torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("function", "right", "wrong"),
    [
        (positions, (MASK,), (MASK[0],)),
        (sample_from_weights, (torch.ones(2, 5) / 5, torch.zeros(2)), (torch.ones(2, 5) / 5, torch.zeros(3))),
        (plackett_luce, (torch.zeros(2), torch.tensor([0, 1])), (torch.zeros(2), torch.tensor([0, 1, 2]))),
        (masked_mean, (torch.zeros(2, 3), MASK), (torch.zeros(2, 3), MASK.T)),
        (interval, (np.arange(4.0),), (np.zeros((2, 2)),)),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_a_wrong_shape_is_an_error(function, right, wrong):
    function(*right)
    with pytest.raises(TypeCheckError):
        function(*wrong)


def test_a_wrong_type_of_number_is_an_error():
    """A mask of floats would multiply without a word."""
    rewards = torch.zeros(2, 3)
    gae(rewards, rewards, MASK, gamma=1.0, lam=1.0)
    with pytest.raises(TypeCheckError):
        gae(rewards, rewards, MASK.float(), gamma=1.0, lam=1.0)
