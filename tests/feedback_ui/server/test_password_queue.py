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


class RecordedQueue:
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
        tasks.start_soon(self._check, label, Attempt(name, SignInOrigin(place, known)))
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

    async def _check(self, label, attempt):
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
    made = RecordedQueue()
    async with anyio.create_task_group() as tasks:
        await made.come(tasks, "first", place="198.51.100.1")
        await made.come(tasks, "second", place="198.51.100.2")
        yield made, tasks
        await made.finish_all()


async def test_two_attempts_are_checked_at_the_same_time():
    assert MAX_CONCURRENT_CHECKS == 2
    async with queue() as (made, tasks):
        await made.come(tasks, "third")
        assert made.order == ["first", "second"]
        await made.finish("second")
        assert made.order == ["first", "second", "third"]


async def test_among_equals_the_newest_goes_first():
    async with queue() as (made, tasks):
        for label in "abc":
            await made.come(tasks, label, place=f"203.0.113.{ord(label)}")
    assert made.order == ["first", "second", "c", "b", "a"]


async def test_an_origin_with_failures_goes_after_one_without():
    async with queue() as (made, tasks):
        await made.come(tasks, "honest", name="ann", place="203.0.113.1")
        await made.come(tasks, "again", place="198.51.100.1")
    assert made.order == ["first", "second", "honest", "again"]


async def test_at_one_address_failures_count_by_name():
    async with queue() as (made, tasks):
        await made.come(tasks, "honest", name="ann", place="198.51.100.1")
        await made.come(tasks, "again", name="nobody", place="198.51.100.1")
    assert made.order == ["first", "second", "honest", "again"]


async def test_a_known_browser_goes_first():
    async with queue() as (made, tasks):
        await made.come(tasks, "known", place="b" * 32, known=True)
        await made.come(tasks, "stranger", place="203.0.113.9")
    assert made.order == ["first", "second", "known", "stranger"]


async def test_a_success_clears_the_failures():
    async with queue() as (made, tasks):
        await made.finish("first", right=True)
        await made.come(tasks, "third", place="198.51.100.3")
        await made.come(tasks, "stranger", place="203.0.113.9")
        await made.come(tasks, "again", place="198.51.100.1")
    # The newest of two equal attempts, which an attempt with failures would follow.
    assert made.order == ["first", "second", "third", "again", "stranger"]


async def test_failures_are_forgotten_after_an_hour():
    async with queue() as (made, tasks):
        made.seconds += password_queue.FORGET_S + 1
        await made.come(tasks, "other", place="203.0.113.9")
        await made.come(tasks, "again", place="198.51.100.1")
    assert made.order == ["first", "second", "again", "other"]


async def test_the_last_attempt_is_refused_when_the_queue_is_full(monkeypatch):
    monkeypatch.setattr(password_queue, "MAX_QUEUE", 2)
    async with queue() as (made, tasks):
        await made.come(tasks, "guess 1", place="198.51.100.1")
        await made.come(tasks, "guess 2", place="198.51.100.1")
        await made.come(tasks, "honest", name="ann", place="203.0.113.1")
        assert made.busy == ["guess 1"]
        await made.come(tasks, "guess 3", place="198.51.100.2", name="another")
        assert made.busy == ["guess 1", "guess 2"]
    assert made.order == ["first", "second", "honest", "guess 3"]


async def test_a_wait_has_a_limit(monkeypatch):
    monkeypatch.setattr(password_queue, "MAX_QUEUE_WAIT_S", 0.01)
    async with queue() as (made, tasks):
        await made.come(tasks, "third")
        await anyio.sleep(0.05)
        assert made.busy == ["third"]
        await made.finish("first")
        await made.come(tasks, "fourth")
        assert made.order == ["first", "second", "fourth"]


async def test_a_cancelled_attempt_frees_its_place():
    made = RecordedQueue()
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as leaving:
            for number in range(MAX_CONCURRENT_CHECKS + 3):
                await made.come(leaving, f"gone {number}")
            leaving.cancel_scope.cancel()
        await made.come(tasks, "a")
        await made.come(tasks, "b")
        assert made.order == ["gone 0", "gone 1", "a", "b"]
        await made.finish("a", "b")


async def test_the_remembered_failures_are_bounded(monkeypatch):
    monkeypatch.setattr(password_queue, "MAX_REMEMBERED", 50)
    queue = PasswordQueue()
    for number in range(200):
        async with queue.turn(Attempt(f"name {number}", SignInOrigin(f"198.51.100.{number}"))):
            pass
    assert len(queue._failures) == 50
