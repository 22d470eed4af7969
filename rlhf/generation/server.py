"""The policy server: `python -m rlhf.generation.server`. One frozen backbone, adapters by name, OpenAI's protocol.

Binds to loopback, or with an API key to another address. Lists the base and every policy version of the store under `/v1/models`,
streams answers to chats and completions, and keeps the queue of unjudged comparisons filled. Leaves out training; what requests and
responses look like is in `rlhf.generation.protocol`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException

from rlhf import model_files
from rlhf.config import DEFAULT_MODEL
from rlhf.generation.device_sharing import DeviceSharing
from rlhf.generation.http_guard import PolicyServerMiddleware
from rlhf.generation.policy_service import CURRENT, PolicyService
from rlhf.generation.protocol import lora
from rlhf.generation.protocol.errors import ApiError, error_object, error_response, validation_error
from rlhf.generation.protocol.handlers import Handlers
from rlhf.generation.protocol.metrics import CONTENT_TYPE, ServerMetrics
from rlhf.generation.protocol.requests import ChatRequest, CompletionRequest
from rlhf.generation.torch_thread import TorchThread
from rlhf.models.backbone import Backbone
from rlhf.safe_files import ModelError
from rlhf.serving import api_key, endpoints, lora_options
from rlhf.serving.completion_source import route_by_version
from rlhf.serving.endpoints import Endpoint, EndpointOptionError
from rlhf.serving.filler import ComparisonGenerator
from storage.content import policies
from storage.core import file_modes
from storage.core.data_folder import DataFolder
from storage.core.database import Database, StoreError
from storage.core.records import PolicyVersion

if TYPE_CHECKING:
    from rlhf.serving.endpoint_client import EndpointSource

log = logging.getLogger("rankloop.serve")

CONNECTIONS = 200
"""Most connections open at once; the web process needs a dozen."""

STOP_S = 5
"""How long answers may go on when the server stops, in seconds."""


def build_server(
    service: PolicyService,
    filler: ComparisonGenerator | None,
    *,
    api_key: str = "",
    sharing: DeviceSharing | None = None,
    lora_folder: Path | None = None,
    processed_logprobs: bool = False,
) -> FastAPI:
    """The HTTP application over the engine.

    Args:
        sharing: frees the accelerator for training rounds.
        filler: keeps the queue of comparisons filled; None for a server that only answers requests.
        api_key: what every request must bring, but those for `/health`; without one only this machine is answered.
        lora_folder: clients may load adapters from below this folder; None for a server that takes none.
        processed_logprobs: log-probabilities are those of the distribution that tokens are sampled from.
    """

    metrics = ServerMetrics(service.metrics)
    handlers = Handlers(service, metrics, processed_logprobs=processed_logprobs)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        if filler is not None:
            filler.start()
        if sharing is not None:
            sharing.start()
        yield
        if sharing is not None:
            sharing.stop()
        handlers.close()
        # Ends the completions that the generator waits for, too.
        service.close()
        if filler is not None:
            filler.stop()

    # Not published: the description of the protocol is OpenAI's. Tests have it from `openapi`.
    app = FastAPI(title="rankloop policy server", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(PolicyServerMiddleware, api_key=api_key)

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(StarletteHTTPException)
    async def no_such_route(_: Request, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse(error_object(error.status_code, str(error.detail)), error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(validation_error(error.errors()))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(await run_in_threadpool(metrics.text), headers={"Content-Type": CONTENT_TYPE})

    @app.get("/status")
    async def status() -> dict[str, Any]:
        return {
            "ready": True,
            "filling": filler is not None and filler.filling,
            "seconds_per_comparison": filler and filler.seconds_per_comparison,
            "seconds_per_answer": filler and filler.seconds_per_answer,
            "note": filler.note if filler else "",
            "batch_notes": filler.batch_notes if filler else {},
            "collectors": [version.name for version in filler.collectors] if filler else [],
        }

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        named = [model_object(version, base=service.base.name) for version in service.listed()]
        return {"object": "list", "data": [model_object(service.named(CURRENT), CURRENT, base=service.base.name), *named]}

    # A hub id has a slash.
    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return model_object(await handlers.version(name), name, base=service.base.name)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(request: ChatRequest, http: Request) -> Response:
        return await handlers.chat(request, http)

    @app.post("/v1/completions", response_model=None)
    async def complete(request: CompletionRequest, http: Request) -> Response:
        return await handlers.complete(request, http)

    if lora_folder is not None:
        lora.add_routes(app, service, lora_folder)
    return app


def model_object(version: PolicyVersion, name: str | None = None, *, base: str) -> dict[str, Any]:
    """A policy version as the protocol describes a model, under its own name or another.

    `root` is its own name, and `parent` the base of a tuned one, as vLLM has it.
    """
    created = int(datetime.fromisoformat(version.created_at).timestamp())
    parent = base if version.kind == "tuned" else None
    described = {"id": name or version.name, "object": "model", "created": created, "owned_by": version.kind}
    return described | {"root": version.name, "parent": parent}


def endpoint_sources(store: Database, chosen: Sequence[Endpoint]) -> dict[PolicyVersion, EndpointSource]:
    """A source of answers for each endpoint, by its policy version in the store."""
    if not chosen:
        return {}
    # Imported here because openai's client takes its time, and most servers have no endpoint.
    from rlhf.serving.endpoint_client import EndpointClient, EndpointSource

    return {policies.ensure_external(store, endpoint.version): EndpointSource(EndpointClient(endpoint)) for endpoint in chosen}


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
    parser.add_argument("--port", type=int, required=True, help="TCP port")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at; any but this machine's own needs a key")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="`default`, a local folder, or a hub id")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--load-in-4bit", action="store_true", help="pack the base's weights in 4 bits; needs bitsandbytes")
    parser.add_argument("--parent", type=int, help="process id to end with")
    parser.add_argument("--no-queue", action="store_true", help="answer requests alone, and leave the queue of comparisons as it is")
    lora_options.add_options(parser)
    api_key.add_option(parser)
    endpoints.add_options(parser)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", datefmt="%H:%M:%S")
    if arguments.parent:
        threading.Thread(target=end_with, args=(arguments.parent,), daemon=True).start()
    os.umask(file_modes.UMASK)
    folder = DataFolder(arguments.data)
    try:
        key = api_key.for_host(arguments.host, arguments.api_key_file)
        chosen = endpoints.from_options(arguments)
        store = Database(folder.database)
        # Without a template no prompt can be put to the model, but texts can be continued.
        weights, thread = model_files.resolve(arguments.model), TorchThread()
        load = partial(Backbone.load, weights, arguments.device, load_in_4bit=arguments.load_in_4bit, needs_template=not arguments.no_queue)
        loading = thread.submit(load)
        backbone = loading.result()
        service = PolicyService(store, arguments.model, backbone, thread=thread)
        collectors = endpoint_sources(store, endpoints.named_apart(store, arguments.model, chosen))
    except (StoreError, ModelError, EndpointOptionError) as error:
        log.error("%s", error)
        return 2
    generate = route_by_version({version.id: source for version, source in collectors.items()}, service.generate)

    def refusal_reason(version: PolicyVersion) -> str:
        return collectors[version].client.down_reason() if version in collectors else service.refusal_reason(version)

    filler = ComparisonGenerator(store, generate, arguments.model, [*collectors], refusal_reason=refusal_reason)
    sharing = None if backbone.device.type == "cpu" else DeviceSharing(service, store)
    app = build_server(
        service,
        None if arguments.no_queue else filler,
        api_key=key,
        sharing=sharing,
        lora_folder=arguments.lora_folder,
        processed_logprobs=arguments.logprobs_mode == "processed_logprobs",
    )
    log.info("policy server ready on port %d", arguments.port)
    uvicorn.run(
        app,
        host=arguments.host,
        port=arguments.port,
        log_level="warning",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=STOP_S,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
