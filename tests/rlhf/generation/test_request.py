"""Streams of tokens between the engine's thread and whoever reads them, in a thread or in an event loop."""

import asyncio
import threading

import pytest

from rlhf.generation.request import GenerationRequest, GenerationStream, LogitAdjustments, TokenOutput
from storage.core.records import Sampling


def stream():
    return GenerationStream(GenerationRequest((1, 2), Sampling()))


def read_in_a_loop(made):
    async def read():
        return [output.id async for output in made]

    return asyncio.run(asyncio.wait_for(read(), 20))


@pytest.mark.parametrize("read", [lambda made: [output.id for output in made], read_in_a_loop])
def test_tokens_come_in_order_and_end_with_the_reason(read):
    made = stream()

    def put():
        for i in range(100):
            made.put(TokenOutput(i, "length" if i == 99 else None))

    writer = threading.Thread(target=put)
    writer.start()
    assert read(made) == [*range(100)]
    writer.join()


@pytest.mark.parametrize("read", [list, read_in_a_loop])
def test_an_error_is_raised_after_the_tokens_before_it(read):
    made = stream()
    made.put(TokenOutput(1))
    made.put(ValueError("no more"))
    with pytest.raises(ValueError, match="no more"):
        read(made)


def test_a_loop_that_waits_is_woken_and_one_that_has_ended_is_left_alone():
    made = stream()

    async def first():
        threading.Timer(0.05, made.put, [TokenOutput(7)]).start()
        async for output in made:
            return output.id

    assert asyncio.run(asyncio.wait_for(first(), 20)) == 7
    made.put(TokenOutput(8, "stop"))
    assert [output.id for output in made] == [8]


def test_a_stream_is_cancelled_once_for_all_and_the_engine_is_told():
    made, told = stream(), []
    made.on_cancel = lambda: told.append(made.cancelled)
    made.cancel()
    assert told == [True]


def test_adjustments_that_change_nothing_are_none():
    assert not LogitAdjustments() and LogitAdjustments(presence_penalty=-1) and LogitAdjustments(bias={1: 0.5})
