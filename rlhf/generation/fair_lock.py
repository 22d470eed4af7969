"""A first-in, first-out lock. No torch here."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """`with turns:` waits until every thread that asked earlier has had its turn.

    Python's own lock has no order: mostly the thread that just released it takes it again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        # The thread that ends its turn releases it.
        mine.acquire()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
