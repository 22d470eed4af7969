"""Asks outside models for answers, over OpenAI's chat protocol.

`EndpointClient` asks one endpoint within its budget, leaves out parameters that it does not take, and tells a prompt that the server
refuses apart from a server that does not work. Leaves out which prompts are asked about: that is `filler`'s choice.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import httpx2
import openai
from openai.types.chat import ChatCompletion

from rlhf.serving.client import PolicyServerDown, to_openai
from rlhf.serving.completion_source import GeneratedCompletion, PromptRefused
from rlhf.serving.endpoints import Endpoint
from storage.core.records import Message, PolicyVersion, Prompt, Sampling

log = logging.getLogger("rankloop.endpoints")

CONNECT_S, ANSWER_S = 5.0, 120.0
"""Longest wait for a connection and for a whole answer, in seconds."""

MAX_CONCURRENT_REQUESTS = 4
"""Requests that one endpoint gets at once."""

MAX_ATTEMPTS = 4
"""Requests for one answer where the server is overloaded or broken, the first one included."""

FIRST_DOWN_S, MAX_DOWN_S = 10.0, 300.0
"""How long an endpoint that failed is not asked, doubled with each further failure, and its limit, in seconds."""

FIRST_PAUSE_S, MAX_RETRY_PAUSE_S = 1.0, 30.0
"""Pause before the second attempt, doubled before each further one, and its limit, in seconds."""

MAX_ERROR_CHARS = 300
"""Characters of a server's message that are shown and stored."""

PROBE: Sequence[Message] = ({"role": "user", "content": "Hello"},)
"""A harmless prompt. A server that answers it and refuses another one refuses that prompt."""

RETRIED = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which the same request may succeed later."""

NEEDS_A_PERSON = frozenset({"insufficient_quota", "invalid_api_key", "model_not_found", "billing_hard_limit_reached"})
"""Error codes that no waiting mends."""

REFUSES_PROMPT = frozenset(
    {"content_filter", "content_policy_violation", "context_length_exceeded", "invalid_prompt", "string_above_max_length"}
)
"""Error codes that are about the prompt."""

_SAYS_PROMPT = re.compile(
    r"content.?filter|content management policy|context.?(length|window)|maximum context|moderation|prompt was refused", re.I
)
_SAYS_PARAMETER = re.compile(
    r"unsupported|not supported|not permitted|unrecogni[sz]ed|unknown|unexpected|extra inputs|does not support|invalid_parameter", re.I
)


class EndpointDown(PolicyServerDown):
    """The endpoint answers nobody now; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class EndpointReply:
    """One answer, with what was sent for it and what the server says about it."""

    text: str
    finish_reason: str
    sampling: dict[str, float | int]
    """The sampling parameters that were sent and accepted."""
    seed: int | None
    """None where the server takes none."""
    reported: dict[str, Any]
    """What the server says that it used: its model, its fingerprint, and numbers of tokens."""


