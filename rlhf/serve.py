"""The policy server: `python -m rlhf.serve`. One frozen backbone, adapters by name, the OpenAI chat protocol.

Binds to loopback. Lists the base and every policy version of the store under `/v1/models`, streams answers, and keeps
the queue of unjudged comparisons filled. Leaves out training.
"""

from __future__ import annotations

import argparse
import json
import logging
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from rlhf import weights
from rlhf.backbone import Backbone
from rlhf.client import PolicyClient
from rlhf.config import DEFAULT_MODEL
from rlhf.filler import Drawn, EndpointGenerator, Filler
from rlhf.sampling import generator, sample, stream
from storage import policies
from storage.database import Database, DataFolder, StoreError
from storage.records import PolicyVersion, Prompt, Sampling

log = logging.getLogger("rankloop.serve")

LONGEST_ANSWER = 1024


class Policies:
    """Base and tuned policies by name over one backbone, read by one thread at a time."""

    def __init__(self, store: Database, folder: DataFolder, model: str, backbone: Backbone):
        self.store, self.folder, self.model, self.backbone = store, folder, model, backbone
        self.base = policies.ensure_base(store, model)
        # The adapter in use is a state of the backbone: whoever reads it must hold this.
        self.lock = threading.Lock()

    def versions(self) -> list[PolicyVersion]:
        """Those that this backbone can speak as."""
        return [v for v in policies.all_versions(self.store) if v.id == self.base.id or (v.kind == "tuned" and v.base_model == self.model)]

    def named(self, name: str) -> PolicyVersion:
        for version in self.versions():
            if version.name == name:
                return version
        raise KeyError(name)

    def adapter(self, version: PolicyVersion) -> str | None:
        """The adapter of a version, loaded when it is first asked for. Call with the lock held."""
        if version.adapter_path is None:
            return None
        if version.name not in self.backbone.adapters:
            self.backbone.load_adapter(version.name, policies.adapter_folder(self.store, version))
        return version.name

    def draw(
        self, asked: Sequence[tuple[PolicyVersion, Prompt]], sampling: Sampling, seed: int, tick: Callable[[], None] = lambda: None
    ) -> list[Drawn]:
        """Answers for the queue, those of one policy in one batch."""
        drawn: dict[int, Drawn] = {}
        for policy_id in {policy.id for policy, _ in asked}:
            mine = [i for i, (policy, _) in enumerate(asked) if policy.id == policy_id]
            started = time.monotonic()
            prompts = [self.backbone.encode(asked[i][1].messages) for i in mine]
            with self.lock, self.backbone.using(self.adapter(asked[mine[0]][0])):
                sampled = sample(self.backbone, prompts, sampling, generator(self.backbone.device, seed, policy_id), tick)
            latency = time.monotonic() - started
            for i, s in zip(mine, sampled, strict=True):
                drawn[i] = Drawn(self.backbone.decode(s.ids), s.finish_reason, latency)
        return [drawn[i] for i in range(len(asked))]

    def speak(self, version: PolicyVersion, messages: Sequence[dict], sampling: Sampling, seed: int) -> Iterator[tuple[str, str | None]]:
        """Pieces of one answer with None, and at last an empty piece with the finish reason.

        The lock is taken for each token, so that several answers and the queue advance side by side.
        """
        prompt = self.backbone.encode(messages)
        with self.lock:
            adapter = self.adapter(version)
        tokens = stream(self.backbone, [prompt], sampling, generator(self.backbone.device, seed))
        ids: list[int] = []
        said, reason = "", "length"
        while True:
            with self.lock, self.backbone.using(adapter):
                step = next(tokens, None)
            if step is None:
                break
            token = int(step[0][0])
            if token == self.backbone.eos_id:
                reason = "stop"
                break
            ids.append(token)
            text = self.backbone.tokenizer.decode(ids, skip_special_tokens=True)
            # A character of several tokens decodes to U+FFFD until its last one is there.
            if not text.endswith("\N{REPLACEMENT CHARACTER}") and len(text) > len(said):
                yield text[len(said) :], None
                said = text
        yield "", reason


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


def build_server(speakers: Policies, filler: Filler) -> FastAPI:
    """The HTTP face of the policies and the filler."""

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        filler.start()
        yield
        filler.stop()

    app = FastAPI(title="rankloop policy server", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/status")
    def status() -> dict:
        return {
            "ready": True, "filling": filler.filling, "seconds_per_comparison": filler.seconds_per_comparison, "note": filler.note,
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
        head = {"id": f"chatcmpl-{secrets.token_hex(8)}", "created": int(time.time()), "model": version.name}
        if request.stream:
            return StreamingResponse(_events(head, pieces), media_type="text/event-stream")
        text, reason = "", None
        for piece, reason in pieces:
            text += piece
        message = {"role": "assistant", "content": text.strip()}
        return head | {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": reason}]}

    return app


def _events(head: dict, pieces: Iterator[tuple[str, str | None]]) -> Iterator[str]:
    head = head | {"object": "chat.completion.chunk"}
    for piece, reason in pieces:
        delta = {"content": piece} if piece else {}
        yield f"data: {json.dumps(head | {'choices': [{'index': 0, 'delta': delta, 'finish_reason': reason}]})}\n\n"
    yield "data: [DONE]\n\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rlhf.serve", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the store")
    parser.add_argument("--port", type=int, required=True, help="TCP port on 127.0.0.1")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="`default`, a local folder, or a hub id")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--endpoint", help="collect answers from this OpenAI-compatible endpoint instead (ends in /v1)")
    parser.add_argument("--endpoint-model", help="the model to ask there")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", datefmt="%H:%M:%S")
    folder = DataFolder(arguments.data)
    try:
        store = Database(folder.database)
        backbone = Backbone.load(weights.resolve(arguments.model), arguments.device)
    except (StoreError, weights.ModelError) as error:
        log.error("%s", error)
        return 2
    speakers = Policies(store, folder, arguments.model, backbone)
    if arguments.endpoint:
        generate = EndpointGenerator(PolicyClient(arguments.endpoint), arguments.endpoint_model)
        collector = policies.ensure_external(store, arguments.endpoint_model)
    else:
        generate, collector = speakers.draw, None
    app = build_server(speakers, Filler(store, generate, arguments.model, collector))
    log.info("policy server ready on port %d", arguments.port)
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
