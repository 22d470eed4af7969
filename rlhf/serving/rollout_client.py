"""Client of a server that samples PPO's rollouts: vLLM with adapters that are loaded while it runs, or rankloop's policy server.

It says what the server has, loads and unloads adapters by name, and takes token ids back with their log-probabilities. What comes back
is checked before anybody uses it. Leaves out what is trained on it and where adapters are written (`rlhf.ppo.remote_rollout`). No torch.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from storage.core.records import Sampling

log = logging.getLogger("rankloop.rollouts")

T = TypeVar("T")

CONNECT_S, ANSWER_S = 5.0, 300.0
"""Longest wait for a connection and for a whole answer, in seconds."""

MAX_CONCURRENT_REQUESTS = 64
"""Requests that the server gets at once."""

MAX_ATTEMPTS = 6
"""Requests for one answer where the server is overloaded, broken or away, the first one included."""

FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 30.0
"""Pause before the second attempt, doubled before each further one, and its limit, in seconds."""

PROGRESS_S = 0.5
"""How often the caller hears that answers are still waited for, in seconds."""

MAX_BODY_BYTES = 16 << 20
"""Bytes of a response that are read; one answer has some hundred bytes for each token."""

MAX_ERROR_CHARS = 300
"""Characters of a server's message that are shown and stored."""

RETRIED = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which the same request may succeed later."""

RANK = re.compile(r"rank (\d+) is greater than max_lora_rank (\d+)", re.I)
"""vLLM's words where an adapter is larger than the server was started for."""

KEY_REMEDY = "name the variable or the file that holds the key: --rollouts-key-env, --rollouts-key-file"
DYNAMIC_REMEDY = (
    "start vLLM with --enable-lora and with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment, "
    "or rankloop's policy server with --lora-folder"
)


class RolloutServerError(Exception):
    """The rollout server does not work, or not for this run; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The base model as the server lists it."""

    id: str
    root: str
    """Where it comes from: a folder or a hub id."""
    max_length: int | None
    """Most tokens of prompt and answer together; None where the server does not say."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer to ask for."""

    prompt_ids: Sequence[int]
    sampling: Sampling
    """Its `max_new_tokens` is the most that fits."""
    seed: int


@dataclass(frozen=True, slots=True)
class SampledTokens:
    """One answer: its token ids, the end token included, with their log-probabilities under the distribution they were sampled from."""

    ids: list[int]
    logprobs: list[float]


