"""Talks to a policy server, or to any endpoint that speaks the OpenAI chat protocol. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import httpx2
import openai

from storage.records import Message


class PolicyServerDown(Exception):
    """Nothing answers at the endpoint, or what answers is no such server; the message says what to do."""


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
    """One endpoint. `base_url` ends in `/v1`."""

    def __init__(self, base_url: str, api_key: str = "unused", timeout_s: float = 120.0):
        self.base_url = base_url.rstrip("/")
        self._openai = openai.OpenAI(
            base_url=self.base_url, api_key=api_key, max_retries=0, timeout=openai.Timeout(timeout_s, connect=3.0)
        )

    def models(self) -> list[str]:
        """Names of the base and of every policy version.

        Raises:
            PolicyServerDown: nothing answers.
        """
        with _mapped(self.base_url):
            return [m.id for m in self._openai.models.list()]

    def stream(self, model: str, messages: Sequence[Message], *, temperature: float, max_tokens: int) -> Iterator[str]:
        """The answer, piece by piece. Closing the iterator stops the server.

        Raises:
            PolicyServerDown: nothing answers, or the answer broke off.
        """
        with _mapped(self.base_url):
            with self._openai.chat.completions.create(
                model=model, messages=list(messages), temperature=temperature, max_tokens=max_tokens, stream=True
            ) as chunks:
                for chunk in chunks:
                    if chunk.choices and chunk.choices[0].delta.content:
                        yield chunk.choices[0].delta.content

    def complete(
        self, model: str, messages: Sequence[Message], *, temperature: float, top_p: float, max_tokens: int, seed: int, top_k: int = 0
    ) -> Reply:
        """The whole answer at once.

        Raises:
            PolicyServerDown: nothing answers.
        """
        with _mapped(self.base_url):
            reply = self._openai.chat.completions.create(
                model=model, messages=list(messages), temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed,
                # OpenAI's protocol has none, though most servers of open models take it: only sent where somebody asks.
                extra_body={"top_k": top_k} if top_k else None,
            )
            if not reply.choices:
                raise PolicyServerDown(f"{self.base_url} answered without a choice: is it an OpenAI-compatible chat endpoint?")
            return Reply(reply.choices[0].message.content or "", reply.choices[0].finish_reason or "stop")

    def status(self) -> ServerStatus:
        """What the policy server is doing; only rankloop's own server knows this.

        Raises:
            PolicyServerDown: nothing answers.
        """
        with _mapped(self.base_url):
            reply = httpx2.get(self.base_url.removesuffix("/v1") + "/status", timeout=3.0)
            reply.raise_for_status()
            return ServerStatus(**reply.json())


class _mapped:
    """Turns the foreign errors of one endpoint into ours, once."""

    def __init__(self, base_url: str):
        self.base_url = base_url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, traceback) -> None:
        if isinstance(error, openai.APIStatusError):
            raise PolicyServerDown(f"{self.base_url} refused ({error.status_code}): {error.message}") from error
        if isinstance(error, (openai.OpenAIError, httpx2.HTTPError, ValueError, TypeError)):
            raise PolicyServerDown(
                f"no answer from the policy server at {self.base_url} ({type(error).__name__}). It is restarted within "
                "seconds if rankloop started it; otherwise check --endpoint."
            ) from error
