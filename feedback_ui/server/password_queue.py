"""A priority queue for password checks. One check takes 64 MiB and all cores for a moment, so that few run at the same time.

A flood of wrong passwords must not keep users out, so that the order is not first come, first served: browsers that have
signed in before go first, then attempts with the fewest recent failures of their address and then of their name, and among
equals the newest. The last rule helps behind a proxy that does not report client addresses, where all addresses are equal: a
new attempt does not wait behind a flood. When the queue is full, the last in this order is refused at once. Waiting times after
wrong passwords are the subject of `storage.people.sign_in_throttle`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import anyio

from storage.people.sign_in_throttle import SignInOrigin

MAX_CONCURRENT_CHECKS = 2
"""Password checks at the same time. More would only slow annotators' requests down."""
MAX_QUEUE = 64
"""Maximum number of waiting attempts; about 5 s of work."""
MAX_QUEUE_WAIT_S = 15.0
"""The longest wait before an attempt is refused, in seconds."""
RETRY_AFTER_S = 2
"""The wait that a refused client is asked for, in seconds."""
FORGET_S = 3600.0
"""How long a failed attempt counts, in seconds."""
MAX_REMEMBERED = 10_000
"""Maximum number of addresses and names whose failures are remembered."""


class Busy(Exception):
    """The queue is full, or the wait took too long: try again after `RETRY_AFTER_S` seconds."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A password to check."""

    name: str
    origin: SignInOrigin

    @property
    def keys(self) -> tuple[tuple[str, ...], ...]:
        """The keys under which failures are counted, the more important first."""
        return ((self.origin.key,), (self.origin.key, self.name))


@dataclass(eq=False, slots=True)
class _QueuedAttempt:
    attempt: Attempt
    number: int
    called: anyio.Event = field(default_factory=anyio.Event)
    refused: bool = False


class Turn:
    """A password check that is running."""

    def __init__(self) -> None:
        self.succeeded = False

    def succeed(self) -> None:
        """Records success: earlier failures of this attempt's name and address no longer count."""
        self.succeeded = True


class PasswordQueue:
    """The queue of one app. Use it only in the app's event loop."""

    def __init__(self, now: Callable[[], float] = time.monotonic):
        self._now = now
        self._numbers = count()
        self._waiting: list[_QueuedAttempt] = []
        self._busy = 0
        self._failures: OrderedDict[tuple[str, ...], tuple[int, float]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, attempt: Attempt) -> AsyncIterator[Turn]:
        """Waits for permission to check a password, and holds it until the block ends.

        Raises:
            Busy: other attempts go first, and the queue is full or the wait too long.
        """
        await self._wait(attempt)
        turn = Turn()
        self._count(attempt, 1)
        try:
            yield turn
        finally:
            if turn.succeeded:
                self._count(attempt, -1)
                self._failures.pop(attempt.keys[1], None)
            self._end_turn()

    async def _wait(self, attempt: Attempt) -> None:
        queued = _QueuedAttempt(attempt, next(self._numbers))
        self._waiting.append(queued)
        if len(self._waiting) > MAX_QUEUE:
            last = max(self._waiting, key=self._rank)
            last.refused = True
            self._waiting.remove(last)
            last.called.set()
        self._call_next()
        try:
            with anyio.move_on_after(MAX_QUEUE_WAIT_S):
                await queued.called.wait()
        except BaseException:
            # Cancelled, for example by the server's stop: a permission that came at the same moment goes to the next attempt.
            self._give_up(queued)
            raise
        if queued.refused or not queued.called.is_set():
            self._give_up(queued)
            raise Busy

    def _give_up(self, queued: _QueuedAttempt) -> None:
        if queued in self._waiting:
            self._waiting.remove(queued)
        elif not queued.refused:
            self._end_turn()

    def _end_turn(self) -> None:
        self._busy -= 1
        self._call_next()

    def _call_next(self) -> None:
        while self._waiting and self._busy < MAX_CONCURRENT_CHECKS:
            queued = min(self._waiting, key=self._rank)
            self._waiting.remove(queued)
            self._busy += 1
            queued.called.set()

    def _rank(self, queued: _QueuedAttempt) -> tuple[bool, int, int, int]:
        by_origin, by_name = (self._failures_of(key) for key in queued.attempt.keys)
        return (not queued.attempt.origin.known, by_origin, by_name, -queued.number)

    def _failures_of(self, key: tuple[str, ...]) -> int:
        number, at = self._failures.get(key, (0, 0.0))
        return number if self._now() - at < FORGET_S else 0

    def _count(self, attempt: Attempt, one: int) -> None:
        for key in attempt.keys:
            self._failures[key] = (max(0, self._failures_of(key) + one), self._now())
            self._failures.move_to_end(key)
        while len(self._failures) > MAX_REMEMBERED:
            self._failures.popitem(last=False)