class _Refused(Exception):
    """The server answered with an error status that another attempt does not mend."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


class RolloutClient:
    """Asks one rollout server. Everything is called from one thread, which waits until the answers are there.

    Args:
        url: with or without `/v1` at its end.
        vocabulary: how many token ids the model has.
        end_tokens: ids that end an answer.
        on_wait: called every `PROGRESS_S` while the server is waited for; an exception from it ends the requests.
        attempts, first_pause_s: see `MAX_ATTEMPTS`, `FIRST_PAUSE_S`.
    """

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        vocabulary: int,
        end_tokens: Sequence[int],
        on_wait: Callable[[], None] = lambda: None,
        attempts: int | None = None,
        first_pause_s: float | None = None,
    ):
        self.url = url.rstrip("/").removesuffix("/v1")
        self.vocabulary, self.end_tokens = vocabulary, tuple(end_tokens)
        self.on_wait = on_wait
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._has_key = bool(api_key)
        self._attempts = attempts or MAX_ATTEMPTS
        self._first_pause_s = FIRST_PAUSE_S if first_pause_s is None else first_pause_s
        self._folders: dict[str, Path] = {}

    # What the server has.

    def base_model(self, named: str | None = None) -> ServedModel:
        """The base model to sample with: the one of that name, or the only one.

        Raises:
            RolloutServerError: there is none, or there are several and no name.
        """
        listed = self._models()
        ids = {entry["id"] for entry in listed}
        # A tuned version has a parent; another name of a listed model has that one as its root.
        bases = [entry for entry in listed if not entry.get("parent") and str(entry.get("root")) not in ids - {entry["id"]}]
        found = [entry for entry in bases if named in (None, entry["id"])]
        if len(found) != 1:
            names = ", ".join(str(entry["id"])[:100] for entry in bases) or "none"
            what = (
                f"it has no base model {named!r}" if named else "it serves more than one base model" if bases else "it lists no base model"
            )
            raise self.error(f"{what}; there are: {names}", "name one of them with --rollouts-model")
        length = found[0].get("max_model_len")
        return ServedModel(found[0]["id"], str(found[0].get("root") or ""), length if type(length) is int and length > 0 else None)

    def adapters(self) -> list[str]:
        """The names of all that the server lists."""
        return [entry["id"] for entry in self._models()]

    def _models(self) -> list[dict[str, Any]]:
        try:
            found = self._run(lambda http: self._request(http, "GET", "/v1/models"))
        except _Refused as refusal:
            raise self.error(f"it lists no models ({refusal.status}: {refusal.message})", "check --rollouts") from refusal
        listed = found.get("data") if isinstance(found, dict) else None
        if not isinstance(listed, list) or not all(isinstance(entry, dict) and isinstance(entry.get("id"), str) for entry in listed):
            raise self.error("its list of models does not follow OpenAI's protocol", "check --rollouts")
        return listed

    # Adapters.

    def load(self, name: str, folder: Path) -> None:
        """Loads the adapter in a folder, which the server must see under the same path.

        Raises:
            RolloutServerError: it takes none while it runs, or not this one.
        """
        self._run(lambda http: self._load(http, name, folder))
        self._folders[name] = folder

    async def _load(self, http: httpx2.AsyncClient, name: str, folder: Path) -> None:
        body = {"lora_name": name, "lora_path": str(folder)}
        try:
            # vLLM's status for an adapter that it cannot load is 500: the same request fails again.
            await self._request(http, "POST", "/v1/load_lora_adapter", body, final=frozenset({500}))
        except _Refused as refusal:
            raise self._not_loaded(refusal, folder) from refusal

    def _not_loaded(self, refusal: _Refused, folder: Path) -> RolloutServerError:
        if found := RANK.search(refusal.message):
            return self.error(
                f"the adapter has rank {found[1]}, and the server was started for {found[2]} at most",
                f"start vLLM with --max-lora-rank {found[1]}, or train with --adapter-rank {found[2]}",
            )
        if refusal.status in (404, 405) and refusal.message.strip().lower() in ("not found", "method not allowed"):
            return self.error("it loads no adapters while it runs", DYNAMIC_REMEDY)
        if "lora is not enabled" in refusal.message.lower():
            return self.error(f"it serves no adapters ({refusal.message})", DYNAMIC_REMEDY)
        return self.error(
            f"it did not load the adapter in {folder} ({refusal.status}: {refusal.message})",
            "the server must be able to read that folder, under that path, and support the adapter's kind; its log says more",
        )

    def unload(self, name: str, *, attempts: int | None = None) -> None:
        """Unloads an adapter. Harmless where the server has none of that name.

        Raises:
            RolloutServerError: the server does not work.
        """
        self._folders.pop(name, None)
        try:
            self._run(lambda http: self._request(http, "POST", "/v1/unload_lora_adapter", {"lora_name": name}, attempts=attempts))
        except _Refused as refusal:
            if refusal.status != 404:
                raise self.error(f"it did not unload {name} ({refusal.status}: {refusal.message})", "see its log") from refusal

    # Answers.

    def complete(self, model: str, asks: Sequence[Ask], on_progress: Callable[[int], None] = lambda tokens: None) -> list[SampledTokens]:
        """One answer for each ask, in their order.

        A server that comes back within the attempts goes on; it gets the adapter again where it has lost it.

        Args:
            on_progress: gets the number of tokens that came. An exception from it ends all requests.

        Raises:
            RolloutServerError: the server does not answer, or not with what was asked for.
        """

        async def all_of(http: httpx2.AsyncClient) -> list[SampledTokens]:
            places, reloading = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS), _Reload(self, http, model)

            async def one(ask: Ask) -> SampledTokens:
                async with places:
                    return await self._complete(http, model, ask, reloading)

            tasks = [asyncio.create_task(one(ask)) for ask in asks]
            pending = set(tasks)
            try:
                while pending:
                    done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    on_progress(sum(len(task.result().ids) for task in done))
                return [task.result() for task in tasks]
            finally:
                # A connection that closes tells the server to stop.
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        return self._run(all_of)

    async def _complete(self, http: httpx2.AsyncClient, model: str, ask: Ask, reloading: _Reload) -> SampledTokens:
        body = self._completion(model, ask)
        loads = reloading.count
        try:
            reply = await self._request(http, "POST", "/v1/completions", body)
        except _Refused as refusal:
            if refusal.status != 404 or model not in self._folders:
                raise self._refused(refusal) from refusal
            await reloading.after(loads)
            try:
                reply = await self._request(http, "POST", "/v1/completions", body)
            except _Refused as again:
                raise self._refused(again) from again
        return self._checked(reply, ask)

    def _completion(self, model: str, ask: Ask) -> dict[str, Any]:
        """All that decides the distribution is sent: a server has defaults of its own for what is left out."""
        sampling = ask.sampling
        return {
            "model": model,
            "prompt": list(ask.prompt_ids),
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": 0,
            "repetition_penalty": 1,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "seed": ask.seed,
            "stop_token_ids": list(self.end_tokens),
            "logprobs": 0,
            "return_token_ids": True,
        }

    def _checked(self, reply: Any, ask: Ask) -> SampledTokens:
        try:
            choice = reply["choices"][0]
            ids, logprobs, reason = choice.get("token_ids"), (choice.get("logprobs") or {}).get("token_logprobs"), choice["finish_reason"]
        except (TypeError, LookupError, AttributeError) as error:
            raise self.error("its answer does not follow the protocol of completions", "check --rollouts") from error
        if not isinstance(ids, list) or not isinstance(logprobs, list):
            raise self.error(
                "its answer has no token ids or no log-probabilities", "take a server that knows return_token_ids: vLLM 0.10.2 or newer"
            )
        if not all(type(token) is int and 0 <= token < self.vocabulary for token in ids):
            raise self.error(f"it sampled a token that this run's model does not have: it has {self.vocabulary:,}", "check its model")
        if len(ids) != len(logprobs) or not all(type(p) in (int, float) and math.isfinite(p) and p <= 1e-3 for p in logprobs):
            raise self.error(f"its {len(ids)} tokens have {len(logprobs)} log-probabilities, or some that are none", "see its log")
        ends = [i for i, token in enumerate(ids) if token in self.end_tokens]
        ended = reason == "stop" and bool(ids) and ends == [len(ids) - 1]
        full = reason == "length" and not ends and len(ids) == ask.sampling.max_new_tokens
        if not (ended or full):
            raise self.error(
                f"an answer of {len(ids)} tokens, of {ask.sampling.max_new_tokens} at most, ended with {str(reason)[:40]!r}, and not by "
                "an end token of this run's model or at that limit",
                "start it with the same model and generation config, and without a lower limit of tokens",
            )
        return SampledTokens([*ids], [float(p) for p in logprobs])

    # Requests.

    def _run(self, work: Callable[[httpx2.AsyncClient], Awaitable[T]]) -> T:
        async def run() -> T:
            limits = httpx2.Limits(max_connections=MAX_CONCURRENT_REQUESTS)
            timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
            # A redirect could lead the key and the prompts elsewhere.
            async with httpx2.AsyncClient(
                base_url=self.url, headers=self._headers, limits=limits, timeout=timeout, follow_redirects=False
            ) as http:
                task = asyncio.ensure_future(work(http))
                try:
                    while not (await asyncio.wait({task}, timeout=PROGRESS_S))[0]:
                        self.on_wait()
                    return task.result()
                finally:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)

        return asyncio.run(run())

    async def _request(
        self,
        http: httpx2.AsyncClient,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        final: frozenset[int] = frozenset(),
        attempts: int | None = None,
    ) -> Any:
        """The JSON of a response, or its text where it is none; several attempts where the server may recover.

        Args:
            final: statuses from 500 on that another attempt does not mend.

        Raises:
            _Refused: an error status that is about this request.
            RolloutServerError: no answer, or one that is about all requests.
        """
        pause_s, attempts = self._first_pause_s, attempts or self._attempts
        for attempt in range(1, attempts + 1):
            try:
                status, content = await self._once(http, method, path, body)
            except httpx2.HTTPError as error:
                what, remedy = f"no answer ({type(error).__name__})", "check that it runs, and that --rollouts is its address"
            else:
                if status == 200:
                    return _json_or_text(content)
                message = _message(content)
                if status in (401, 403):
                    key = "it refuses the key" if self._has_key else "it wants a key"
                    raise self.error(f"{key} ({status}: {message})", KEY_REMEDY)
                if 300 <= status < 400:
                    raise self.error(f"it redirects to another address ({status}), which is not followed", "give that address itself")
                if status in final or not (status in RETRIED or status >= 500):
                    raise _Refused(status, message)
                what, remedy = f"it answers {status}: {message}", "see its log"
            if attempt < attempts:
                log.warning("rollout server: %s; attempt %d of %d follows in %g s", what, attempt + 1, attempts, pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
        raise self.error(f"{what}, after {attempts} attempts", f"{remedy}; the run can be resumed then")

    async def _once(self, http: httpx2.AsyncClient, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, bytes]:
        async with http.stream(method, path, json=body) as response:
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_BODY_BYTES:
                    raise self.error(f"a response has more than {MAX_BODY_BYTES:,} bytes", "check --rollouts")
            return response.status_code, bytes(content)

    def _refused(self, refusal: _Refused) -> RolloutServerError:
        return self.error(f"it refuses a request ({refusal.status}: {refusal.message})", "see its options and its log")

    def error(self, what: str, remedy: str) -> RolloutServerError:
        """An error of this server, with cause and remedy."""
        return RolloutServerError(f"the rollout server {self.url}: {what}. To mend it: {remedy}.")


class _Reload:
    """Loads an adapter again that the server has lost, once for all answers that wait for it."""

    def __init__(self, client: RolloutClient, http: httpx2.AsyncClient, name: str):
        self.client, self.http, self.name, self.count = client, http, name, 0
        self._lock = asyncio.Lock()

    async def after(self, loads: int) -> None:
        """Loads it, unless somebody has done so since there had been this many loads."""
        async with self._lock:
            if self.count == loads:
                log.warning("rollout server: it has lost the adapter, which is loaded again")
                await self.client._load(self.http, self.name, self.client._folders[self.name])
                self.count += 1


def _json_or_text(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content.decode(errors="replace")


def _message(content: bytes) -> str:
    """The server's own words, on one line and within bounds."""
    found = _json_or_text(content)
    if isinstance(found, dict):
        error = found.get("error")
        found = (error.get("message") if isinstance(error, dict) else error) or found.get("detail") or found.get("message") or ""
    return " ".join(str(found).split())[:MAX_ERROR_CHARS]
