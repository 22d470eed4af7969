"""One thread for all of a process's computing with torch, beside threads that serve requests."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class TorchThread:
    """A thread that runs functions one after another.

    OpenMP keeps a pool of processor threads for each thread that computes in parallel, and pools that together have more threads than
    there are processors wait for each operation with a system call in place of a short loop. On two processors a decode step in one
    thread, over weights that another thread had loaded, took 100 ms instead of 65 ms. So a process with several threads loads its
    model and generates in this one.
    """

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # A daemon: a model that is still being loaded does not delay Ctrl-C.
        self.thread = threading.Thread(target=self._loop, name="torch", daemon=True)
        self.thread.start()

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Runs a function after those before it."""
        future: Future[T] = Future()

        def task() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._tasks.put(task)
        return future

    def _loop(self) -> None:
        while True:
            self._tasks.get()()
