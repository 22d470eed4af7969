"""The generation engine: continuous batching on one backbone, with an adapter for each row.

PPO rollouts, evaluation, best-of-n, the comparison queue, the Demo and HTTP clients all generate here. Requests join and leave the
batch between steps; a step decodes one token of every row and reads one chunk of the prompts that are about to join. Leaves out text,
policy versions and HTTP.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from rlhf.generation.lanes import Lane, PaddedLane, Prefill, Prompt, Row, SlotLane
from rlhf.generation.recording import RolloutRecorder
from rlhf.generation.request import (
    ClientBusy,
    EngineBusy,
    EngineClosed,
    GenerationRequest,
    GenerationStream,
    RequestCancelled,
    TokenOutput,
)
from rlhf.generation.sampling import GeneratedSequence, adjusted, combined_seed, likeliest, processed, sample_token, uniforms
from rlhf.generation.static_decode import Graphs, StaticLane, graphs_for, is_static, static_refusal
from rlhf.generation.torch_thread import TorchThread
from rlhf.models.backbone import Backbone
from rlhf.models.lengths import PromptTooLong
from rlhf.runs.work import NO_PROGRESS, Work
from storage.core.records import Sampling

log = logging.getLogger("rankloop.generation")

MAX_ROWS = 64
"""Requests that are decoded side by side."""

MAX_QUEUED = 128
"""Requests that may wait for a place."""

MAX_PER_CLIENT = 96
"""Requests of one client that are computed or wait."""

FOR_CHATS = 8
"""Places that background requests leave free."""

BACKGROUND_WAIT_S = 5.0
"""A background request waits this long behind others, in seconds; after that it goes by its age, so that chats cannot stop it."""

KV_BYTES = 2 << 30
"""Memory for keys and values that is not exceeded by admitting another row; one row alone may take more."""

CHUNK_TOKENS, CHUNK_TOKENS_ALONE = 256, 2048
"""Tokens of the prompts that are read in one step: while rows are being decoded, which wait for it, and while there are none."""

RETRY_S = 5
"""After how many seconds a refused client should try again."""

STATIC = ""
"""In place of an adapter's name: the lane whose steps have fixed shapes."""

T = TypeVar("T")


class EngineLoad(NamedTuple):
    """How much the engine has to do."""

    queued: int
    running: int
    """Rows that are decoded, or whose prompt is being read."""


class Waiting(NamedTuple):
    """A request in the queue."""

    due: float
    """Requests are admitted in this order."""
    row: Row
    background: bool


