"""The answers of one request: their token streams become parts of text, in the order in which they are sampled.

A client that disconnects cancels them, and the engine drops them before its next step. Leaves out what a response looks like.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.types import Receive

from rlhf.generation.protocol.responses import Delta, Usage
from rlhf.generation.protocol.text_stream import TextStream
from rlhf.generation.request import GenerationStream, TokenOutput


class ClientDisconnected(Exception):
    """The client no longer waits for the answer."""


class Answers:
    """All answers of one request. `deltas` is read once; `close` is always called, and cancels what is not complete.

    Args:
        streams: one for each answer.
        texts: how the tokens of each become text.
        end_tokens: tokens that end an answer and are no part of it.
        on_first_token: called once, with the first token of any answer.
        all_tokens: parts have the tokens that they come from, and the last part has the end token, though it is no part of the text.
    """

    def __init__(
        self,
        streams: Sequence[GenerationStream],
        texts: Sequence[TextStream[TokenOutput]],
        usage: Usage,
        end_tokens: Sequence[int],
        on_first_token: Callable[[], None] = lambda: None,
        *,
        all_tokens: bool = False,
    ):
        self.streams, self.texts, self.usage = streams, texts, usage
        self.finish_reasons: dict[int, str] = {}
        self._end_tokens = frozenset(end_tokens)
        self._on_first_token, self._all_tokens = on_first_token, all_tokens
        self._parts: asyncio.Queue[Delta | BaseException] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._left = len(streams)

    def start(self, receive: Receive) -> None:
        """Begins to read the streams. `receive` is the ASGI channel that reports the disconnect; no other code may read from it."""
        self._tasks = [asyncio.create_task(self._read(index)) for index in range(len(self.streams))]
        self._tasks.append(asyncio.create_task(self._watch(receive)))

    def close(self) -> None:
        """Cancels every answer. Harmless when they are complete."""
        for stream in self.streams:
            stream.cancel()
        for task in self._tasks:
            task.cancel()

    async def part(self) -> Delta | None:
        """The next part of an answer, whichever comes first; None when all are complete.

        Raises:
            ClientDisconnected: the client has left.
            Exception: whatever ended an answer early.
        """
        if not self._left:
            return None
        part = await self._parts.get()
        if isinstance(part, BaseException):
            raise part
        if part.finish_reason is not None:
            self._left -= 1
            self.finish_reasons[part.index] = part.finish_reason
        return part

    async def parts(self) -> AsyncIterator[Delta]:
        """All further parts."""
        while (part := await self.part()) is not None:
            yield part

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        for stream in self.streams:
            stream.cancel()
        self._parts.put_nowait(ClientDisconnected())

    async def _read(self, index: int) -> None:
        try:
            await self._read_tokens(index, self.streams[index], self.texts[index])
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._parts.put_nowait(error)

    async def _read_tokens(self, index: int, stream: GenerationStream, text: TextStream[TokenOutput]) -> None:
        wants_tokens = self._all_tokens or stream.request.logprobs is not None
        reason, ending = "length", list[TokenOutput]()
        async for output in stream:
            if not self.usage.completion_tokens:
                self._on_first_token()
            self.usage.completion_tokens += 1
            reasoning_before = text.reasoning_tokens
            if output.id in self._end_tokens or output.id in stream.request.stop_token_ids:
                reason = "stop"
                ending = [output] if self._all_tokens else []
                break
            piece = text.add(output.id, output if wants_tokens else None)
            self.usage.reasoning_tokens += text.reasoning_tokens - reasoning_before
            if piece.text or piece.notes:
                self._parts.put_nowait(Delta(index, piece.text, piece.notes))
            if text.stopped:
                # The engine would go on to the token limit.
                stream.cancel()
                reason = "stop"
                break
        rest = text.finish()
        self._parts.put_nowait(Delta(index, rest.text, [*rest.notes, *ending], "stop" if text.stopped else reason))
