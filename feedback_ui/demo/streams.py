"""Answers of several versions as they arrive: merged streams, and the limit on how many are written at a time. No Gradio."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

from rlhf.serving.client import AnswerPiece, PolicyServerDown

MAX_CONCURRENT = 8
"""Maximum number of prompts answered at the same time, for all visitors together."""
MAX_PER_VISITOR = 2
"""Maximum number of prompts answered at the same time for one visitor."""

StreamEvent = AnswerPiece | PolicyServerDown | None
"""A piece of an answer, or the end of its stream: None, or the error that ended it."""


class PromptAdmission:
    """Limits the prompts that are answered at the same time, per visitor and in total. Use it only in the event loop."""

    def __init__(self) -> None:
        self._now: Counter[int] = Counter()

    @contextmanager
    def admit(self, visitor: int) -> Iterator[bool]:
        """Whether one more prompt may be answered; if so, it counts until the end of the block."""
        if self._now[visitor] >= MAX_PER_VISITOR or self._now.total() >= MAX_CONCURRENT:
            yield False
            return
        self._now[visitor] += 1
        try:
            yield True
        finally:
            self._now[visitor] -= 1
            self._now += Counter()


async def merge_streams(streams: Mapping[Any, AsyncGenerator[AnswerPiece, None]]) -> AsyncGenerator[tuple[Any, StreamEvent], None]:
    """Merges several streams: yields each stream's pieces as they arrive, then None or the error that ended it.

    Closing the merged stream closes all of them, even while they wait, so that the models stop generating.
    """
    inbox: asyncio.Queue[tuple[Any, StreamEvent]] = asyncio.Queue()

    async def pump(name: Any, pieces: AsyncGenerator[AnswerPiece, None]) -> None:
        end: PolicyServerDown | None = None
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    inbox.put_nowait((name, piece))
        except PolicyServerDown as error:
            end = error
        finally:
            inbox.put_nowait((name, end))

    pumps = [asyncio.create_task(pump(*item)) for item in streams.items()]
    try:
        left = len(streams)
        while left:
            name, piece = await inbox.get()
            left -= not isinstance(piece, AnswerPiece)
            yield name, piece
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
