"""Answers chat and completion requests with the generation engine, whole or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from rlhf.generation.policy_service import CURRENT, PolicyService
from rlhf.generation.protocol.answers import Answers, ClientDisconnected
from rlhf.generation.protocol.conversations import completion_prompts, conversation, vocabulary_size
from rlhf.generation.protocol.errors import ApiError, error_object
from rlhf.generation.protocol.metrics import RequestTimer, ServerMetrics
from rlhf.generation.protocol.requests import ChatRequest, CompletionRequest
from rlhf.generation.protocol.responses import ChatFormat, CompletionFormat, Delta, Format, Usage
from rlhf.generation.protocol.text_stream import TextStream
from rlhf.generation.request import (
    ClientBusy,
    EngineBusy,
    GenerationRequest,
    GenerationStream,
    ModelReleased,
    RequestCancelled,
    TokenOutput,
)
from rlhf.models.lengths import PromptTooLong
from rlhf.models.reasoning import ReasoningMarks
from rlhf.safe_files import ModelError
from rlhf.serving.http_origin import is_loopback
from rlhf.serving.limits import MAX_PROMPT_TOKENS
from storage.core.records import PolicyVersion

log = logging.getLogger("rankloop.serve")

RETRY_S = 5
"""After how many seconds a client that was refused for lack of room should try again."""

RELEASED_RETRY_S = 60
"""The same for one that was refused because a training round has the accelerator's memory."""

KEEP_ALIVE_S = 10.0
"""Of a stream that has nothing to say for so long, a comment is sent, so that its client does not take it for dead, in seconds."""

CLIENT_LEFT = 499
"""HTTP status for the log, when the client has closed the connection."""

SEED_RANGE = 2**63


