"""The engine's interface for single answers over the loop that samples one batch: answers take turns, one token each."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlhf.generation.engine import Engine
from rlhf.generation.request import EngineBusy, GenerationRequest, GenerationStream, RequestCancelled, TokenOutput
from rlhf.generation.sampling import generator, sample_token
from rlhf.models.decoder import BatchKVCache
from storage.core.records import PolicyVersion

MOST_OPEN, AT_ONCE, CHUNK = 96, 16, 512


class OneAtATime(Engine):
    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._threads = ThreadPoolExecutor(AT_ONCE)
        self._open, self._running, self._count = 0, 0, threading.Lock()

    def submit(self, version: PolicyVersion, request: GenerationRequest, *, client: str = "") -> GenerationStream:
        with self._turns:
            request = replace(request, adapter=self._adapter(version))
        with self._count:
            if self._open >= MOST_OPEN:
                raise EngineBusy(f"{MOST_OPEN} answers are sampled or wait: try again in 5 s")
            self._open += 1
        stream = GenerationStream(request)
        self._threads.submit(self._run, stream)
        return stream

    def start(self) -> None:
        pass

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def metrics(self) -> Mapping[str, float]:
        with self._count:
            return {"queued": self._open - self._running, "running": self._running}

    def _run(self, stream: GenerationStream) -> None:
        with self._count:
            self._running += 1
        self._add_active_chats(1)
        try:
            for output in self._tokens(stream):
                stream.put(output)
        except BaseException as error:
            stream.put(error)
        finally:
            self._add_active_chats(-1)
            with self._count:
                self._open, self._running = self._open - 1, self._running - 1

    @torch.no_grad()
    def _tokens(self, stream: GenerationStream) -> Iterator[TokenOutput]:
        request, backbone = stream.request, self.backbone
        context = backbone.context or 1 << 30
        most = max(1, min(request.sampling.max_new_tokens, context - len(request.prompt_ids)))
        rng = generator(backbone.device, request.seed)
        ids = torch.tensor([request.prompt_ids], device=backbone.device)
        cache = BatchKVCache(backbone.base.config, ids.shape[1] + most + 1)
        counts = torch.zeros(backbone.base.config.vocab_size)
        done, hidden = 0, torch.empty(0)
        for step in range(most):
            while done < ids.shape[1]:
                if stream.cancelled:
                    raise RequestCancelled
                end = min(done + CHUNK, ids.shape[1])
                with self._turns, backbone.use_adapter(request.adapter), torch.no_grad():
                    mask = torch.ones(1, end, dtype=torch.bool)
                    hidden = backbone.decoder.forward(ids[:, done:end], mask, positions=torch.arange(done, end)[None], cache=cache.cache)[
                        :, -1
                    ]
                done = end
            logits = backbone.logits(hidden).float()
            adjusted = self._adjusted(logits, counts, request)
            token = int(sample_token(adjusted, request.sampling, rng)[0])
            counts[token] += 1
            logprobs = logits.log_softmax(-1)[0]
            top: tuple[tuple[int, float], ...] = ()
            if request.logprobs:
                best = logprobs.topk(request.logprobs)
                top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
            ends = token in backbone.eos_token_ids or token in request.stop_token_ids
            reason = "stop" if ends else "length" if step + 1 == most else None
            yield TokenOutput(token, reason, float(logprobs[token]) if request.logprobs is not None else None, top)  # type: ignore[arg-type]
            if ends:
                return
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)

    def _adjusted(self, logits: Tensor, counts: Tensor, request: GenerationRequest) -> Tensor:
        change = request.adjustments
        logits = logits - change.presence_penalty * (counts > 0) - change.frequency_penalty * counts
        for token, bias in change.bias.items():
            logits[:, token] += bias
        return logits