class GenerationEngine:
    """Generates for every request that is submitted, in a thread of its own (`start`) or in the caller's (`run`).

    Everything but `submit`, `call` and `load` happens in one thread, which alone touches the backbone.

    Args:
        thread: the thread in which the backbone was loaded, where that is not the caller's; `start` makes one otherwise.
        static: decode with fixed shapes whatever can be (`is_static`, `static_refusal`); by default on an accelerator. The host then
            looks at the tokens every few steps.
        graphs: how such steps are captured; by default as CUDA graphs, where there is CUDA.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        max_rows: int = MAX_ROWS,
        max_queued: int = MAX_QUEUED,
        max_per_client: int = MAX_PER_CLIENT,
        kv_bytes: int = KV_BYTES,
        static: bool | None = None,
        graphs: Graphs | None = None,
        thread: TorchThread | None = None,
    ):
        self.backbone = backbone
        self._torch_thread = thread
        self.max_rows, self.max_queued, self.max_per_client = max_rows, max_queued, max_per_client
        self._kv_columns = kv_bytes // max(1, kv_bytes_per_token(backbone))
        self._static, self._graphs = backbone.device.type != "cpu" if static is None else static, graphs
        self._model_was_tried = False
        self._lanes: dict[str | None, Lane] = {}
        self._prefills: deque[Prefill] = deque()
        self._queue: list[Waiting] = []
        self._calls: deque[Callable[[], None]] = deque()
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._loop_ends: Future[None] | None = None
        self._closed = False

    # From any thread.

    def submit(self, request: GenerationRequest, *, background: bool = False, client: str = "") -> GenerationStream:
        """Adds a request to the queue.

        Args:
            client: whoever asks; each has at most `max_per_client` requests at a time. Empty for no such limit.
            background: nobody waits for it: other requests go first, for a while, and it is never refused as one too many.

        Raises:
            EngineBusy: the queue is full, or the client has too many requests.
            EngineClosed: the engine has been closed.
            PromptTooLong: the prompt leaves no room for an answer.
        """
        stream = GenerationStream(request)
        row = Row(request, stream, client, next(self._order), self.room(request))
        with self._changed:
            if self._closed:
                raise EngineClosed("the policy server is stopping")
            waiting = sum(not entry.background and not was_cancelled(entry.row) for entry in self._queue)
            running = sum(not was_cancelled(row) for row in self._running())
            if not background and waiting >= self.max_queued + max(0, self.max_rows - running):
                raise EngineBusy(f"{running} answers are computed and {waiting} wait: try again in {RETRY_S} s")
            if client and self._requests_of(client) >= self.max_per_client:
                raise ClientBusy(f"{self.max_per_client} requests of this client are computed or wait: try again in {RETRY_S} s")
            self._queue.append(Waiting(time.monotonic() + (BACKGROUND_WAIT_S if background else 0.0), row, background))
            stream.on_cancel = self._wake
            self._changed.notify_all()
        return stream

    def room(self, request: GenerationRequest) -> int:
        """Most tokens of the request's answer: its limit, or what its prompt leaves of the model's context.

        Raises:
            PromptTooLong: that is nothing.
        """
        if self.backbone.context is None:
            return request.sampling.max_new_tokens
        prompt, learned = len(request.prompt_ids), self.backbone.virtual_tokens(request.adapter)
        left = self.backbone.context - learned - prompt
        if left < 1:
            raise PromptTooLong(
                f"a prompt of {prompt:,} tokens leaves no room for an answer in the model's context of {self.backbone.context:,}"
            )
        return min(request.sampling.max_new_tokens, left)

    def call(self, function: Callable[[], T]) -> T:
        """Runs a function between two steps, for whatever changes the backbone, and returns its result."""
        if self._torch_thread is None or not self.is_running or threading.current_thread() is self._torch_thread.thread:
            return function()
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        with self._changed:
            if self._closed:
                raise EngineClosed("the policy server is stopping")
            self._calls.append(run)
            self._changed.notify_all()
        return future.result()

    def _requests_of(self, client: str) -> int:
        rows = [*(entry.row for entry in self._queue), *self._running()]
        return sum(row.client == client and not was_cancelled(row) for row in rows)

    def load(self) -> EngineLoad:
        with self._changed:
            queued = len(self._queue)
        return EngineLoad(queued, sum(1 for _ in self._running()))

    def adapters_in_use(self) -> set[str]:
        """Names of the adapters of all requests. Call it in the engine's thread (`call`)."""
        with self._changed:
            queued = [entry.row for entry in self._queue]
        return {row.request.adapter for row in (*queued, *self._running()) if row.request.adapter is not None}

    def forget(self, adapter: str) -> None:
        """Drops what is cached of an adapter that no request uses. Call it in the engine's thread, before the adapter is deleted."""
        self._lanes = {name: lane for name, lane in self._lanes.items() if lane.rows or name != adapter}
        for lane in self._lanes.values():
            lane.forget(adapter)

    def release_memory(self) -> bool:
        """Drops what is allocated for decoding, unless something is computed or waits; returns whether it did.

        Call it in the engine's thread, before the weights are moved.
        """
        with self._changed:
            if self._queue or self._busy():
                return False
        self._lanes = {}
        return True

    @property
    def is_running(self) -> bool:
        """Whether the engine's thread runs."""
        return self._loop_ends is not None

    def start(self) -> None:
        """Starts the engine's thread."""
        self._closed = False
        if self._torch_thread is None:
            self._torch_thread = TorchThread()
        self._loop_ends = self._torch_thread.submit(self._loop)

    def close(self) -> None:
        """Ends every request and the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._loop_ends is not None:
            self._loop_ends.result()
            self._loop_ends = None

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # In the engine's thread.

    def _loop(self) -> None:
        while True:
            with self._changed:
                # Without work the thread sleeps until it is woken, so that an idle server takes no time.
                self._changed.wait_for(lambda: self._closed or self._calls or self._queue or self._busy())
                if self._closed:
                    break
            self.step()
        error = EngineClosed("the policy server is stopping")
        end_streams([*(entry.row for entry in self._queue), *self._running()], error)
        for call in self._calls:
            call()

    def _busy(self) -> bool:
        return bool(self._prefills) or any(lane.rows for lane in self._lanes.values())

    def _running(self) -> Iterator[Row]:
        for prefill in list(self._prefills):
            for prompt in prefill.prompts:
                yield from prompt.rows
        for lane in list(self._lanes.values()):
            yield from [row for row in lane.rows if not row.ended]

    @torch.no_grad()
    def step(self) -> None:
        """Drops what was cancelled, admits what has a place, decodes a token of every row, and reads a chunk of the prompts."""
        while self._calls:
            self._calls.popleft()()
        self._drop_cancelled()
        self._admit()
        for lane in list(self._lanes.values()):
            if lane.rows:
                self._guarded(lane, lane.rows, partial(self._decode, lane))
        if self._prefills:
            prefill = self._prefills.popleft()
            rows = [row for prompt in prefill.prompts for row in prompt.rows]
            self._guarded(prefill.lane, rows, partial(self._read, prefill))

    def _guarded(self, lane: Lane, rows: Sequence[Row], work: Callable[[], None]) -> None:
        """Runs a part of a step; an error in it ends the requests that it was for, and no others."""
        rows = list(rows)
        try:
            work()
        except Exception as error:
            if not self.is_running:
                raise
            end_streams(rows, error)
            # The lane itself stays: prompts that are being read will join it.
            if any(row in lane.rows for row in rows):
                lane.clear()

    def _drop_cancelled(self) -> None:
        with self._changed:
            cancelled = [entry.row for entry in self._queue if was_cancelled(entry.row)]
            self._queue = [entry for entry in self._queue if not was_cancelled(entry.row)]
        for prefill in list(self._prefills):
            for prompt in prefill.prompts:
                cancelled += [row for row in prompt.rows if was_cancelled(row)]
                # Their places are kept until the prompts have been read.
            if all(was_cancelled(row) for prompt in prefill.prompts for row in prompt.rows):
                self._prefills.remove(prefill)
        for lane in self._lanes.values():
            if leaving := [row for row in lane.rows if was_cancelled(row)]:
                end_streams(leaving, RequestCancelled("the request was cancelled"))
                lane.drop(leaving)
        end_streams(cancelled, RequestCancelled("the request was cancelled"))

    # Admission.

    def _admit(self) -> None:
        """Gives places to waiting requests, the oldest first, and puts their prompts together."""
        with self._changed:
            if not self._queue:
                return
            running = list(self._running())
            now = time.monotonic()
            # Whoever is due goes by age; a background request that is not due waits for the others.
            self._queue.sort(key=lambda entry: (entry.due > now, entry.due if entry.due <= now else 0.0, entry.row.order))
            admitted: list[Row] = []
            left: list[Waiting] = []
            width = max((row.length + 1 for row in running), default=0)
            for entry in self._queue:
                places = self.max_rows - (FOR_CHATS if entry.background else 0)
                count = len(running) + len(admitted)
                wider = max(width, len(entry.row.request.prompt_ids) + min(entry.row.longest, CHUNK_TOKENS))
                fits = count < places and (not count or (count + 1) * wider <= self._kv_columns)
                if fits and self._lane_of(entry.row).takes_rows():
                    admitted.append(entry.row)
                    width = wider
                else:
                    left.append(entry)
            self._queue = left
        self._begin(admitted)

    def _begin(self, rows: Sequence[Row]) -> None:
        """Starts to read the prompts of these rows."""
        slots: dict[tuple[SlotLane, str | None], dict[tuple[int, ...], Prompt]] = {}
        padded: dict[PaddedLane, list[Row]] = {}
        for row in rows:
            lane, adapter, ids = self._lane_of(row), row.request.adapter, row.request.prompt_ids
            if isinstance(lane, PaddedLane):
                padded.setdefault(lane, []).append(row)
                continue
            assert isinstance(lane, SlotLane)
            slots.setdefault((lane, adapter), {}).setdefault(ids, Prompt(ids, adapter, [])).rows.append(row)
        for lane, members in padded.items():
            self._guarded(lane, members, partial(self._start, lane, members))
        # Prompts of one adapter are read together, up to a chunk's tokens; a longer one is read alone.
        for (lane, _), prompts in slots.items():
            batch: list[Prompt] = []
            for prompt in prompts.values():
                longest = max(len(other.ids) for other in (*batch, prompt))
                if batch and (len(batch) + 1) * longest > CHUNK_TOKENS_ALONE:
                    self._prefills.append(Prefill(lane, batch))
                    batch = []
                batch.append(prompt)
            self._prefills.append(Prefill(lane, batch))

    def _lane_of(self, row: Row) -> Lane:
        adapter = row.request.adapter
        if self._decodes_static() and is_static(self.backbone, row.request):
            return self._static_lane()
        shared = adapter is None or self.backbone.is_routable(adapter)
        name = None if shared else adapter
        if not self.backbone.decoder.supports_slots:
            name = adapter
        if name not in self._lanes or not self._lanes[name].serves(adapter):
            make = SlotLane if self.backbone.decoder.supports_slots else PaddedLane
            self._lanes[name] = make(self.backbone, name)
        return self._lanes[name]

    def _decodes_static(self) -> bool:
        """Whether steps can have fixed shapes. The model is tried once, in the engine's thread."""
        if self._static and not self._model_was_tried:
            self._model_was_tried = True
            if refusal := static_refusal(self.backbone):
                log.warning("decode steps have no fixed shapes, and are slower: %s", refusal)
                self._static = False
        return self._static

    def _static_lane(self) -> Lane:
        if STATIC not in self._lanes:
            graphs = graphs_for(self.backbone.device) if self._graphs is None else self._graphs
            self._lanes[STATIC] = StaticLane(self.backbone, max_rows=self.max_rows, kv_columns=self._kv_columns, graphs=graphs)
        return self._lanes[STATIC]

    # A step's work.

    def _start(self, lane: PaddedLane, rows: Sequence[Row]) -> None:
        self._emit(lane, rows, lane.start(rows))

    def _decode(self, lane: Lane) -> None:
        if isinstance(lane, SlotLane) and lane.forced_are_due():
            lane.pass_forced()
            lane.drop([row for row in lane.rows if row.ended])
        if not lane.rows:
            return
        if isinstance(lane, StaticLane):
            rows = list(lane.rows)
            for row, tokens in zip(rows, lane.decode_group(), strict=True):
                for token in tokens:
                    self._append(row, token, None)
            drop_ended(lane, rows)
            return
        hidden = lane.decode()
        self._emit(lane, lane.rows, hidden)

    def _read(self, prefill: Prefill) -> None:
        decoding = any(lane.rows for lane in self._lanes.values())
        tokens = CHUNK_TOKENS if decoding else CHUNK_TOKENS_ALONE
        if not prefill.step(max(1, tokens // len(prefill.prompts))):
            # Others read a chunk before it goes on, so that a long prompt does not stop short ones.
            self._prefills.append(prefill)
            return
        rows, hidden = prefill.finish()
        self._emit(prefill.lane, rows, hidden)

    def _emit(self, lane: Lane, rows: Sequence[Row], hidden: Float[Tensor, "n d"]) -> None:
        """Samples a token for each of these rows that has not ended, and drops the rows that have passed all theirs."""
        rows = list(rows)
        for row in rows:
            if row.ended and row.forced:
                row.forced.pop(0)
        open_rows = [i for i, row in enumerate(rows) if not row.ended]
        if open_rows:
            chosen = hidden if len(open_rows) == len(rows) else hidden[torch.tensor(open_rows, device=hidden.device)]
            self._sample([rows[i] for i in open_rows], chosen)
        drop_ended(lane, rows)

    def _sample(self, rows: Sequence[Row], hidden: Float[Tensor, "n d"]) -> None:
        device = hidden.device
        logits = self.backbone.logits(hidden)
        seeds = torch.tensor([row.request.seed for row in rows], device=device)
        u = uniforms(seeds, torch.tensor([len(row.ids) for row in rows], device=device))
        recorder = rows[0].recorder
        tokens = torch.empty(len(rows), dtype=torch.long, device=device)
        for indices in rows_by_sampling(rows):
            at = None if len(indices) == len(rows) else torch.tensor(indices, device=device)
            part = logits if at is None else logits[at]
            changed = [i for i in indices if rows[i].request.adjustments]
            if changed:
                part = part.float() if at is not None else part.float().clone()
                for i in changed:
                    place = indices.index(i)
                    part[place] = adjusted(part[place], rows[i].request.adjustments, rows[i].ids)
            sampling = rows[indices[0]].request.sampling
            sampled, stats = sample_token(part, sampling, u if at is None else u[at], return_stats=recorder is not None)
            if at is None:
                tokens = sampled
            else:
                tokens[at] = sampled
            if recorder is not None and stats is not None:
                # A recorder's requests have the same sampling parameters.
                positions = [len(row.ids) for row in rows]
                numbers = torch.tensor([row.number for row in rows], device=device)
                recorder.add_tokens(
                    numbers, torch.tensor(positions, device=device), max(positions) + 1, stats.logprobs, stats.entropy, hidden
                )
        for i, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            self._append(row, token, returned_logits(row, logits[i]) if row.request.logprobs is not None else None)

    def _append(self, row: Row, token: int, logits: Float[Tensor, " vocab"] | None) -> None:
        request = row.request
        row.ids.append(token)
        if token in self.backbone.eos_token_ids or token in request.stop_token_ids:
            reason: Any = "stop"
        else:
            reason = "length" if len(row.ids) >= row.longest else None
        if reason is not None:
            row.ended = True
            if row.recorder is not None and row.recorder.depths:
                # Whatever reads the answer later puts `eos_id` at its end, so the recorded activations are that token's.
                row.forced = [self.backbone.eos_id] if reason == "stop" else [token, self.backbone.eos_id]
        if row.stream is not None:
            logprob, top = (None, ()) if logits is None else likeliest(logits, token, request.logprobs or 0)
            row.stream.put(TokenOutput(token, reason, logprob, top))

    # In the caller's thread.

    def run(
        self,
        requests: Sequence[GenerationRequest],
        *,
        recorder: RolloutRecorder | None = None,
        on_progress: Work = NO_PROGRESS,
    ) -> list[GeneratedSequence]:
        """Generates all of these, without the engine's thread. With a recorder, all are decoded side by side.

        Args:
            on_progress: its total is the most tokens that the answers can have.
        """
        assert not self.is_running and not self._busy(), "the engine is already generating"
        rows = [Row(request, None, "", number, self.room(request), recorder, number) for number, request in enumerate(requests)]
        on_progress.total(sum(row.longest for row in rows))
        max_rows = self.max_rows
        if recorder is not None:
            self.max_rows = max(max_rows, len(rows))
        self._queue = [Waiting(0.0, row, False) for row in rows]
        try:
            seen = [0] * len(rows)
            while self._queue or self._busy():
                self.step()
                done = [row.longest if row.ended else len(row.ids) for row in rows]
                if new := sum(done) - sum(seen):
                    on_progress(new)
                seen = done
        finally:
            self.max_rows = max_rows
            self._queue = []
            self._prefills.clear()
            # What was allocated and captured for fixed shapes serves the next run too, when the adapters may have been trained.
            self._lanes = {name: lane for name, lane in self._lanes.items() if isinstance(lane, StaticLane)}
            for lane in self._lanes.values():
                lane.clear()
                for adapter in self.backbone.adapters:
                    lane.forget(adapter)
        return [GeneratedSequence(row.ids, self.backbone.finish_reason(row.ids)) for row in rows]


def sample(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    seed: int,
    *,
    adapter: str | None,
    on_progress: Work = NO_PROGRESS,
) -> list[GeneratedSequence]:
    """Samples one answer to each prompt with an adapter, or with the base."""
    return GenerationEngine(backbone).run(requests_for(prompts, sampling, seed, adapter=adapter), on_progress=on_progress)


def requests_for(prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int, *, adapter: str | None) -> list[GenerationRequest]:
    """A request for each prompt, each with a seed of its own that follows from `seed` and its place."""
    return [GenerationRequest(tuple(prompt), sampling, combined_seed(seed, i), adapter) for i, prompt in enumerate(prompts)]


def rows_by_sampling(rows: Sequence[Row]) -> list[list[int]]:
    """Indices of the rows that have the same sampling parameters, apart from the length."""
    groups: dict[tuple[float, float, int], list[int]] = {}
    for i, row in enumerate(rows):
        sampling = row.request.sampling
        groups.setdefault((sampling.temperature, sampling.top_p, sampling.top_k), []).append(i)
    return list(groups.values())


def returned_logits(row: Row, logits: Float[Tensor, " vocab"]) -> Float[Tensor, " vocab"]:
    """Those whose log-probabilities the row's request asks for; before its next token is added."""
    request = row.request
    return processed(logits, request.sampling, request.adjustments, row.ids) if request.processed_logprobs else logits


def drop_ended(lane: Lane, rows: Sequence[Row]) -> None:
    """Drops the rows that have passed all their tokens."""
    if leaving := [row for row in rows if row.ended and not row.forced]:
        lane.drop(leaving)


def was_cancelled(row: Row) -> bool:
    return row.stream is not None and row.stream.cancelled


def end_streams(rows: Sequence[Row], error: BaseException) -> None:
    """Ends rows that have not ended yet, and raises the error in whoever reads their streams."""
    for row in rows:
        if not row.ended and row.stream is not None:
            row.stream.put(error)
        row.ended = True


def kv_bytes_per_token(backbone: Backbone) -> int:
    """Memory of one token's keys and values in all layers, in bytes; 0 where the architecture does not say."""
    config = backbone.base.config.get_text_config()
    heads: int = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None) or 0
    width: int = getattr(config, "head_dim", None) or backbone.hidden_size // (getattr(config, "num_attention_heads", None) or 1)
    return int(2 * backbone.decoder.depth * heads * width * backbone.base.dtype.itemsize)
