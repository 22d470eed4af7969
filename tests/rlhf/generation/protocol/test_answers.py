"""Several token streams become parts of text, and are cancelled when nobody waits for them."""

import asyncio

import pytest

from rlhf.generation.protocol.answers import Answers, ClientDisconnected
from rlhf.generation.protocol.responses import Usage
from rlhf.generation.protocol.text_stream import TextStream
from rlhf.generation.request import GenerationRequest, GenerationStream, TokenOutput
from storage.core.records import Sampling

END = 300


def answers(count, stops=(), **more):
    streams = [GenerationStream(GenerationRequest((1,), Sampling(), **more)) for _ in range(count)]
    texts = [TextStream(lambda ids: bytes(ids).decode(), stops) for _ in streams]
    return Answers(streams, texts, Usage(1), [END]), streams


async def for_ever():
    await asyncio.sleep(600)


async def left():
    return {"type": "http.disconnect"}


def put(stream, text, reason="length"):
    for i, byte in enumerate(text):
        stream.put(TokenOutput(byte, reason if i == len(text) - 1 else None))


def test_parts_come_in_the_order_in_which_tokens_do():
    async def read():
        made, (one, two) = answers(2)
        made.start(for_ever)
        put(two, b"b")
        first = await made.part()
        put(one, b"a")
        one_more = [part async for part in made.parts()]
        made.close()
        return first, one_more, made

    first, more, made = asyncio.run(read())
    assert (first.index, first.text) == (1, "b")
    assert [(part.index, part.text, part.finish_reason) for part in more] == [(1, "", "length"), (0, "a", None), (0, "", "length")]
    assert (made.usage.completion_tokens, made.finish_reasons) == (2, {0: "length", 1: "length"})


def test_an_end_token_is_counted_and_is_no_text():
    async def read():
        made, (one,) = answers(1)
        made.start(for_ever)
        put(one, [97, END], "stop")
        return [part async for part in made.parts()], made

    parts, made = asyncio.run(read())
    assert "".join(part.text for part in parts) == "a" and parts[-1].finish_reason == "stop" and made.usage.completion_tokens == 2


def test_a_stop_text_cancels_its_stream_alone():
    async def read():
        made, (one, two) = answers(2, ["b"])
        made.start(for_ever)
        put(one, b"abcd")
        parts = [await made.part(), await made.part()]
        stopped = (one.cancelled, two.cancelled)
        made.close()
        return parts, stopped, two.cancelled

    parts, stopped, closed = asyncio.run(read())
    assert [(part.text, part.finish_reason) for part in parts] == [("a", None), ("", "stop")]
    assert stopped == (True, False) and closed


def test_a_client_that_leaves_cancels_all():
    async def read():
        made, streams = answers(2)
        made.start(left)
        with pytest.raises(ClientDisconnected):
            await made.part()
        return [stream.cancelled for stream in streams]

    assert asyncio.run(read()) == [True, True]


def test_an_error_of_a_stream_is_raised():
    async def read():
        made, (one, _) = answers(2)
        made.start(for_ever)
        one.put(RuntimeError("broken"))
        with pytest.raises(RuntimeError, match="broken"):
            await made.part()
        made.close()

    asyncio.run(read())
