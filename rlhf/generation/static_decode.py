"""Decoding with fixed shapes: for accelerators, on which the host's launches and looks take longer than the computation.

A step reads and writes buffers that are allocated once, so on CUDA it is captured as a graph for each size of batch and replayed.
Tokens are sampled and ends are found on the device; the host reads a few steps' tokens at a time and settles what they mean. The same
code runs on the CPU, uncaptured, where it is only tested: the plain path is faster there. Leaves out prefill and which requests get a
place (`engine`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlhf.generation.lanes import Prompt, Row, SlotLane, adapter_of
from rlhf.generation.recording import RolloutRecorder
from rlhf.generation.request import GenerationRequest
from rlhf.generation.sampling import sample_rows, uniforms
from rlhf.models.adapter_stack import AdapterStack
from rlhf.models.backbone import Backbone
from rlhf.models.four_bit import is_4bit
from rlhf.models.kv_cache import COLUMNS, SlotCache
from rlhf.models.lora import RowAdapters
from rlhf.models.operations import OperationCount

log = logging.getLogger("rankloop.generation")

SYNC_STEPS = 8
"""Steps between two looks of the host at the tokens, and so the most tokens that a stream gets at once."""

STOP_TOKENS = 8
"""Tokens that can end a row here, the model's own included."""

ENDED = -1
"""In place of a token: the row had ended before this step."""

NO_TOP_K = 2**31
"""A top-k that leaves every token of any vocabulary."""

STEP_ROWS = 32
"""Batches have a power of two of rows up to here, and a multiple of half of it beyond."""


class StepShape(NamedTuple):
    """What a step is captured for."""

    rows: int
    """Rows that are computed; those beyond the lane's own have ended."""
    width: int
    """Columns of the cache that are read."""
    adapters: bool
    """Whether any row has an adapter."""
    one_for_all: bool
    """Whether all rows have the only adapter that is loaded."""
    filtered: bool
    """Whether any row has a top-k or a top-p."""
    recorded: bool
    """Whether the rows have a recorder."""
    depths: tuple[int, ...]
    """The numbers of lowest layers whose output is recorded."""


@runtime_checkable
class Graphs(Protocol):
    """Captures steps. A captured step repeats the same operations on the same memory."""

    def warm_up(self, step: Callable[[], None]) -> None:
        """Runs a step that is to be captured afterwards."""

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """The step as a captured one, which has not run yet."""


