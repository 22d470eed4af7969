"""Whose password is looked at next. Looking at one takes 64 MiB and all cores for a moment, so they wait for each other.

A stranger who sends wrong ones by the dozen must not keep people out. So the next is not who came first: browsers that
have signed in before go first, then whoever had the fewest passwords looked at in vain lately, by address and then by
name, and among equals whoever came last. The last rule helps where a proxy does not say whose a request is and all
addresses are alike: who comes while a flood waits does not stand behind it. Whom the queue has no room for is told to
come again, at once. Leaves out whether somebody must wait for what they got wrong: `storage.people.sign_in_throttle`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import anyio

from storage.people.sign_in_throttle import Origin

AT_ONCE = 2
"""More at once would only keep the annotators waiting."""
LONGEST_QUEUE = 64
"""Who waits beside those; some 5 s of work."""
LONGEST_STAY_S = 15.0
"""After that somebody who was always behind others is told to come again, in seconds."""
COME_AGAIN_S = 2
"""When to come again, in seconds."""
FORGET_S = 3600.0
"""Passwords looked at in vain longer ago no longer count, in seconds."""
MOST_REMEMBERED = 10_000
"""Addresses and names of which it is known how many were in vain."""


class Busy(Exception):
    """There is no room in the queue: come again in `COME_AGAIN_S`."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A password that is to be looked at."""

    name: str
    origin: Origin

    @property
    def keys(self) -> tuple[tuple[str, ...], ...]:
        """What it is counted under, the first more than the second."""
        return ((self.origin.key,), (self.origin.key, self.name))


@dataclass(eq=False, slots=True)
class _Place:
    attempt: Attempt
    number: int
    called: anyio.Event = field(default_factory=anyio.Event)
    refused: bool = False


class Turn:
    """That of somebody whose password is being looked at."""

    def __init__(self) -> None:
        self.was_right = False

    def right(self) -> None:
        """It was no guess: what this one got wrong before does not count against it any more."""
        self.was_right = True


class PasswordQueue:
    """One for each app, used in its event loop alone."""

    def __init__(self, now: Callable[[], float] = time.monotonic):
        self._now = now
        self._numbers = count()
        self._waiting: list[_Place] = []
        self._busy = 0
        self._in_vain: OrderedDict[tuple[str, ...], tuple[int, float]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, attempt: Attempt) -> AsyncIterator[Turn]:
        """Waits for a turn, and holds it until the block ends.

        Raises:
            Busy: others go first, and there is no room to wait.
        """
        await self._wait(attempt)
        turn = Turn()
        self._count(attempt, 1)
        try:
            yield turn
        finally:
            if turn.was_right:
                self._count(attempt, -1)
                self._in_vain.pop(attempt.keys[1], None)
            self._end_turn()

    async def _wait(self, attempt: Attempt) -> None:
        place = _Place(attempt, next(self._numbers))
        self._waiting.append(place)
        if len(self._waiting) > LONGEST_QUEUE:
            last = max(self._waiting, key=self._rank)
            last.refused = True
            self._waiting.remove(last)
            last.called.set()
        self._call_next()
        try:
            with anyio.move_on_after(LONGEST_STAY_S):
                await place.called.wait()
        except BaseException:
            # Cancelled, as when the server stops: a turn that came at the same moment goes to the next.
            self._give_up(place)
            raise
        if place.refused or not place.called.is_set():
            self._give_up(place)
            raise Busy

    def _give_up(self, place: _Place) -> None:
        if place in self._waiting:
            self._waiting.remove(place)
        elif not place.refused:
            self._end_turn()

    def _end_turn(self) -> None:
        self._busy -= 1
        self._call_next()

    def _call_next(self) -> None:
        while self._waiting and self._busy < AT_ONCE:
            place = min(self._waiting, key=self._rank)
            self._waiting.remove(place)
            self._busy += 1
            place.called.set()

    def _rank(self, place: _Place) -> tuple[bool, int, int, int]:
        by_origin, by_name = (self._in_vain_of(key) for key in place.attempt.keys)
        return (not place.attempt.origin.known, by_origin, by_name, -place.number)

    def _in_vain_of(self, key: tuple[str, ...]) -> int:
        number, at = self._in_vain.get(key, (0, 0.0))
        return number if self._now() - at < FORGET_S else 0

    def _count(self, attempt: Attempt, one: int) -> None:
        for key in attempt.keys:
            self._in_vain[key] = (max(0, self._in_vain_of(key) + one), self._now())
            self._in_vain.move_to_end(key)
        while len(self._in_vain) > MOST_REMEMBERED:
            self._in_vain.popitem(last=False)
