"""Computes chat answers in threads: a few at once, a few more in a bounded queue; further requests are refused as busy.

A client that disconnects cancels its answer, which ends before its next step. No torch here.
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
"""Answers that may wait in the queue."""

WAIT_S = 20.0
"""How long an answer waits for its start, in seconds."""

RETRY_S = 5
"""After how many seconds a refused client should try again."""

Piece = tuple[str, str | None]
StreamText = Callable[[Callable[[], None]], Iterator[Piece]]
"""Streams an answer. Its argument must be called before each step, and raises ClientDisconnected when the client has left."""


class ServerBusy(Exception):
    """The pool and its queue are full, so this answer is not started; the message names the remedy."""


class ClientDisconnected(Exception):
    """The client no longer waits for the answer."""


class AnswerPool:
    """Admits answers and computes them."""

    def __init__(self, *, at_once: int = AT_ONCE, waiting: int = WAITING, wait_s: float = WAIT_S):
        self.at_once, self.waiting, self.wait_s = at_once, waiting, wait_s
        self._slots = asyncio.Semaphore(at_once)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="chat")
        self._open: set[StreamedAnswer] = set()

    async def begin(self, stream_text: StreamText, receive: Receive) -> StreamedAnswer:
        """Starts an answer and returns it.

        Args:
            receive: the ASGI channel that reports the client's disconnect; no other code may read the body from it.

        Raises:
            ServerBusy: the pool and its queue are full.
            ClientDisconnected: the client left before its answer was started.
        """
        if len(self._open) >= self.at_once + self.waiting:
            raise ServerBusy(f"{self.at_once} answers are computed and {self.waiting} wait: try again in {RETRY_S} s")
        answer = StreamedAnswer(receive)
        self._open.add(answer)
        try:
            await self._slot(answer)
        except BaseException:
            self._end(answer)
            raise
        future = asyncio.get_running_loop().run_in_executor(self._threads, answer.compute, stream_text)
        future.add_done_callback(lambda _: self._end(answer, release=True))
        return answer

    async def _slot(self, answer: StreamedAnswer) -> None:
        """Waits until fewer than `at_once` are computed."""
        acquire = asyncio.ensure_future(self._slots.acquire())
        disconnect = asyncio.ensure_future(answer.disconnected.wait())
        try:
            await asyncio.wait((acquire, disconnect), timeout=self.wait_s, return_when=asyncio.FIRST_COMPLETED)
            if answer.disconnected.is_set():
                raise ClientDisconnected
            if not acquire.done():
                raise ServerBusy(f"no answer ended within {self.wait_s:g} s: try again in {RETRY_S} s")
        except BaseException:
            if not acquire.cancel() and not acquire.cancelled():
                self._slots.release()
            raise
        finally:
            disconnect.cancel()

    def _end(self, answer: StreamedAnswer, *, release: bool = False) -> None:
        self._open.discard(answer)
        answer.leave()
        if release:
            self._slots.release()

    def close(self) -> None:
        """Ends every answer before its next step."""
        for answer in list(self._open):
            answer.leave()
        self._threads.shutdown(wait=False, cancel_futures=True)


class StreamedAnswer:
    """One answer. Its pieces can be read once, as they are generated; a reader that stops early calls `leave`."""

    def __init__(self, receive: Receive):
        self.disconnected = asyncio.Event()
        self._cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue()
        self._watch = asyncio.ensure_future(self._watch_connection(receive))

    async def _watch_connection(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._cancelled.set()
        self.disconnected.set()

    def leave(self) -> None:
        """Cancels the answer. Also called when it is complete."""
        self._cancelled.set()
        self.disconnected.set()
        self._watch.cancel()

    def _raise_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise ClientDisconnected

    def compute(self, stream_text: StreamText) -> None:
        """Runs in a thread."""
        outcome: BaseException | None = None
        try:
            self._raise_if_cancelled()
            for piece in stream_text(self._raise_if_cancelled):
                self._put(piece)
        except BaseException as error:
            outcome = error
        self._put(outcome)

    def _put(self, piece: Piece | BaseException | None) -> None:
        # The event loop may be closed when the server stops.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._inbox.put_nowait, piece)

    async def pieces(self) -> AsyncIterator[Piece]:
        """The pieces in order. Raises the exception that ended the answer early."""
        while (piece := await self._inbox.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