class CudaGraphs:
    """CUDA graphs. What they compute on the way shares one pool of memory, as they run one after another."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it without types

    def warm_up(self, step: Callable[[], None]) -> None:
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            step()
        current.wait_stream(self._stream)

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            step()
        return graph.replay


def graphs_for(device: torch.device) -> Graphs | None:
    """How steps are captured on this device; None where they are not."""
    return CudaGraphs() if device.type == "cuda" else None


def static_refusal(backbone: Backbone) -> str:
    """Why this model's decode steps cannot have fixed shapes, in one sentence; empty where they can.

    One step of two rows is tried: it must not ask the host for a number, as dynamic position embeddings and some mixtures of experts do.
    """
    if not backbone.decoder.supports_slots:
        return "its rows cannot stand in slots"
    if is_4bit(backbone.base):
        return "its weights are packed in 4 bits"
    if len(backbone.eos_token_ids) > STOP_TOKENS:
        return f"it has {len(backbone.eos_token_ids)} end-of-sequence tokens, more than {STOP_TOKENS}"
    lane = StaticLane(backbone, max_rows=2, kv_columns=2 * COLUMNS)
    lane.reserve(2, COLUMNS)
    lane.upload()
    shape = StepShape(2, COLUMNS, adapters=False, one_for_all=False, filtered=True, recorded=True, depths=())
    try:
        with torch.no_grad():
            # The first one allocates.
            lane.step(shape)
            with OperationCount() as count:
                lane.step(shape)
    except Exception as error:
        return f"a step with fixed shapes fails ({type(error).__name__}: {error})"
    return f"its forward pass asks the host for a number ({', '.join(count.host_reads)})" if count.host_reads else ""


def is_static(backbone: Backbone, request: GenerationRequest) -> bool:
    """Whether a request can be decoded with fixed shapes, by a model that `static_refusal` does not refuse.

    Its adapter must be plain LoRA; penalties, biases and returned log-probabilities are left to the plain path, and so are more ends than
    `STOP_TOKENS`.
    """
    plain = not request.adjustments and request.logprobs is None
    ends = len({*backbone.eos_token_ids, *request.stop_token_ids})
    return plain and ends <= STOP_TOKENS and (request.adapter is None or backbone.is_routable(request.adapter))


def batch_bucket(rows: int) -> int:
    """The size of the batch in which so many rows are computed."""
    if rows > STEP_ROWS:
        return -(-rows // (STEP_ROWS // 2)) * (STEP_ROWS // 2)
    return 1 << (rows - 1).bit_length()


def width_bucket(columns: int) -> int:
    """The number of columns that are read where so many are in use: COLUMNS times a power of two."""
    return COLUMNS << max(0, (-(-columns // COLUMNS) - 1).bit_length())


class StepBuffers:
    """What a step reads and writes, a column for each row of the slots."""

    def __init__(self, rows: int, device: torch.device):
        self.integers = torch.zeros(7 + STOP_TOKENS, rows, dtype=torch.long, device=device)
        self.next_ids, self.lengths, self.sampled, self.longest, self.adapters, self.seeds, self.top_k = self.integers[:7]
        self.stops = self.integers[7:]
        self.numbers = torch.zeros(2, rows, device=device)
        self.temperature, self.top_p = self.numbers
        self.ended = torch.ones(rows, dtype=torch.bool, device=device)
        self.tick = torch.zeros(1, dtype=torch.long, device=device)
        """The number of the step since the host last looked."""
        self.tokens = torch.zeros(SYNC_STEPS, rows, dtype=torch.long, device=device)
        self.recorded: dict[str | int, Tensor] = {}
        """By name, and activations by depth: [SYNC_STEPS, rows, ...]."""

    def write(self, into: Tensor, values: Tensor) -> None:
        """Puts this step's values, one for each of the first rows, in their place."""
        into[:, : len(values)].index_copy_(0, self.tick, values[None])

    def recording(self, name: str | int, like: Tensor) -> Tensor:
        """The buffer of that name, for values such as these."""
        if name not in self.recorded:
            self.recorded[name] = like.new_zeros(*self.tokens.shape, *like.shape[1:])
        return self.recorded[name]


