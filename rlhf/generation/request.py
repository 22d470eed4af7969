"""What the generation engine is asked for and what it returns, token by token.

Leaves out text: requests hold token ids, and whoever reads a stream decodes them. No torch here.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from storage.core.records import Sampling

FinishReason = Literal["stop", "length"]


class EngineBusy(Exception):
    """The engine's queue is full, so a request is not taken; the message names the remedy."""


class ClientBusy(EngineBusy):
    """This client has as many streams as one may have; others are still taken."""


class ModelReleased(EngineBusy):
    """The weights are not on the accelerator now, because somebody else needs its memory; the message says who."""


class RequestCancelled(Exception):
    """The request was cancelled before its answer was complete."""


class EngineClosed(RequestCancelled):
    """The engine has been closed, so a request is not taken or not completed."""


@dataclass(frozen=True, slots=True)
class LogitAdjustments:
    """Changes of the logits before the temperature, as OpenAI's protocol defines them."""

    presence_penalty: float = 0.0
    """Subtracted from the logit of every token that the answer already has."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit once for each time that the answer has it."""
    bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    """Added to the logits of these tokens."""

    def __bool__(self) -> bool:
        return bool(self.presence_penalty or self.frequency_penalty or self.bias)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to one prompt. Requests with equal prompts and adapters share the prefill."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    seed: int = 0
    """The same request with the same seed samples the same tokens when it is computed alone."""
    adapter: str | None = None
    """Name of an adapter of the backbone; None for the base."""
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens that end the answer, beside the model's own end-of-sequence tokens."""
    logprobs: int | None = None
    """Return each token's log-probability, with those of this many of the likeliest tokens; None for none."""
    processed_logprobs: bool = False
    """Return those of the distribution that the token is sampled from, and not of the model's own at temperature 1."""
    adjustments: LogitAdjustments = LogitAdjustments()


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """One sampled token."""

    id: int
    finish_reason: FinishReason | None = None
    """On the last token: `stop` if the token ends the answer, `length` if the token limit or the model's context does."""
    logprob: float | None = None
    """Log-probability in nats, under the distribution that the request asks for."""
    top_logprobs: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens with theirs, likeliest first."""


class GenerationStream:
    """The tokens of one request as they are sampled; read once, either in a thread or in an event loop.

    The last token has a finish reason. The iteration raises the error that ended the request early.
    """

    def __init__(self, request: GenerationRequest):
        self.request = request
        self._lock = threading.Lock()
        self._outputs: queue.SimpleQueue[TokenOutput | BaseException] = queue.SimpleQueue()
        self._notify: Callable[[], None] = lambda: None
        self.cancelled = False
        """Set by `cancel`; the engine drops the request before its next step."""
        self.on_cancel: Callable[[], None] = lambda: None
        """Called by `cancel`; the engine sets it."""

    def cancel(self) -> None:
        """Ends the request before the engine's next step. Harmless when it has ended already."""
        self.cancelled = True
        self.on_cancel()

    def put(self, output: TokenOutput | BaseException) -> None:
        """Called by the engine with each token, or with the error that ends the stream."""
        with self._lock:
            self._outputs.put(output)
            self._notify()

    def __iter__(self) -> Iterator[TokenOutput]:
        while True:
            output = self._outputs.get()
            if isinstance(output, BaseException):
                raise output
            yield output
            if output.finish_reason is not None:
                return

    async def __aiter__(self) -> AsyncIterator[TokenOutput]:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            # The loop may be closed when the server stops.
            if not loop.is_closed():
                loop.call_soon_threadsafe(arrived.set)

        with self._lock:
            self._notify = notify
        while True:
            arrived.clear()
            while not self._outputs.empty():
                output = self._outputs.get()
                if isinstance(output, BaseException):
                    raise output
                yield output
                if output.finish_reason is not None:
                    return
            await arrived.wait()
