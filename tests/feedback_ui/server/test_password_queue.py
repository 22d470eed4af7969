"""The order of password checks, compared with orders worked out by hand. The clock is the test's own."""

from contextlib import asynccontextmanager

import anyio
import pytest

from feedback_ui.server import password_queue
from feedback_ui.server.password_queue import MAX_CONCURRENT_CHECKS, Attempt, Busy, PasswordQueue
from storage.people.sign_in_throttle import SignInOrigin


@pytest.fixture
def anyio_backend():
    return "asyncio"


pytestmark = pytest.mark.anyio


class Desk:
    """A queue with methods for arriving attempts, and a record of which were checked and which refused."""

    def __init__(self):
        self.seconds = 0.0
        self.queue = PasswordQueue(lambda: self.seconds)
        self.order: list[str] = []
        self.busy: list[str] = []
        self._done: dict[str, anyio.Event] = {}
        self._right: set[str] = set()

    async def come(self, tasks, label, name="nobody", place="192.0.2.1", known=False):
        self._done[label] = anyio.Event()
        tasks.start_soon(self._be_looked_at, label, Attempt(name, SignInOrigin(place, known)))
        await self.settle()

    async def finish(self, *labels, right=False):
        for label in labels:
            if right:
                self._right.add(label)
            self._done[label].set()
            await self.settle()

    async def finish_all(self):
        """Finishes the running checks one after another until none waits."""
        done = 0
        while done < len(self.order):
            await self.finish(self.order[done])
            done += 1

    async def settle(self):
        for _ in range(10):
            await anyio.lowlevel.checkpoint()

    async def _be_looked_at(self, label, attempt):
        try:
            async with self.queue.turn(attempt) as turn:
                self.order.append(label)
                await self._done[label].wait()
                if label in self._right:
                    turn.succeed()
        except Busy:
            self.busy.append(label)


@asynccontextmanager
async def queue():
    made = Desk()
    async with anyio.create_task_group() as tasks:
        await made.come(tasks, "first", place="198.51.100.1")
        await made.come(tasks, "second", place="198.51.100.2")
        yield made, tasks
        await made.finish_all()


async def test_two_are_looked_at_at_once():
    assert MAX_CONCURRENT_CHECKS == 2
    async with queue() as (made, tasks):
        await made.come(tasks, "third")
        assert made.order == ["first", "second"]
        await made.finish("second")
        assert made.order == ["first", "second", "third"]


async def test_among_equals_the_last_to_come_goes_first():
    async with queue() as (made, tasks):
        for label in "abc":
            await made.come(tasks, label, place=f"203.0.113.{ord(label)}")
    assert made.order == ["first", "second", "c", "b", "a"]


async def test_who_got_it_wrong_goes_after_who_did_not():
    async with queue() as (made, tasks):
        await made.come(tasks, "honest", name="ann", place="203.0.113.1")
        await made.come(tasks, "again", place="198.51.100.1")
    assert made.order == ["first", "second", "honest", "again"]


async def test_at_one_address_it_is_by_name():
    async with queue() as (made, tasks):
        await made.come(tasks, "honest", name="ann", place="198.51.100.1")
        await made.come(tasks, "again", name="nobody", place="198.51.100.1")
    assert made.order == ["first", "second", "honest", "again"]


async def test_a_known_browser_goes_first():
    async with queue() as (made, tasks):
        await made.come(tasks, "known", place="b" * 32, known=True)
        await made.come(tasks, "stranger", place="203.0.113.9")
    assert made.order == ["first", "second", "known", "stranger"]


async def test_who_was_right_is_as_good_as_new():
    async with queue() as (made, tasks):
        await made.finish("first", right=True)
        await made.come(tasks, "third", place="198.51.100.3")
        await made.come(tasks, "stranger", place="203.0.113.9")
        await made.come(tasks, "again", place="198.51.100.1")
    # The newest of two equal attempts, which an attempt with failures would follow.
    assert made.order == ["first", "second", "third", "again", "stranger"]


async def test_what_was_wrong_is_forgotten_after_an_hour():
    async with queue() as (made, tasks):
        made.seconds += password_queue.FORGET_S + 1
        await made.come(tasks, "other", place="203.0.113.9")
        await made.come(tasks, "again", place="198.51.100.1")
    assert made.order == ["first", "second", "again", "other"]


async def test_whoever_is_last_is_refused_when_there_is_no_room(monkeypatch):
    monkeypatch.setattr(password_queue, "MAX_QUEUE", 2)
    async with queue() as (made, tasks):
        await made.come(tasks, "guess 1", place="198.51.100.1")
        await made.come(tasks, "guess 2", place="198.51.100.1")
        await made.come(tasks, "honest", name="ann", place="203.0.113.1")
        assert made.busy == ["guess 1"]
        await made.come(tasks, "guess 3", place="198.51.100.2", name="another")
        assert made.busy == ["guess 1", "guess 2"]
    assert made.order == ["first", "second", "honest", "guess 3"]


async def test_nobody_waits_for_ever(monkeypatch):
    monkeypatch.setattr(password_queue, "MAX_QUEUE_WAIT_S", 0.01)
    async with queue() as (made, tasks):
        await made.come(tasks, "third")
        await anyio.sleep(0.05)
        assert made.busy == ["third"]
        await made.finish("first")
        await made.come(tasks, "fourth")
        assert made.order == ["first", "second", "fourth"]


async def test_who_leaves_while_waiting_or_at_work_gives_the_place_back():
    made = Desk()
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as leaving:
            for number in range(MAX_CONCURRENT_CHECKS + 3):
                await made.come(leaving, f"gone {number}")
            leaving.cancel_scope.cancel()
        await made.come(tasks, "a")
        await made.come(tasks, "b")
        assert made.order == ["gone 0", "gone 1", "a", "b"]
        await made.finish("a", "b")


async def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(password_queue, "MAX_REMEMBERED", 50)
    queue = PasswordQueue()
    for number in range(200):
        async with queue.turn(Attempt(f"name {number}", SignInOrigin(f"198.51.100.{number}"))):
            pass
    assert len(queue._failures) == 50