class Handlers:
    """The two routes that generate.

    Args:
        processed_logprobs: return log-probabilities of the distribution that tokens are sampled from, as vLLM's `processed_logprobs`.
    """

    def __init__(self, service: PolicyService, metrics: ServerMetrics, *, processed_logprobs: bool = False):
        self.service, self.metrics, self.processed_logprobs = service, metrics, processed_logprobs
        self._open: set[Answers] = set()

    def close(self) -> None:
        """Cancels every answer."""
        for answers in list(self._open):
            answers.close()

    async def version(self, name: str) -> PolicyVersion:
        """Raises ApiError where there is no such version."""
        try:
            return await run_in_threadpool(self.service.named, name)
        except KeyError:
            names = ", ".join([CURRENT, *(version.name for version in await run_in_threadpool(self.service.listed))])
            raise ApiError(404, f"no model {name!r}; there are: {names}", param="model", code="model_not_found") from None

    async def chat(self, request: ChatRequest, http: Request) -> Response:
        version = await self.version(request.model)
        timer = self.metrics.begin(self.service.counted_as(version))
        try:
            prompt = await run_in_threadpool(self._conversation, request)
        except ApiError:
            timer.end("refused")
            raise
        form = ChatFormat(version.name, self.service.backbone.tokenizer, logprobs=request.logprobs, include_usage=request.include_usage)
        return await self._respond(version, [prompt], request, form, self.service.backbone.reasoning, timer, http)

    def _conversation(self, request: ChatRequest) -> list[int]:
        messages = conversation(self.service.backbone, request.messages)
        try:
            return self.service.prompt(messages)
        except PromptTooLong as error:
            raise ApiError(400, f"messages: {error}", param="messages", code="context_length_exceeded") from error
        except TemplateError as error:
            raise ApiError(400, f"messages: {error}", param="messages", code="chat_template_error") from error

    async def complete(self, request: CompletionRequest, http: Request) -> Response:
        version = await self.version(request.model)
        timer = self.metrics.begin(self.service.counted_as(version))
        backbone = self.service.backbone
        longest = min(MAX_PROMPT_TOKENS, (backbone.context or MAX_PROMPT_TOKENS + 1) - 1)
        try:
            prompts = await run_in_threadpool(completion_prompts, backbone, request.prompts, longest)
        except ApiError:
            timer.end("refused")
            raise
        logprobs = request.logprobs is not None
        form = CompletionFormat(
            version.name,
            backbone.tokenizer,
            logprobs=logprobs,
            include_usage=request.include_usage,
            return_token_ids=request.return_token_ids,
        )
        # Without a chat template nothing says where reasoning would begin: the text is everything that is sampled.
        return await self._respond(version, prompts, request, form, None, timer, http)

    async def _respond(
        self,
        version: PolicyVersion,
        prompts: Sequence[Sequence[int]],
        request: ChatRequest | CompletionRequest,
        form: Format,
        reasoning: ReasoningMarks | None,
        timer: RequestTimer,
        http: Request,
    ) -> Response:
        usage = Usage(sum(map(len, prompts)))
        try:
            streams = await run_in_threadpool(self._submit, version, prompts, request, _client(http))
        except Exception as error:
            timer.end("refused")
            raise self._api_error(version, error) from error
        backbone = self.service.backbone

        def decode(ids: Sequence[int]) -> str:
            text: str = backbone.tokenizer.decode(ids, skip_special_tokens=True)
            return text

        texts = [TextStream[TokenOutput](decode, request.stops, reasoning) for _ in streams]
        all_tokens = isinstance(request, CompletionRequest) and request.return_token_ids
        answers = Answers(streams, texts, usage, backbone.eos_token_ids, timer.first_token, all_tokens=all_tokens)
        answers.start(http.receive)
        self._open.add(answers)
        first = asyncio.create_task(answers.part())
        try:
            # Nothing is sent before the first token, so that an error is a status and not a broken stream, unless it takes long.
            await asyncio.wait({first}, timeout=KEEP_ALIVE_S if request.stream else None)
            if first.done() and (failure := first.exception()) is not None:
                raise failure
            if request.stream:
                events = self._events(version, first, answers, form, timer, include_usage=request.include_usage)
                return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
            deltas = [part for part in [await first, *[part async for part in answers.parts()]] if part is not None]
        except ClientDisconnected:
            self._end(answers, timer, "cancelled")
            return Response(status_code=CLIENT_LEFT)
        except asyncio.CancelledError:
            self._end(answers, timer, "cancelled")
            raise
        except Exception as error:
            self._end(answers, timer, "failed")
            raise self._api_error(version, error) from error
        self._end(answers, timer, _outcome(answers))
        return JSONResponse(form.whole(deltas, usage))

    def _submit(
        self, version: PolicyVersion, prompts: Sequence[Sequence[int]], request: ChatRequest | CompletionRequest, client: str
    ) -> list[GenerationStream]:
        backbone = self.service.backbone
        if request.logit_bias and (largest := max(request.adjustments.bias)) >= (count := vocabulary_size(backbone)):
            raise ApiError(400, f"logit_bias: there is no token {largest}: the model has {count:,}, from 0", param="logit_bias")
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        ends = frozenset(request.stop_token_ids) if isinstance(request, CompletionRequest) else frozenset[int]()
        streams: list[GenerationStream] = []
        try:
            for prompt in prompts:
                for _ in range(request.n):
                    asked = GenerationRequest(
                        prompt_ids=tuple(prompt),
                        sampling=request.sampling,
                        # The first answer is the one that this seed gives alone.
                        seed=(seed + len(streams)) % SEED_RANGE,
                        stop_token_ids=ends,
                        logprobs=request.token_logprobs,
                        processed_logprobs=self.processed_logprobs,
                        adjustments=request.adjustments,
                    )
                    streams.append(self.service.submit(version, asked, client=client))
        except Exception:
            for stream in streams:
                stream.cancel()
            raise
        return streams

    async def _events(
        self,
        version: PolicyVersion,
        first: asyncio.Task[Delta | None],
        answers: Answers,
        form: Format,
        timer: RequestTimer,
        *,
        include_usage: bool,
    ) -> AsyncIterator[str]:
        task, outcome = first, "cancelled"
        try:
            while True:
                while not (await asyncio.wait({task}, timeout=KEEP_ALIVE_S))[0]:
                    yield ": waiting\n\n"
                if (part := task.result()) is None:
                    break
                for chunk in form.chunks(part):
                    yield _event(chunk)
                task = asyncio.create_task(answers.part())
            if include_usage:
                yield _event(form.usage_chunk(answers.usage))
            yield "data: [DONE]\n\n"
            outcome = _outcome(answers)
        except ClientDisconnected:
            return
        except Exception as error:
            outcome = "failed"
            found = self._api_error(version, error)
            yield _event(error_object(found.status, found.message, param=found.param, code=found.code))
        finally:
            task.cancel()
            self._end(answers, timer, outcome)

    def _end(self, answers: Answers, timer: RequestTimer, outcome: str) -> None:
        answers.close()
        self._open.discard(answers)
        timer.end(outcome, answers.usage)

    def _api_error(self, version: PolicyVersion, error: BaseException) -> ApiError:
        """What a client is told about an error: no path of this machine, and nothing of the program's inside."""
        if isinstance(error, ApiError):
            return error
        if isinstance(error, ClientBusy):
            return ApiError(429, str(error), code="too_many_streams", retry_after_s=RETRY_S)
        if isinstance(error, ModelReleased):
            return ApiError(503, str(error), code="model_released", retry_after_s=RELEASED_RETRY_S)
        if isinstance(error, EngineBusy):
            return ApiError(503, str(error), code="engine_busy", retry_after_s=RETRY_S)
        if isinstance(error, ModelError):
            log.warning("%s", error)
            return ApiError(503, self.service.without_paths(version, error), param="model", code="adapter_not_readable")
        if isinstance(error, PromptTooLong):
            return ApiError(400, str(error), code="context_length_exceeded")
        if isinstance(error, RequestCancelled):
            return ApiError(503, "the server is stopping: try again in a moment", code="server_stopping", retry_after_s=RETRY_S)
        log.error("an answer failed", exc_info=error)
        return ApiError(
            500, f"the answer could not be computed ({type(error).__name__}); the server's log says more", code="internal_error"
        )


def _outcome(answers: Answers) -> str:
    return "length" if "length" in answers.finish_reasons.values() else "stop"


def _client(http: Request) -> str:
    """Whose streams are counted together: an address of another machine. Programs of this machine are not counted."""
    host = http.client.host if http.client else ""
    return "" if is_loopback(host) else host


def _event(data: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"