class StaticLane(SlotLane):
    """Rows of the base and of plain LoRA adapters, in slots that are allocated once.

    Args:
        max_rows: for how many there is room at first, if the keys and values have so many columns.
        kv_columns: columns of all rows together.
        graphs: how steps are captured; None runs them as they are.
    """

    def __init__(self, backbone: Backbone, *, max_rows: int, kv_columns: int, graphs: Graphs | None = None):
        super().__init__(backbone, None)
        self.max_rows, self.kv_columns = max_rows, kv_columns
        self.stack = AdapterStack(backbone.adapter_set)
        self._graphs = graphs
        self._warm: set[StepShape] = set()
        self._captured: dict[StepShape, Callable[[], None]] = {}
        self._allocate(0, 0)

    # Memory.

    def _allocate(self, rows: int, columns: int) -> None:
        self.slots = SlotCache(self.backbone.base, rows=rows, columns=columns)
        self.buffers = StepBuffers(rows, self.backbone.device)
        self._drop_captured()

    def _drop_captured(self) -> None:
        self._captured.clear()
        self._warm.clear()
        self._changed = True

    def reserve(self, rows: int, columns: int) -> None:
        """Makes room for that many rows and columns. New memory costs what was captured, so as much as will be needed is taken at once."""
        rows, columns = batch_bucket(rows), width_bucket(columns)
        if rows <= self.slots.rows and columns <= self.slots.columns:
            return
        columns = max(columns, self.slots.columns)
        fitting = max(1, self.kv_columns // columns)
        old, used = self.slots, len(self.rows)
        self._allocate(max(rows, batch_bucket(used or 1), min(batch_bucket(self.max_rows), fitting)), columns)
        if used:
            self.slots.copy_rows(old, range(used), range(used), min(columns, old.columns))

    def clear(self) -> None:
        self.rows, self._changed = [], True
        # What a long row needed is given back.
        if self.slots.rows * self.slots.columns > max(self.kv_columns, self.max_rows * COLUMNS):
            self._allocate(0, 0)

    # Adapters.

    def choice(self, rows: Sequence[Row | Prompt]) -> RowAdapters:
        names = [adapter_of(row) for row in rows]
        self._include({name for name in (*names, *map(adapter_of, self.rows)) if name is not None})
        index = [self._index(name) for name in names]
        used = set(index) - {-1}
        return RowAdapters(
            self.stack.names if used else (),
            torch.tensor(index, device=self.backbone.device),
            self.stack.weights if used else {},
            one_for_all=len(self.stack.names) == 1 and set(index) == {0},
        )

    def _include(self, names: set[str]) -> None:
        before = self.stack.names
        if self.stack.include(names):
            self._drop_captured()
        # The rows' indices are other ones now.
        self._changed |= self.stack.names != before

    def _index(self, name: str | None) -> int:
        return -1 if name is None else self.stack.names.index(name)

    def forget(self, adapter: str) -> None:
        if adapter in self.stack.names:
            self.stack.forget()

    # Rows.

    def adopt(self, rows: Sequence[Row], slots: SlotCache) -> None:
        self.join(rows, slots, range(len(rows)))

    def join(self, rows: Sequence[Row], slots: SlotCache, sources: Sequence[int]) -> None:
        width, first = max(row.length for row in rows), len(self.rows)
        self.reserve(first + len(rows), width + 1)
        self.slots.copy_rows(slots, sources, range(first, first + len(rows)), width)
        self.rows.extend(rows)
        self._changed = True

    def drop(self, leaving: Sequence[Row]) -> None:
        gone = set(map(id, leaving))
        staying = [i for i, row in enumerate(self.rows) if id(row) not in gone]
        targets = [i for i in range(len(staying)) if id(self.rows[i]) in gone]
        sources = [i for i in staying if i >= len(staying)]
        if sources:
            self.slots.copy_rows(self.slots, sources, targets, max(self.rows[i].length for i in sources))
            for source, target in zip(sources, targets, strict=True):
                self.rows[target] = self.rows[source]
        self.rows, self._changed = self.rows[: len(staying)], True
        if not self.rows:
            self.clear()

    # Decoding.

    def forced_are_due(self) -> bool:
        """Whether the batch would be half as large without the rows that have ended."""
        return 2 * sum(row.ended for row in self.rows) >= len(self.rows)

    def decode_group(self) -> list[list[int]]:
        """Decodes a few tokens of each row, until all have ended at most; returns each row's, none after its end."""
        steps = min(SYNC_STEPS, max(row.longest - len(row.ids) for row in self.rows if not row.ended))
        width = max(row.length for row in self.rows) + steps
        self.reserve(len(self.rows), width)
        self._include({row.request.adapter for row in self.rows if row.request.adapter is not None})
        shape = self._shape(width)
        if self._changed:
            self.upload()
        self.buffers.tick.zero_()
        for _ in range(steps):
            self._advance(shape)
        tokens = self.buffers.tokens[:steps, : len(self.rows)].T.tolist()
        sampled = [[token for token in of_row if token != ENDED] for of_row in tokens]
        if (recorder := self.rows[0].recorder) is not None:
            self._record(recorder, sampled)
        for row, of_row in zip(self.rows, sampled, strict=True):
            row.length += len(of_row)
        return sampled

    def _shape(self, width: int) -> StepShape:
        running = [row for row in self.rows if not row.ended]
        names = {row.request.adapter for row in self.rows}
        recorder = self.rows[0].recorder
        return StepShape(
            batch_bucket(len(self.rows)),
            width_bucket(width),
            names != {None},
            len(names) == 1 and len(self.stack.names) == 1 and names != {None},
            any(row.request.sampling.top_k or row.request.sampling.top_p < 1 for row in running),
            recorder is not None,
            () if recorder is None else tuple(recorder.depths),
        )

    def upload(self) -> None:
        """Writes the rows' state, which changes by itself from step to step until rows join or leave."""
        unused = self.slots.rows - len(self.rows)
        integers, numbers = [], []
        for row in self.rows:
            sampling, stops = row.request.sampling, {*self.backbone.eos_token_ids, *row.request.stop_token_ids}
            state = [row.ids[-1], row.length, len(row.ids), row.longest, self._index(row.request.adapter), row.request.seed]
            # A place without a token of its own repeats one.
            ends = [*stops, *[min(stops, default=ENDED)] * (STOP_TOKENS - len(stops))]
            integers.append([*state, sampling.top_k or NO_TOP_K, *ends])
            numbers.append([sampling.temperature, sampling.top_p])
        integers += [[self.backbone.pad_id, 0, 0, 0, -1, 0, NO_TOP_K, *[ENDED] * STOP_TOKENS]] * unused
        numbers += [[1.0, 1.0]] * unused
        ended = [row.ended for row in self.rows] + [True] * unused
        # Over whole buffers: their addresses stay.
        self.buffers.integers.copy_(torch.tensor(integers).T)
        self.buffers.numbers.copy_(torch.tensor(numbers).T)
        self.buffers.ended.copy_(torch.tensor(ended))
        self._changed = False

    def _advance(self, shape: StepShape) -> None:
        """Runs a step: uncaptured the first time, which warms it up, and captured from the second time on."""
        step = partial(self.step, shape)
        if self._graphs is None:
            step()
            return
        if shape not in self._warm:
            self._warm.add(shape)
            self._graphs.warm_up(step)
            return
        if shape not in self._captured:
            try:
                self._captured[shape] = self._graphs.capture(step)
            except Exception as error:
                log.warning("decode steps run uncaptured, and slower: one could not be captured (%s: %s)", type(error).__name__, error)
                self._graphs = None
                step()
                return
        self._captured[shape]()

    def step(self, shape: StepShape) -> None:
        """Decodes one token of each row. Everything that differs from step to step is in the buffers."""
        buffers, rows = self.buffers, shape.rows
        adapters = RowAdapters(
            self.stack.names if shape.adapters else (),
            buffers.adapters[:rows],
            self.stack.weights if shape.adapters else {},
            one_for_all=shape.one_for_all,
        )
        with self._recording_activations(shape):
            hidden = self.backbone.decoder.forward_slots(
                buffers.next_ids[:rows, None], buffers.lengths[:rows], self.slots, width=shape.width, last=self.last, adapter=adapters
            )[:, -1]
        tokens, softmax = sample_rows(
            self.backbone.logits(hidden),
            buffers.temperature[:rows, None],
            buffers.top_k[:rows, None] if shape.filtered else 0,
            buffers.top_p[:rows, None] if shape.filtered else 1.0,
            uniforms(buffers.seeds[:rows], buffers.sampled[:rows]),
        )
        if shape.recorded:
            for name, values in (("logprobs", softmax.logprobs(tokens)), ("entropy", softmax.entropy()[:, 0]), ("hidden", hidden)):
                buffers.write(buffers.recording(name, values), values)
        self._advance_rows(tokens)

    def _advance_rows(self, tokens: Int[Tensor, " n"]) -> None:
        """Writes the sampled tokens down, and moves on every row that had not ended before them."""
        buffers, rows = self.buffers, len(tokens)
        ended, sampled = buffers.ended[:rows], buffers.sampled[:rows]
        buffers.write(buffers.tokens, tokens.masked_fill(ended, ENDED))
        next_ids, going_on = buffers.next_ids[:rows], ~ended
        next_ids.copy_(torch.where(ended, next_ids, tokens))
        buffers.lengths[:rows].add_(going_on)
        sampled.add_(going_on)
        ended.logical_or_((tokens == buffers.stops[:, :rows]).any(0)).logical_or_(sampled >= buffers.longest[:rows])
        buffers.tick.add_(1)

    # Recording.

    @contextmanager
    def _recording_activations(self, shape: StepShape) -> Iterator[None]:
        def recorder_of(depth: int) -> Callable[[Float[Tensor, "n 1 d"]], None]:
            return lambda hidden: self.buffers.write(self.buffers.recording(depth, hidden[:, 0]), hidden[:, 0])

        with ExitStack() as stack:
            for depth in shape.depths:
                stack.enter_context(self.backbone.decoder.record_hidden(depth, recorder_of(depth)))
            yield

    def _record(self, recorder: RolloutRecorder, sampled: Sequence[Sequence[int]]) -> None:
        """Hands the group's results to the recorder: those of every step in which a row had not ended."""
        taken = [(step, i, row, len(row.ids) + step) for i, row in enumerate(self.rows) for step in range(len(sampled[i]))]
        if not taken:
            return
        columns = [recorder.longest_prompt - len(row.request.prompt_ids) + row.length + step - self.prefix for step, _, row, _ in taken]
        indices = [[step, i, row.number, position, column] for (step, i, row, position), column in zip(taken, columns, strict=True)]
        steps, places, numbers, positions, at = torch.tensor(indices, device=self.backbone.device).T
        of = {name: values[steps, places] for name, values in self.buffers.recorded.items()}
        longest = max(position for *_, position in taken) + 1
        recorder.add_tokens(numbers, positions, longest, of["logprobs"], of["entropy"], of["hidden"])
        for depth in recorder.depths:
            recorder.add_activations_at(depth, numbers, at, of[depth])
