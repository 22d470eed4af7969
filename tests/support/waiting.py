"""Waiting for a condition instead of for a time, and times of which one busy moment of the machine is no part."""

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 60.0
"""More than a slow machine with other work needs. A test that passes waits only as long as its condition takes."""


def until(condition: Callable[[], Any], within_s: float = PATIENCE_S, *, every_s: float = 0.02) -> Any:
    """What the condition gives once it gives something."""
    give_up_at = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < give_up_at, f"not within {within_s:.0f} s"
        time.sleep(every_s)
    return found


def fastest(attempt: Callable[[], Any], below_s: float, tries: int = 5) -> float:
    """The seconds of the fastest attempt; the attempts end with the first that takes less than `below_s`."""
    took = []
    while len(took) < tries:
        began = time.monotonic()
        attempt()
        took.append(time.monotonic() - began)
        if took[-1] < below_s:
            break
    return min(took)
