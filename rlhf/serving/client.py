"""Client of the policy server, for pages. Endpoints of other models have a client of their own: `endpoint_client`. No torch here.

openai's client is imported at the first streamed answer, because the pages start sooner without it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import httpx2

from storage.core.records import Message, Sampling

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletionMessageParam

T = TypeVar("T")

CONNECT_S = 3.0
"""Longest wait for a connection, in seconds."""

LOOKUP_S = 3.0
"""Timeout of a request for the status or the models, in seconds. Pages wait less: see `PATIENCE_S`."""

PATIENCE_S = 0.5
"""How long a page waits for the status or the models, in seconds."""

MAX_AGE_S = 30.0
"""Largest age, in seconds, of an earlier answer that a page gets when the new one does not come in time."""

STREAM_S = 30.0
"""Longest gap between two events of a streamed answer, in seconds. The server sends one every 10 s at least."""


class PolicyServerDown(Exception):
    """Nothing answers at the endpoint, or its answer does not follow the protocol; the message says what to do."""


class PolicyServerBusy(PolicyServerDown):
    """The server generates as many answers as it accepts at once."""


class PolicyServerRefused(PolicyServerDown):
    """The server refuses this request; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """What came of an answer since the last piece."""

    text: str
    finish_reason: str | None = None
    """On the last piece: `stop` if the model ended its answer, `length` if the token limit did."""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The state of the policy server."""

    ready: bool
    filling: bool
    seconds_per_comparison: float | None
    note: str
    batch_notes: dict[str, str] = field(default_factory=dict)
    """Why a batch does not go on, by its id as text. Names policy versions: not for annotators who judge blind."""
    collectors: list[str] = field(default_factory=list)
    """The policy versions of outside endpoints, if the server collects from such."""
    seconds_per_answer: float | None = None
    """Of the comparisons that were written last; None before the first."""


class PolicyClient:
    """The policy server, as pages ask it. `base_url` ends in `/v1`.

    `status` and `models` are for pages, whose threads serve annotators too: their requests run in two threads of their own, and
    both methods return within `PATIENCE_S`, however slow the server is.
    """

    def __init__(self, base_url: str, api_key: str = "unused"):
        self.base_url = base_url.rstrip("/")
        self.api_key = api_key
        self._http = httpx2.Client(timeout=LOOKUP_S)
        threads = ThreadPoolExecutor(2, thread_name_prefix="policy-lookup")
        self._models = Lookup(self._fetch_models, threads, self._no_answer)
        self._status = Lookup(self._fetch_status, threads, self._no_answer)

    @cached_property
    def _streaming(self) -> openai.AsyncOpenAI:
        import openai

        # Without keep-alive: event loops come and go in tests, and generating an answer takes far longer than connecting.
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.api_key,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(
                limits=httpx2.Limits(max_keepalive_connections=0), timeout=openai.Timeout(STREAM_S, connect=CONNECT_S)
            ),
        )

    def models(self) -> list[str]:
        """Names of the base and of every policy version.

        Raises:
            PolicyServerDown: nothing answers, or not soon enough.
        """
        return self._models.get()

    def _fetch_models(self) -> list[str]:
        with map_client_errors(self.base_url):
            return [model["id"] for model in self._fetch("/v1/models")["data"]]

    async def stream(self, model: str, messages: Sequence[Message], sampling: Sampling, *, seed: int) -> AsyncGenerator[AnswerPiece, None]:
        """The answer, piece by piece. Closing the iterator stops the generation; no thread waits for it.

        Raises:
            PolicyServerBusy: the server generates as many answers as it accepts at once.
            PolicyServerRefused: the server refuses the request.
            PolicyServerDown: nothing answers, or the answer broke off.
        """
        with map_client_errors(self.base_url):
            # In another thread, because importing it would keep everybody's requests waiting.
            streaming = await asyncio.to_thread(lambda: self._streaming)
            async with await streaming.chat.completions.create(
                model=model,
                messages=to_openai(messages),
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
                seed=seed,
                stream=True,
                extra_body={"top_k": sampling.top_k},
            ) as chunks:
                async for chunk in chunks:
                    if chunk.choices and (chunk.choices[0].delta.content or chunk.choices[0].finish_reason):
                        yield AnswerPiece(chunk.choices[0].delta.content or "", chunk.choices[0].finish_reason)

    def status(self) -> ServerStatus:
        """The state of the policy server; only rankloop's own server has this route.

        Raises:
            PolicyServerDown: nothing answers, or not soon enough.
        """
        return self._status.get()

    def _fetch_status(self) -> ServerStatus:
        with map_client_errors(self.base_url):
            return ServerStatus(**self._fetch("/status"))

    def _fetch(self, path: str) -> Any:
        reply = self._http.get(self.base_url.removesuffix("/v1") + path, headers={"Authorization": f"Bearer {self.api_key}"})
        return reply.raise_for_status().json()

    def _no_answer(self) -> PolicyServerDown:
        return PolicyServerDown(
            f"the policy server at {self.base_url} has not answered for {PATIENCE_S:g} s. It may be busy or hang: wait a moment, "
            "and if it stays like this, start rankloop again."
        )


class Lookup(Generic[T]):
    """A request whose result many callers share: one thread sends it at a time, and each caller waits `PATIENCE_S` at most.

    After a result that was too slow, callers do not wait at all until one has come in time again.
    """

    def __init__(self, fetch: Callable[[], T], threads: ThreadPoolExecutor, no_answer: Callable[[], Exception]):
        self._fetch, self._threads, self._no_answer = fetch, threads, no_answer
        self._lock = Lock()
        self._pending: Future[T] | None = None
        self._last: tuple[float, T] | None = None
        self._slow = False

    def get(self) -> T:
        """The result, or the last one if it is recent and the new one does not come in time. Raises what `fetch` raises."""
        with self._lock:
            if self._pending is None or self._pending.done():
                self._pending_since = time.monotonic()
                self._pending = self._threads.submit(self._timed)
            pending = self._pending
            wait_s = 0.0 if self._slow else max(0.0, self._pending_since + PATIENCE_S - time.monotonic())
        try:
            return pending.result(wait_s)
        except TimeoutError:
            self._slow = True
        last = self._last
        if last is not None and time.monotonic() - last[0] < MAX_AGE_S:
            return last[1]
        raise self._no_answer()

    def _timed(self) -> T:
        started = time.monotonic()
        try:
            result = self._fetch()
            self._last = (time.monotonic(), result)
            return result
        finally:
            self._slow = time.monotonic() - started > PATIENCE_S


def to_openai(messages: Sequence[Message]) -> list[ChatCompletionMessageParam]:
    # openai has a type for each role; a message's role is known only when it is sent.
    return cast("list[ChatCompletionMessageParam]", list(messages))


class map_client_errors:
    """Turns the errors of openai and httpx2 into those of this module."""

    def __init__(self, base_url: str):
        self.base_url = base_url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is None:
            return
        # An error that has a response is of a server that answered, and an error status.
        response: httpx2.Response | None = getattr(error, "response", None)
        if response is not None:
            # The server also answers 503 where an adapter cannot be read; only a busy one sends retry-after.
            busy = response.status_code in (429, 503) and "retry-after" in response.headers
            failure = PolicyServerBusy if busy else PolicyServerRefused if response.status_code < 500 else PolicyServerDown
            raise failure(f"{self.base_url} refused ({response.status_code}): {error}") from error
        if isinstance(error, (httpx2.HTTPError, ValueError, TypeError, LookupError)) or _is_of_openai(error):
            raise PolicyServerDown(
                f"no answer from the policy server at {self.base_url} ({type(error).__name__}). It is restarted within "
                "seconds if rankloop started it; otherwise check --endpoint."
            ) from error


def _is_of_openai(error: BaseException) -> bool:
    # Where it raised, it was imported before.
    import openai

    return isinstance(error, openai.OpenAIError)
