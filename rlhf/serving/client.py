"""Talks to a policy server, or to any endpoint that speaks the OpenAI chat protocol. No torch here."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Generic, TypeVar

import httpx2
import openai

from storage.core.records import Message

T = TypeVar("T")

CONNECT_S = 3.0
"""Longest wait for a connection, in seconds."""

LOOKUP_S = 3.0
"""Longest that the server may take to say what it is doing, in seconds. Nobody waits that long: see `PATIENCE_S`."""

PATIENCE_S = 0.5
"""How long a page waits to hear what the server is doing, in seconds."""

KEPT_S = 30.0
"""How long the last thing that the server said stands in for what it is too slow to say, in seconds."""

STREAM_S = 30.0
"""Longest silence of an answer that is read as it is written, in seconds. The server begins within 20 s, or refuses."""


class PolicyServerDown(Exception):
    """Nothing answers at the endpoint, or what answers is no such server; the message says what to do."""


class PolicyServerBusy(PolicyServerDown):
    """The server has all the answers to write that it takes on."""


class PolicyServerRefused(PolicyServerDown):
    """The server does not take this request; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What the policy server is busy with."""

    ready: bool
    filling: bool
    seconds_per_comparison: float | None
    note: str
    batch_notes: dict[str, str] = field(default_factory=dict)
    """Why a batch does not go on, by its id as text. Names policy versions: not for who judges blind."""
    collector: str = ""
    """The policy version for answers from elsewhere, if the server collects from there."""


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    finish_reason: str


class PolicyClient:
    """One endpoint. `base_url` ends in `/v1`.

    `status` and `models` are for pages, in whose threads others judge: they are asked in two threads of their own, and
    answer within `PATIENCE_S` whatever the server does.
    """

    def __init__(self, base_url: str, api_key: str = "unused", timeout_s: float = 120.0):
        self.base_url = base_url.rstrip("/")
        self.api_key = api_key
        self._openai = openai.OpenAI(
            base_url=self.base_url, api_key=api_key, max_retries=0, timeout=openai.Timeout(timeout_s, connect=CONNECT_S)
        )
        threads = ThreadPoolExecutor(2, thread_name_prefix="policy-lookup")
        self._models = Lookup(self._ask_models, threads, self._silent)
        self._status = Lookup(self._ask_status, threads, self._silent)

    @cached_property
    def _streaming(self) -> openai.AsyncOpenAI:
        # No connection is kept: event loops come and go in tests, and an answer takes far longer than to connect.
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

    def _ask_models(self) -> list[str]:
        with map_client_errors(self.base_url):
            return [m.id for m in self._openai.with_options(timeout=LOOKUP_S).models.list()]

    async def stream(self, model: str, messages: Sequence[Message], *, temperature: float, max_tokens: int) -> AsyncGenerator[str, None]:
        """The answer, piece by piece. Closing the iterator stops the server; no thread waits for it.

        Raises:
            PolicyServerBusy: the server has enough to do.
            PolicyServerRefused: the request is not one that it takes.
            PolicyServerDown: nothing answers, or the answer broke off.
        """
        with map_client_errors(self.base_url):
            async with await self._streaming.chat.completions.create(
                model=model, messages=list(messages), temperature=temperature, max_tokens=max_tokens, stream=True
            ) as chunks:
                async for chunk in chunks:
                    if chunk.choices and chunk.choices[0].delta.content:
                        yield chunk.choices[0].delta.content

    def complete(
        self, model: str, messages: Sequence[Message], *, temperature: float, top_p: float, max_tokens: int, seed: int, top_k: int = 0
    ) -> Reply:
        """The whole answer at once.

        Raises:
            PolicyServerDown: nothing answers.
        """
        with map_client_errors(self.base_url):
            reply = self._openai.chat.completions.create(
                model=model,
                messages=list(messages),
                temperature=temperature,
                top_p=top_p,
                max_tokens=max_tokens,
                seed=seed,
                # OpenAI's protocol has none, though most servers of open models take it: only sent where somebody asks.
                extra_body={"top_k": top_k} if top_k else None,
            )
            if not reply.choices:
                raise PolicyServerDown(f"{self.base_url} answered without a choice: is it an OpenAI-compatible chat endpoint?")
            return Reply(reply.choices[0].message.content or "", reply.choices[0].finish_reason or "stop")

    def status(self) -> ServerStatus:
        """What the policy server is doing; only rankloop's own server knows this.

        Raises:
            PolicyServerDown: nothing answers, or not soon enough.
        """
        return self._status.get()

    def _ask_status(self) -> ServerStatus:
        with map_client_errors(self.base_url):
            reply = self._http.get(self.base_url.removesuffix("/v1") + "/status")
            reply.raise_for_status()
            return ServerStatus(**reply.json())

    @cached_property
    def _http(self) -> httpx2.Client:
        return httpx2.Client(timeout=LOOKUP_S)

    def _silent(self) -> PolicyServerDown:
        return PolicyServerDown(
            f"the policy server at {self.base_url} has not answered for {PATIENCE_S:g} s. It may be busy or hang: wait a moment, "
            "and if it stays like this, start rankloop again."
        )


class Lookup(Generic[T]):
    """One question that many ask at once: it is put by one thread at a time, and all wait for its answer, but not for long.

    Once the answer was too slow, nobody waits until one has come again.
    """

    def __init__(self, ask: Callable[[], T], threads: ThreadPoolExecutor, silent: Callable[[], Exception]):
        self._ask, self._threads, self._silent = ask, threads, silent
        self._lock = Lock()
        self._flight: Future[T] | None = None
        self._known: tuple[float, T] | None = None
        self._slow = False

    def get(self) -> T:
        """What the question's answer is, or was lately where it does not come in time; raises what `ask` raises."""
        with self._lock:
            if self._flight is None or self._flight.done():
                self._begun = time.monotonic()
                self._flight = self._threads.submit(self._timed)
            flight = self._flight
            patience = 0.0 if self._slow else max(0.0, self._begun + PATIENCE_S - time.monotonic())
        try:
            return flight.result(patience)
        except TimeoutError:
            self._slow = True
        known = self._known
        if known is not None and time.monotonic() - known[0] < KEPT_S:
            return known[1]
        raise self._silent()

    def _timed(self) -> T:
        started = time.monotonic()
        try:
            found = self._ask()
            self._known = (time.monotonic(), found)
            return found
        finally:
            self._slow = time.monotonic() - started > PATIENCE_S


class map_client_errors:
    """Turns the foreign errors of one endpoint into ours, once."""

    def __init__(self, base_url: str):
        self.base_url = base_url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, traceback) -> None:
        if isinstance(error, openai.APIStatusError):
            # 503 is also said where an adapter cannot be read; only who is too busy says when to come back.
            busy = error.status_code == 503 and "retry-after" in error.response.headers
            kind = PolicyServerBusy if busy else PolicyServerRefused if error.status_code < 500 else PolicyServerDown
            raise kind(f"{self.base_url} refused ({error.status_code}): {error.message}") from error
        if isinstance(error, (openai.OpenAIError, httpx2.HTTPError, ValueError, TypeError)):
            raise PolicyServerDown(
                f"no answer from the policy server at {self.base_url} ({type(error).__name__}). It is restarted within "
                "seconds if rankloop started it; otherwise check --endpoint."
            ) from error
