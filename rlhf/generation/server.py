"""The policy server: `python -m rlhf.generation.server`. One frozen backbone, adapters by name, the OpenAI chat protocol.

Binds to loopback. Lists the base and every policy version of the store under `/v1/models`, streams answers, and keeps
the queue of unjudged comparisons filled. Leaves out training.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from jinja2 import TemplateError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException

from rlhf import model_files
from rlhf.config import DEFAULT_MODEL
from rlhf.generation.answer_pool import RETRY_S, AnswerPool, ClientDisconnected, Piece, ServerBusy, StreamedAnswer
from rlhf.generation.chat_request import ChatRequest
from rlhf.generation.engine import Engine
from rlhf.generation.http_guard import PolicyServerMiddleware
from rlhf.models.backbone import Backbone
from rlhf.models.lengths import PromptTooLong
from rlhf.safe_files import ModelError
from rlhf.serving import endpoints
from rlhf.serving.completion_source import route_by_version
from rlhf.serving.endpoint_client import EndpointClient, EndpointSource
from rlhf.serving.endpoints import EndpointOptionError
from rlhf.serving.filler import ComparisonGenerator
from storage.content import policies
from storage.core import file_modes
from storage.core.data_folder import DataFolder
from storage.core.database import Database, StoreError
from storage.core.records import Message, PolicyVersion

log = logging.getLogger("rankloop.serve")

CONNECTIONS = 200
"""Most connections open at once; the web process needs a dozen."""

STOP_S = 5
"""How long answers may go on when the server stops, in seconds."""

MOST_WRONG = 8
"""Most validation errors of one request that the response lists."""

CLIENT_LEFT = 499
"""HTTP status for the log, when the client has closed the connection."""


def build_server(engine: Engine, filler: ComparisonGenerator) -> FastAPI:
    """The HTTP application over the engine and the comparison generator."""

    chats = AnswerPool()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        filler.start()
        yield
        chats.close()
        filler.stop()

    # Not published: the description of the protocol is OpenAI's. Tests have it from `openapi`.
    app = FastAPI(title="rankloop policy server", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(PolicyServerMiddleware)

    # OpenAI's clients show an error's words only where their own server has them.
    @app.exception_handler(StarletteHTTPException)
    def refused(_: Request, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse({"error": {"message": error.detail}}, error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        wrong = "; ".join(": ".join(filter(None, (".".join(map(str, e["loc"][1:])), e["msg"]))) for e in error.errors()[:MOST_WRONG])
        return JSONResponse({"error": {"message": wrong}}, 400)

    @app.get("/status")
    async def status() -> dict[str, Any]:
        return {
            "ready": True,
            "filling": filler.filling,
            "seconds_per_comparison": filler.seconds_per_comparison,
            "note": filler.note,
            "batch_notes": filler.batch_notes,
            "collectors": [version.name for version in filler.collectors],
        }

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {
            "object": "list",
            "data": [{"id": v.name, "object": "model", "created": 0, "owned_by": v.kind} for v in engine.versions()],
        }

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(request: ChatRequest, client: Request) -> Response | dict[str, Any]:
        version = await run_in_threadpool(_version, engine, request.model)
        messages = [Message(role=m.role, content=m.content) for m in request.messages]
        try:
            # Checked before the answer waits in the queue, so that an invalid prompt is refused at once.
            prompt = await run_in_threadpool(engine.prompt, messages)
        except (PromptTooLong, TemplateError) as error:
            raise HTTPException(400, f"messages: {error}") from error
        sampling = request.sampling
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        try:
            answer = await chats.begin(lambda on_progress: engine.stream_text(version, prompt, sampling, seed, on_progress), client.receive)
            pieces = answer.pieces()
            # Awaited before anything is sent, so that a damaged adapter gives an error and not a broken stream.
            first = await anext(pieces)
        except ServerBusy as error:
            raise HTTPException(503, str(error), {"Retry-After": str(RETRY_S)}) from error
        except ClientDisconnected:
            return Response(status_code=CLIENT_LEFT)
        except ModelError as error:
            log.warning("%s", error)
            raise HTTPException(503, engine.without_paths(version, error)) from error
        head = {"id": f"chatcmpl-{secrets.token_hex(8)}", "created": int(time.time()), "model": version.name}
        if request.stream:
            return StreamingResponse(_events(head, first, pieces, answer), media_type="text/event-stream")
        try:
            received = [first, *[piece async for piece in pieces]]
        except ClientDisconnected:
            return Response(status_code=CLIENT_LEFT)
        finally:
            answer.leave()
        message = {"role": "assistant", "content": "".join(piece for piece, _ in received).strip()}
        return head | {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": received[-1][1]}]}

    return app


def _version(engine: Engine, name: str) -> PolicyVersion:
    try:
        return engine.named(name)
    except KeyError:
        names = ", ".join(v.name for v in engine.versions())
        raise HTTPException(404, f"no model {name!r}; there are: {names}") from None


async def _events(head: dict[str, Any], first: Piece, pieces: AsyncIterator[Piece], answer: StreamedAnswer) -> AsyncIterator[str]:
    head = head | {"object": "chat.completion.chunk"}

    def event(piece: Piece) -> str:
        delta = {"content": piece[0]} if piece[0] else {}
        return f"data: {json.dumps(head | {'choices': [{'index': 0, 'delta': delta, 'finish_reason': piece[1]}]})}\n\n"

    try:
        yield event(first)
        async for piece in pieces:
            yield event(piece)
        yield "data: [DONE]\n\n"
    except ClientDisconnected:
        return
    finally:
        answer.leave()


def end_with(parent: int) -> None:
    """Ends this process when its parent has ended in any way, so that a killed web process leaves no server behind."""
    try:
        process = psutil.Process(parent)
        # A zombie has ended, and so has a process whose id was given to another.
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(1.0)
    except psutil.NoSuchProcess:
        pass
    log.info("the web process is gone")
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rlhf.generation.server", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the store")
    parser.add_argument("--port", type=int, required=True, help="TCP port on 127.0.0.1")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="`default`, a local folder, or a hub id")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--parent", type=int, help="process id to end with")
    endpoints.add_options(parser)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", datefmt="%H:%M:%S")
    if arguments.parent:
        threading.Thread(target=end_with, args=(arguments.parent,), daemon=True).start()
    os.umask(file_modes.UMASK)
    folder = DataFolder(arguments.data)
    try:
        chosen = endpoints.from_options(arguments)
        store = Database(folder.database)
        backbone = Backbone.load(model_files.resolve(arguments.model), arguments.device)
    except (StoreError, ModelError, EndpointOptionError) as error:
        log.error("%s", error)
        return 2
    engine = Engine(store, arguments.model, backbone)
    collectors = {policies.ensure_external(store, endpoint.version): EndpointClient(endpoint) for endpoint in chosen}
    generate = route_by_version({version.id: EndpointSource(client) for version, client in collectors.items()}, engine.generate)

    def refusal_reason(version: PolicyVersion) -> str:
        return collectors[version].down_reason() if version in collectors else engine.refusal_reason(version)

    app = build_server(engine, ComparisonGenerator(store, generate, arguments.model, [*collectors], refusal_reason=refusal_reason))
    log.info("policy server ready on port %d", arguments.port)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=STOP_S,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
