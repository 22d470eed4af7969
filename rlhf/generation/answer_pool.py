"""Computes chat answers in threads of their own: a few at once, a few more in a queue, and the others are told to come back.

Whoever leaves takes the work along: an answer that nobody waits for ends before its next step. No torch here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from starlette.types import Receive

AT_ONCE = 4
"""Answers computed side by side. Each holds the keys and values of its prompt: up to 240 MiB with the default model."""

WAITING = 12
"""Answers that wait for one of those to end."""

WAIT_S = 20.0
"""How long an answer waits for its start, in seconds."""

RETRY_S = 5
"""After how many seconds somebody may come back who was sent away."""

Piece = tuple[str, str | None]
Speak = Callable[[Callable[[], None]], Iterator[Piece]]
"""Begins an answer. What it is given raises ReaderLeft when nobody waits any more, and is to be called before each step."""


class ServerBusy(Exception):
    """So many answers are computed and wait that this one is not begun; the message says what to do."""


class ClientDisconnected(Exception):
    """Nobody waits for the answer any more."""


class AnswerPool:
    """Admits answers and computes them."""

    def __init__(self, *, at_once: int = AT_ONCE, waiting: int = WAITING, wait_s: float = WAIT_S):
        self.at_once, self.waiting, self.wait_s = at_once, waiting, wait_s
        self._slots = asyncio.Semaphore(at_once)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="chat")
        self._open: set[Answer] = set()

    async def begin(self, stream_text: Speak, receive: Receive) -> Answer:
        """An answer that is being computed.

        Args:
            receive: tells when the client leaves; nobody else may be waiting for its body.

        Raises:
            ServerBusy: too many are before this one.
            ReaderLeft: the client left before it was begun.
        """
        if len(self._open) >= self.at_once + self.waiting:
            raise ServerBusy(f"{self.at_once} answers are computed and {self.waiting} wait: try again in {RETRY_S} s")
        answer = Answer(receive)
        self._open.add(answer)
        try:
            await self._slot(answer)
        except BaseException:
            self._end(answer)
            raise
        computed = asyncio.get_running_loop().run_in_executor(self._threads, answer.compute, stream_text)
        computed.add_done_callback(lambda _: self._end(answer, release=True))
        return answer

    async def _slot(self, answer: Answer) -> None:
        """Waits until fewer than `at_once` are computed."""
        taking = asyncio.ensure_future(self._slots.acquire())
        leaving = asyncio.ensure_future(answer.gone.wait())
        try:
            await asyncio.wait((taking, leaving), timeout=self.wait_s, return_when=asyncio.FIRST_COMPLETED)
            if answer.gone.is_set():
                raise ClientDisconnected
            if not taking.done():
                raise ServerBusy(f"no answer ended within {self.wait_s:g} s: try again in {RETRY_S} s")
        except BaseException:
            if not taking.cancel() and not taking.cancelled():
                self._slots.release()
            raise
        finally:
            leaving.cancel()

    def _end(self, answer: Answer, *, release: bool = False) -> None:
        self._open.discard(answer)
        answer.leave()
        if release:
            self._slots.release()

    def close(self) -> None:
        """Ends every answer before its next step."""
        for answer in list(self._open):
            answer.leave()
        self._threads.shutdown(wait=False, cancel_futures=True)


class Answer:
    """One answer. Its pieces are there to be read, once, as they come; whoever stops reading says `leave`."""

    def __init__(self, receive: Receive):
        self.gone = asyncio.Event()
        self._left = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue()
        self._watch = asyncio.ensure_future(self._until_gone(receive))

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._left.set()
        self.gone.set()

    def leave(self) -> None:
        """Nobody waits for this any more. Also when all is said."""
        self._left.set()
        self.gone.set()
        self._watch.cancel()

    def _tick(self) -> None:
        if self._left.is_set():
            raise ClientDisconnected

    def compute(self, stream_text: Speak) -> None:
        """Runs in a thread."""
        said: BaseException | None = None
        try:
            self._tick()
            for piece in stream_text(self._tick):
                self._say(piece)
        except BaseException as error:
            said = error
        self._say(said)

    def _say(self, piece: Piece | BaseException | None) -> None:
        # The loop may be over when the server stops.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._inbox.put_nowait, piece)

    async def pieces(self) -> AsyncIterator[Piece]:
        """Raises what ended the answer before its end."""
        while (piece := await self._inbox.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
