"""One kill of each process while people judge and a round trains; the long version is `benchmarks/kill_every.py`."""

import random

import pytest

from benchmarks.kill_every import VICTIMS, Scene, measure

pytestmark = pytest.mark.slow


def test_no_process_that_is_killed_takes_an_acknowledged_judgment_with_it(tmp_path):
    scene = Scene(tmp_path, people=3, comparisons=2000)
    try:
        outcome = measure(scene, len(VICTIMS), 2.0, random.Random())
    finally:
        scene.room.end()
    assert dict(outcome.kills) == dict.fromkeys(VICTIMS, 1)
    assert outcome.broken == [] and outcome.lost == 0 and outcome.acknowledged > 0
    ((before, after),) = outcome.resumed_at
    assert after >= before
