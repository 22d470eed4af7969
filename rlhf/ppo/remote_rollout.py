"""Rollouts that a server samples: the adapter goes there before each batch, and the trainer computes on the tokens that come back.

The trainer's own log-probabilities, values and recorded activations come from one forward pass over prompt and response, as if its
engine had sampled these tokens. Leaves out HTTP (`rlhf.serving.rollout_client`) and the correction of the loss (`ppo_math`).
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rlhf.generation.engine import GenerationEngine
from rlhf.generation.recording import RolloutRecorder
from rlhf.generation.request import GenerationRequest
from rlhf.generation.sampling import GeneratedSequence
from rlhf.models.adapters import AdapterChoice
from rlhf.models.backbone import Backbone
from rlhf.models.padding import pad_right, positions
from rlhf.ppo.rollout import POLICY
from rlhf.runs.work import NO_PROGRESS, Work
from rlhf.serving.rollout_client import Ask, RolloutClient, RolloutServerError, SampledTokens
from storage.core.records import Sampling

log = logging.getLogger("rankloop.rollouts")

REPLAY_BATCH = 16
"""Responses in one forward pass over sampled tokens."""

MAX_MEAN_DIFFERENCE = 0.25
"""Mean difference of the base's log-probabilities here and there, in nats, above which it is another model. Rounding to bfloat16 makes
some hundredths, a 4-bit base about a tenth."""

CHECK_TOKENS = 32
"""Most tokens of the answer on which the two are compared."""


@dataclass(frozen=True, slots=True)
class EngineDifference:
    """How far two engines are apart on one answer of the base, in nats per token."""

    tokens: int
    largest: float
    mean: float
    mean_unscaled: float
    """Of the log-probabilities at temperature 1: a server that reports those has this one close to 0."""


class RemoteSampler:
    """Samples rollouts at a server: a `Sampler`.

    Args:
        folder: where adapters are written for the server to read.
        run: the run's id, which begins the names of its adapters there.
        named: the base model's name at the server, where it has several.
    """

    def __init__(self, backbone: Backbone, client: RolloutClient, folder: Path, run: str, *, named: str | None = None):
        self.backbone, self.client, self.folder = backbone, client, folder
        self._prefix, self._session, self._number = f"rankloop-{run}-", secrets.token_hex(4), 0
        self._loaded: str | None = None
        self._engine = GenerationEngine(backbone)
        self.base = client.base_model(named)

    def check(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int = 0) -> EngineDifference:
        """Compares the server's base with this run's, on an answer to the first prompt.

        Raises:
            RolloutServerError: it is another model, reports log-probabilities of another distribution, or has too short a context.
        """
        longest = max(map(len, prompts)) + sampling.max_new_tokens
        if self.base.max_length is not None and longest > self.base.max_length:
            raise self.client.error(
                f"it computes {self.base.max_length:,} tokens of prompt and answer at most, and this run needs {longest:,}",
                f"start it with --max-model-len {longest}, or lower --max-length",
            )
        request = GenerationRequest(tuple(prompts[0]), replace(sampling, max_new_tokens=min(sampling.max_new_tokens, CHECK_TOKENS)), seed)
        [sampled] = self.client.complete(self.base.id, [self._ask(request)])
        found = compare(self.backbone, request, sampled)
        log.info(
            "rollouts: %s at %s; over %d tokens of the base the log-probabilities differ by %.4f nats at most, %.4f on average",
            self.base.id, self.client.url, found.tokens, found.largest, found.mean,
        )  # fmt: skip
        if found.mean <= MAX_MEAN_DIFFERENCE:
            return found
        differ = (
            f"the log-probabilities of {found.tokens} tokens differ by {found.largest:.2f} nats at most and {found.mean:.2f} on average"
        )
        if found.mean_unscaled <= MAX_MEAN_DIFFERENCE:
            raise self.client.error(
                f"{differ}, because they are those of temperature 1, and it samples at {sampling.temperature:g}",
                "start it with --logprobs-mode processed_logprobs",
            )
        named = self.base.id + (f" ({self.base.root})" if self.base.root not in ("", self.base.id) else "")
        raise self.client.error(f"its base model {named} is not this run's: {differ}", "serve the model that --model names, unquantised")

    def __call__(
        self, requests: Sequence[GenerationRequest], recorder: RolloutRecorder, on_progress: Work = NO_PROGRESS
    ) -> tuple[list[GeneratedSequence], list[list[float]]]:
        """Sends the policy's adapter, samples, and records what the trainer's own pass computes."""
        name = self._push()
        asks = [self._ask(request) for request in requests]
        on_progress.total(1 + sum(ask.sampling.max_new_tokens for ask in asks))
        sampled = self.client.complete(name, asks, on_progress)
        replay(self.backbone, recorder, requests, [s.ids for s in sampled], adapter=POLICY)
        sequences = [GeneratedSequence(s.ids, self.backbone.finish_reason(s.ids)) for s in sampled]
        return sequences, [s.logprobs for s in sampled]

    def _ask(self, request: GenerationRequest) -> Ask:
        return Ask(request.prompt_ids, replace(request.sampling, max_new_tokens=self._engine.room(request)), request.seed)

    def _push(self) -> str:
        """The name of an adapter at the server with the policy's present weights; the one before it is unloaded.

        Each has a name of its own: a server may keep keys and values by an adapter's name when its weights have changed.
        """
        self._number += 1
        name = f"{self._prefix}{self._session}-{self._number}"
        self.backbone.save_adapter(POLICY, self.folder / name)
        self.client.load(name, self.folder / name)
        before, self._loaded = self._loaded, name
        if before is not None:
            self._unload(before)
        return name

    def _unload(self, name: str) -> None:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        self.client.unload(name)

    def unload_left_over(self) -> None:
        """Unloads what an earlier attempt of this run left there when it was killed."""
        for name in self.client.adapters():
            if name.startswith(self._prefix):
                self.client.unload(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Unloads the last adapter. A server that has gone is no error here: it has none any more."""
        # A run that is cancelled waits for this all the same.
        self.client.on_wait = lambda: None
        try:
            if self._loaded is not None:
                self.client.unload(self._loaded, attempts=1)
        except RolloutServerError as error:
            log.warning("the adapter %s stays there: %s", self._loaded, error)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def remote_sampler(
    backbone: Backbone,
    url: str,
    api_key: str,
    folder: Path,
    run: str,
    *,
    named: str | None = None,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[RemoteSampler]:
    """A sampler at the server with this address. At the end of the block, however it ends, its adapter is unloaded there.

    Args:
        on_wait: called while the server is waited for; what it raises ends the wait.
    """
    vocabulary = len(backbone.base.get_input_embeddings().weight)
    client = RolloutClient(url, api_key, vocabulary=vocabulary, end_tokens=backbone.eos_token_ids, on_wait=on_wait)
    sampler = RemoteSampler(backbone, client, folder, run, named=named)
    try:
        sampler.unload_left_over()
        yield sampler
    finally:
        sampler.close()


@torch.no_grad()
def replay(
    backbone: Backbone,
    recorder: RolloutRecorder,
    requests: Sequence[GenerationRequest],
    responses: Sequence[Sequence[int]],
    *,
    adapter: AdapterChoice,
    batch_size: int = REPLAY_BATCH,
) -> None:
    """Records of given responses what the engine records while it samples."""
    # Whatever reads a response later puts `eos_id` at its end, so the recorded activations are that token's.
    read = [[*(ids[:-1] if backbone.finish_reason(ids) == "stop" else ids), backbone.eos_id] for ids in responses]
    # Rows of similar length share a batch: less padding.
    order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_ids) + len(read[i]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        ids, real = pad_right([[*requests[i].prompt_ids, *read[i]] for i in batch], backbone.pad_id)
        ids, real = ids.to(backbone.device), real.to(backbone.device)
        with recorder.recording():
            hidden = backbone.decoder.forward(ids, real, positions=positions(real), adapter=adapter)
        for row, i in enumerate(batch):
            prompt, count = len(requests[i].prompt_ids), len(responses[i])
            recorder.add_activations([i], row, 0, prompt + len(read[i]))
            # The position before a token predicts it.
            predicting = hidden[row, prompt - 1 : prompt - 1 + count]
            tokens = torch.tensor(responses[i], device=backbone.device)
            stats = backbone.token_logprobs(predicting, tokens, requests[i].sampling.temperature, entropy=True)
            assert stats.entropy is not None, "it was asked for"
            at = torch.arange(count, device=backbone.device)
            recorder.add_tokens(torch.full_like(at, i), at, count, stats.logprobs, stats.entropy, predicting)


@torch.no_grad()
def compare(backbone: Backbone, request: GenerationRequest, sampled: SampledTokens) -> EngineDifference:
    """The base's log-probabilities of an answer here, beside those of the engine that sampled it."""
    there = torch.tensor(sampled.logprobs)
    differences = []
    for temperature in (request.sampling.temperature, 1.0):
        recorder = RolloutRecorder(backbone, [len(request.prompt_ids)], len(sampled.ids))
        scaled = replace(request, sampling=replace(request.sampling, temperature=temperature))
        replay(backbone, recorder, [scaled], [sampled.ids], adapter=None)
        differences.append((recorder.logprobs[0].cpu() - there).abs())
    here, unscaled = differences
    return EngineDifference(len(there), float(here.max()), float(here.mean()), float(unscaled.mean()))
