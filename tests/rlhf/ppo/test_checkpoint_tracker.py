"""The best policy so far, and what remembers it across a restart."""

import torch

from rlhf.ppo.checkpoint_selection import PolicyMetrics
from rlhf.ppo.checkpoint_tracker import CheckpointTracker


def test_a_watch_comes_back_whole(tmp_path):
    tracker = CheckpointTracker(4.0, keep_best=True)
    for i in range(5):
        tracker.update(PolicyMetrics(float(i % 3), float(i)), {"w": torch.full((2,), float(i))})
    tracker.save(tmp_path)
    again = CheckpointTracker(4.0, keep_best=True)
    again.load(tmp_path, [list(m) for m in tracker.measured])
    assert again.measured == tracker.measured
    assert {i: w["w"].tolist() for i, w in again.weights.items()} == {i: w["w"].tolist() for i, w in tracker.weights.items()}
