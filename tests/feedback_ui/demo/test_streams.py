"""Merged streams, and how many prompts are answered at a time."""

import asyncio
from contextlib import ExitStack

from waiting import PATIENCE_S

from feedback_ui.demo.streams import PromptAdmission, merge_streams
from rlhf.serving.client import AnswerPiece


def test_streams_are_merged_and_closed_with_the_reader():
    closed = []

    async def endless(name):
        try:
            while True:
                yield AnswerPiece(name)
                await asyncio.sleep(0)
        finally:
            closed.append(name)

    async def silent(name):
        try:
            await asyncio.sleep(600)
            yield AnswerPiece(name)
        finally:
            closed.append(name)

    async def listen():
        merged = merge_streams({"a": endless("a"), "b": endless("b"), "c": silent("c")})
        names = set()
        while names != {"a", "b"}:
            names.add((await anext(merged))[0])
        await merged.aclose()

    asyncio.run(asyncio.wait_for(listen(), PATIENCE_S))
    assert sorted(closed) == ["a", "b", "c"]


def test_concurrent_prompts_are_limited_per_visitor_and_in_total():
    asking = PromptAdmission()
    with ExitStack() as open_now:

        def ask(visitor):
            return open_now.enter_context(asking.admit(visitor))

        assert [ask(1), ask(1), ask(1)] == [True, True, False]
        assert [ask(visitor) for visitor in (2, 2, 3, 3, 4, 4, 5, 2)] == [True] * 6 + [False] * 2
    assert not asking._now
    with asking.admit(1) as admitted:
        assert admitted
