"""How much memory a model needs: by hand, and as it was measured on the default model."""

import pytest

from rlhf.config import PRESETS
from rlhf.runs import memory
from rlhf.runs.memory import ModelSizes

CONFIG = PRESETS["laptop"]

DEFAULT_MODEL = ModelSizes(
    weight_bytes=2 * 134_515_008, bytes_per_number=2, layers=30, hidden=576, feedforward=1536, heads=9, key_value=384, vocabulary=49_152,
    linear=2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536),
)  # fmt: skip


def test_the_estimate_is_that_of_the_default_model_as_measured():
    needed = memory.estimate(DEFAULT_MODEL, CONFIG)
    # README: a PPO round took 2.8 GiB, a DPO round 9.4 GiB, with weights in bfloat16.
    assert needed.ppo_gib == pytest.approx(2.8, abs=0.3) and needed.dpo_gib == pytest.approx(9.4, abs=1.0)
    assert 1.0 < needed.collecting_gib < 2.0


def test_the_estimate_counts_by_hand():
    sizes = ModelSizes(
        weight_bytes=2**31, bytes_per_number=2, layers=0, hidden=0, feedforward=0, heads=0, key_value=0, vocabulary=0, linear=0
    )
    # 0.9 GiB of the process, and 2 GiB of weights with 15% more.
    assert memory.estimate(sizes, CONFIG).collecting_gib == memory.estimate(sizes, CONFIG).ppo_gib == pytest.approx(0.9 + 2 * 1.15)