class RequestBudget:
    """At most `per_minute` requests in any minute; `wait` blocks until the next one is allowed."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep):
        self.per_minute, self._clock, self._sleep = per_minute, clock, sleep
        self._sent: list[float] = []
        self._lock = threading.Lock()

    def wait(self, on_progress: Callable[[], None] = lambda: None) -> None:
        while True:
            with self._lock:
                now = self._clock()
                self._sent = [moment for moment in self._sent if now - moment < 60.0]
                if len(self._sent) < self.per_minute:
                    self._sent.append(now)
                    return
                left = 60.0 - (now - self._sent[0])
            on_progress()
            self._sleep(min(1.0, left))


class EndpointClient:
    """Asks one endpoint for answers, one request each, within its budget."""

    def __init__(self, endpoint: Endpoint, *, sleep: Callable[[float], None] = time.sleep):
        self.endpoint = endpoint
        # Never the key of the environment: it would be sent to whatever server this is.
        self._openai = openai.OpenAI(
            base_url=endpoint.url.rstrip("/"),
            api_key=endpoint.api_key or "unused",
            max_retries=0,
            timeout=openai.Timeout(ANSWER_S, connect=CONNECT_S),
        )
        # Nor the environment's organization and project, which are of an account elsewhere.
        self._openai.organization = self._openai.project = None
        self._sleep = sleep
        self._budget = RequestBudget(endpoint.requests_per_minute, sleep=sleep)
        self._max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
        self._not_supported: set[str] = set()
        self._has_answered = False
        self._down_s, self._down_until, self._down_reason = FIRST_DOWN_S, 0.0, ""

    def complete(
        self, messages: Sequence[Message], sampling: Sampling, seed: int, on_progress: Callable[[], None] = lambda: None
    ) -> EndpointReply:
        """One answer. `on_progress` is called before each attempt and while waiting; an exception from it ends the call.

        Raises:
            PromptRefused: the server refuses this prompt.
            EndpointDown: it does not work, or not for this key or model.
        """
        try:
            reply = self._complete_or_probe(messages, sampling, seed, on_progress)
        except EndpointDown as error:
            self._down_s = min(2 * self._down_s, MAX_DOWN_S) if self._down_reason else FIRST_DOWN_S
            self._down_until, self._down_reason = time.monotonic() + self._down_s, str(error)
            raise
        self._down_until, self._down_reason = 0.0, ""
        return reply

    def down_reason(self) -> str:
        """Why the endpoint is not asked at present, after a failure; empty where it can be asked."""
        return self._down_reason if time.monotonic() < self._down_until else ""

    def _complete_or_probe(
        self, messages: Sequence[Message], sampling: Sampling, seed: int, on_progress: Callable[[], None]
    ) -> EndpointReply:
        try:
            return self._complete(messages, sampling, seed, on_progress)
        except _Unclear as refusal:
            # The server calls the request bad and does not say why. A prompt that nobody refuses tells which it is.
            if self._has_answered or self._answers_probe(sampling, on_progress):
                raise PromptRefused(str(refusal)) from refusal
            raise self._down(f"refused the request ({refusal})", "check the model and the server's log") from refusal

    def _answers_probe(self, sampling: Sampling, on_progress: Callable[[], None]) -> bool:
        try:
            self._complete(PROBE, sampling, 0, on_progress)
        except (_Unclear, PromptRefused):
            return False
        return True

    def _complete(self, messages: Sequence[Message], sampling: Sampling, seed: int, on_progress: Callable[[], None]) -> EndpointReply:
        pause_s = FIRST_PAUSE_S
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                reply, sent = self._request(messages, sampling, seed, on_progress)
                break
            except openai.APIStatusError as error:
                if attempt == MAX_ATTEMPTS or not _may_pass(error):
                    self._raise(error)
                wait_s = min(max(pause_s, _retry_after_s(error)), MAX_RETRY_PAUSE_S)
            except (openai.APIConnectionError, httpx2.HTTPError) as error:
                if attempt == MAX_ATTEMPTS:
                    raise self._down(
                        f"no answer ({type(error).__name__})", "check that the server runs and that --endpoint is its address"
                    ) from error
                wait_s = pause_s
            except (openai.OpenAIError, ValueError, TypeError) as error:
                raise self._down(f"its answer does not follow the protocol ({type(error).__name__})", "check --endpoint") from error
            self._pause(wait_s, on_progress)
            pause_s = min(2 * pause_s, MAX_RETRY_PAUSE_S)
        if not reply.choices:
            raise self._down("answered without a choice", "is it an OpenAI-compatible chat endpoint?")
        choice = reply.choices[0]
        if choice.finish_reason == "content_filter":
            raise PromptRefused(f"{self.endpoint.version}: the server's content filter stopped the answer")
        self._has_answered = True
        kept = {ours: sent[theirs] for theirs, ours in self._names() if theirs in sent}
        return EndpointReply(choice.message.content or "", choice.finish_reason or "stop", kept, sent.get("seed"), _reported(reply))

    def _names(self) -> tuple[tuple[str, str], ...]:
        return (
            ("temperature", "temperature"),
            ("top_p", "top_p"),
            ("top_k", "top_k"),
            (self._max_tokens_name, "max_new_tokens"),
        )

    def _request(
        self, messages: Sequence[Message], sampling: Sampling, seed: int, on_progress: Callable[[], None]
    ) -> tuple[ChatCompletion, dict[str, Any]]:
        """The server's reply and the parameters sent. Parameters that it does not support are left out from then on."""
        while True:
            sent = self._parameters(sampling, seed)
            on_progress()
            self._budget.wait(on_progress)
            # OpenAI's protocol has no top_k, though most servers of open models accept it.
            extra = {"top_k": sent["top_k"]} if "top_k" in sent else None
            known = {name: value for name, value in sent.items() if name != "top_k"}
            try:
                reply = self._openai.chat.completions.create(
                    model=self.endpoint.model, messages=to_openai(messages), extra_body=extra, **known
                )
                return reply, sent
            except openai.APIStatusError as error:
                if error.status_code not in (400, 422) or not self._leave_out(error, sent):
                    raise

    def _parameters(self, sampling: Sampling, seed: int) -> dict[str, Any]:
        wanted: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self._max_tokens_name: sampling.max_new_tokens,
            "seed": seed,
        }
        if sampling.top_k:
            wanted["top_k"] = sampling.top_k
        return {name: value for name, value in wanted.items() if name not in self._not_supported}

    def _leave_out(self, error: openai.APIStatusError, sent: Mapping[str, Any]) -> bool:
        """Whether the error is about a parameter that can be left out or sent under its other name; remembers it."""
        message = _message(error)
        named = error.param if error.param in sent else None
        if named is None and _SAYS_PARAMETER.search(f"{message} {error.code}"):
            named = next((name for name in sent if re.search(rf"\b{name}\b", message)), None)
        if named is None:
            return False
        if named == "max_tokens":
            self._max_tokens_name = "max_completion_tokens"
        else:
            self._not_supported.add(named)
            log.warning("%s does not take %s: its answers are sampled without it, and stored without it", self.endpoint.version, named)
        return True

    def _pause(self, seconds: float, on_progress: Callable[[], None]) -> None:
        while seconds > 0:
            on_progress()
            self._sleep(min(0.5, seconds))
            seconds -= 0.5

    def _raise(self, error: openai.APIStatusError) -> NoReturn:
        message, status = _message(error), error.status_code
        if (
            status < 500
            and status not in RETRIED
            and (error.code in REFUSES_PROMPT or (status in (400, 413, 422, 451) and _SAYS_PROMPT.search(message)))
        ):
            raise PromptRefused(f"{self.endpoint.version}: {message}") from error
        if status in (401, 403) or error.code == "invalid_api_key":
            key = "its key was refused" if self.endpoint.api_key else "it wants a key"
            raise self._down(
                f"{key} ({status}: {message})", "name the variable or the file that holds the key: --endpoint-key-env, --endpoint-key-file"
            ) from error
        if error.code == "insufficient_quota" or status == 402:
            raise self._down(f"the account has no credit ({message})", "add credit, or take another endpoint") from error
        if status == 404:
            raise self._down(
                f"not found (404: {message})", f"check that it has a model {self.endpoint.model!r}, and that the address ends in /v1"
            ) from error
        if status in (400, 413, 422):
            raise _Unclear(f"{self.endpoint.version}: {status}: {message}") from error
        raise self._down(f"refused ({status}): {message}", "wait, or look at the server's log") from error

    def _down(self, what: str, remedy: str) -> EndpointDown:
        return EndpointDown(f"the endpoint {self.endpoint.url}: {what}: {remedy}.")


