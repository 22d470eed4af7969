"""The policy server: `python -m rlhf.serve`. One frozen backbone, adapters by name, the OpenAI chat protocol.

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
from collections.abc import Iterator
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Literal

import psutil
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from rlhf import weights
from rlhf.backbone import Backbone
from rlhf.client import PolicyClient
from rlhf.config import DEFAULT_MODEL
from rlhf.filler import EndpointGenerator, Filler, routed
from rlhf.speakers import Speakers
from storage import policies, private
from storage.database import Database, DataFolder, StoreError
from storage.records import PolicyVersion, Sampling

log = logging.getLogger("rankloop.serve")

LONGEST_ANSWER = 1024


class ChatMessage(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=20_000)


class ChatRequest(BaseModel):
    """The part of OpenAI's chat-completions request that a local policy can honour."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=64)
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1, le=LONGEST_ANSWER)
    seed: int | None = Field(None, ge=0)
    stream: bool = False


def build_server(speakers: Speakers, filler: Filler) -> FastAPI:
    """The HTTP face of the policies and the filler."""

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        filler.start()
        yield
        filler.stop()

    app = FastAPI(title="rankloop policy server", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    # OpenAI's clients show an error's words only where their own server has them.
    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": {"message": error.detail}}, error.status_code)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        return JSONResponse({"error": {"message": wrong}}, 400)

    @app.get("/status")
    def status() -> dict:
        return {
            "ready": True, "filling": filler.filling, "seconds_per_comparison": filler.seconds_per_comparison, "note": filler.note,
            "batch_notes": filler.batch_notes, "collector": filler.collector.name if filler.collector else "",
        }

    @app.get("/v1/models")
    def models() -> dict:
        return {
            "object": "list",
            "data": [{"id": v.name, "object": "model", "created": 0, "owned_by": v.kind} for v in speakers.versions()],
        }

    @app.post("/v1/chat/completions", response_model=None)
    def chat(request: ChatRequest) -> dict | StreamingResponse:
        try:
            version = speakers.named(request.model)
        except KeyError:
            known = ", ".join(v.name for v in speakers.versions())
            raise HTTPException(404, f"no model {request.model!r}; there are: {known}") from None
        sampling = Sampling(temperature=request.temperature, top_p=request.top_p, max_new_tokens=request.max_tokens)
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        pieces = speakers.speak(version, [m.model_dump() for m in request.messages], sampling, seed)
        try:
            # Drawn before anything is sent, so that a damaged adapter is told as an error and not as a broken stream.
            first = next(pieces)
        except weights.ModelError as error:
            raise HTTPException(503, str(error)) from error
        head = {"id": f"chatcmpl-{secrets.token_hex(8)}", "created": int(time.time()), "model": version.name}
        if request.stream:
            # A reader may leave at any piece; the speaker must hear of it, for the filler waits while anybody chats.
            left = BackgroundTask(pieces.close)
            return StreamingResponse(_events(head, chain([first], pieces)), media_type="text/event-stream", background=left)
        said = [first, *pieces]
        message = {"role": "assistant", "content": "".join(piece for piece, _ in said).strip()}
        return head | {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": said[-1][1]}]}

    return app


def _events(head: dict, pieces: Iterator[tuple[str, str | None]]) -> Iterator[str]:
    head = head | {"object": "chat.completion.chunk"}
    for piece, reason in pieces:
        delta = {"content": piece} if piece else {}
        yield f"data: {json.dumps(head | {'choices': [{'index': 0, 'delta': delta, 'finish_reason': reason}]})}\n\n"
    yield "data: [DONE]\n\n"


def end_with(parent: int) -> None:
    """Ends this process when its parent is gone, however it went: a killed web process leaves no server behind."""
    try:
        process = psutil.Process(parent)
        # A zombie is gone, and so is a process whose number another one has now.
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(1.0)
    except psutil.NoSuchProcess:
        pass
    log.info("the web process is gone")
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rlhf.serve", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the store")
    parser.add_argument("--port", type=int, required=True, help="TCP port on 127.0.0.1")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="`default`, a local folder, or a hub id")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--parent", type=int, help="process id to end with")
    parser.add_argument("--endpoint", help="collect answers from this OpenAI-compatible endpoint instead (ends in /v1)")
    parser.add_argument("--endpoint-model", help="the model to ask there")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", datefmt="%H:%M:%S")
    if arguments.parent:
        threading.Thread(target=end_with, args=(arguments.parent,), daemon=True).start()
    os.umask(private.UMASK)
    folder = DataFolder(arguments.data)
    try:
        store = Database(folder.database)
        backbone = Backbone.load(weights.resolve(arguments.model), arguments.device)
    except (StoreError, weights.ModelError) as error:
        log.error("%s", error)
        return 2
    speakers = Speakers(store, arguments.model, backbone)
    if arguments.endpoint:
        collector = policies.ensure_external(store, arguments.endpoint_model)
        endpoint = EndpointGenerator(PolicyClient(arguments.endpoint), arguments.endpoint_model)
        generate = routed(collector, endpoint, speakers.draw)
    else:
        generate, collector = speakers.draw, None

    def why_not(version: PolicyVersion) -> str:
        return "" if version == collector else speakers.why_not(version)

    app = build_server(speakers, Filler(store, generate, arguments.model, collector, why_not=why_not))
    log.info("policy server ready on port %d", arguments.port)
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
