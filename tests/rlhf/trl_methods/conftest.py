"""A policy whose adapter is not zero, in the wrapper that TRL gets."""

import pytest

from rlhf.config import AdapterConfig
from rlhf.ppo.rollout import POLICY


@pytest.fixture
def policy(backbone):
    backbone.add_adapter(POLICY, AdapterConfig(rank=4, alpha=8), seed=0)
    return backbone