class _Unclear(Exception):
    """The server refused the request and did not say whether the prompt or the request is at fault."""


def _may_pass(error: openai.APIStatusError) -> bool:
    return (error.status_code in RETRIED or error.status_code >= 500) and error.code not in NEEDS_A_PERSON


def _retry_after_s(error: openai.APIStatusError) -> float:
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "0")))
    except ValueError:
        return 0.0


def _message(error: openai.APIStatusError) -> str:
    """The server's own words, on one line and within bounds."""
    body = error.body if isinstance(error.body, dict) else {}
    said = body.get("message") or body.get("detail") or error.message
    return " ".join(str(said).split())[:MAX_ERROR_CHARS]


def _reported(reply: ChatCompletion) -> dict[str, Any]:
    found: dict[str, Any] = {"model": reply.model, "system_fingerprint": reply.system_fingerprint}
    if reply.usage is not None:
        found |= {"prompt_tokens": reply.usage.prompt_tokens, "completion_tokens": reply.usage.completion_tokens}
    return {name: value for name, value in found.items() if type(value) in (str, int)}


class EndpointSource:
    """Answers of one endpoint for the comparison generator: several requests at once, within its budget."""

    def __init__(self, client: EndpointClient):
        self.client = client

    def __call__(
        self,
        requests: Sequence[tuple[PolicyVersion, Prompt]],
        sampling: Sampling,
        seed: int,
        on_progress: Callable[[], None] = lambda: None,
    ) -> list[GeneratedCompletion | PromptRefused]:
        """One answer for each request.

        Raises:
            EndpointDown: the endpoint does not work; requests that were not sent yet are not sent.
        """

        def answer(i: int) -> GeneratedCompletion | PromptRefused:
            started = time.monotonic()
            try:
                reply = self.client.complete(requests[i][1].messages, sampling, seed + i, on_progress)
            except PromptRefused as refusal:
                return refusal
            on_progress()
            return GeneratedCompletion(
                reply.text, reply.finish_reason, time.monotonic() - started, reply.seed, reply.sampling, reply.reported
            )

        pool = ThreadPoolExecutor(MAX_CONCURRENT_REQUESTS, thread_name_prefix="endpoint")
        try:
            return list(pool.map(answer, range(len(requests))))
        finally:
            pool.shutdown(cancel_futures=True)
