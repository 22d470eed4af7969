"""A lock that is handed on in the order in which it was asked for. No torch here."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """`with turns:` waits until everybody who asked before has had a turn.

    Python's own lock goes to whoever is quickest, mostly the thread that just let it go.
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
        # It is let go by whoever hands the turn on.
        mine.acquire()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
