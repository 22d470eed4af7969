"""The processes that train one run side by side, each with a share of every batch. A single process is `Ranks()`, where nothing is sent.

All ranks compute the same update. A batch is cut into shares (`share`), rows that every rank needs are put together (`gather`), and
what is a sum over a batch is summed over its shares (`sum`, `sum_gradients`). So statistics are those of the whole batch, and its size
is the config's, however many processes there are. Rank 0 alone talks to the store: it tells the others what to do (`tell`, `hear`).
Leaves out how the processes are started (`runs.rank_processes`) and what the others do (`stages.follow`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn

from rlhf.runs.rank_processes import RENDEZVOUS

PATIENCE = timedelta(days=7)
"""How long a rank waits for the others. Rank 0 works alone for as long as the base answers held-out prompts; a rank that has ended is
noticed at once, by the process that started it or by its connection."""


TaskName = Literal["begin", "fit", "ppo", "dpo", "end"]


class RanksError(RuntimeError):
    """The processes cannot train together; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Task:
    """What rank 0 tells the others to do."""

    name: TaskName
    values: Mapping[str, Any] = field(default_factory=dict)
    folders: Mapping[str, Path | None] = field(default_factory=dict)
    """Copies of rank 0's folders."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1
    control: distributed.ProcessGroup | None = None
    """The group in which messages are sent, from memory to memory, whatever device trains."""

    @property
    def alone(self) -> bool:
        return self.count == 1

    def share(self, n: int) -> slice:
        """This rank's part of n rows: shares follow each other in the order of the ranks and differ by one row at most."""
        return slice(n * self.rank // self.count, n * (self.rank + 1) // self.count)

    # Tensors. Every rank makes the same calls in the same order.

    def sum(self, x: Tensor) -> Tensor:
        """The sum over ranks, the same bits on all of them."""
        if self.alone:
            return x
        total = x.clone()
        distributed.all_reduce(total)
        return total

    def total(self, x: float) -> float:
        """As `sum`, of a number."""
        return x if self.alone else float(self.sum(torch.tensor(x, dtype=torch.double, device=self._device)))

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """The means over ranks, whose shares have the same size."""
        if self.alone:
            return dict(values)
        total = self.sum(torch.tensor(list(values.values()), dtype=torch.double, device=self._device))
        return dict(zip(values, (total / self.count).tolist(), strict=True))

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replaces each gradient by its sum over ranks. A parameter has a gradient on all ranks or on none."""
        if self.alone:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.sum(torch.cat([g.flatten() for g in gradients]))
        for gradient, total in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, [n, ...] in the order of the ranks, on this rank's device. Ranks may have different numbers of rows."""
        if self.alone:
            return rows
        sizes = [int(size) for size in self._of_each(torch.tensor([len(rows)], device=self._device))]
        padded = torch.zeros(max(sizes), *rows.shape[1:], dtype=rows.dtype, device=self._device)
        padded[: len(rows)] = rows
        parts = [part[:size] for part, size in zip(self._of_each(padded), sizes, strict=True)]
        return torch.cat(parts).to(rows.device)

    def gather_padded(self, rows: Tensor, *, left: bool = False) -> Tensor:
        """As `gather`, of rows [n, t, ...] whose width differs: narrower ones are padded with zeros, at their right or left side."""
        if self.alone:
            return rows
        width = int(max(self._of_each(torch.tensor([rows.shape[1]], device=self._device))))
        padded = torch.zeros(len(rows), width, *rows.shape[2:], dtype=rows.dtype, device=rows.device)
        padded[:, width - rows.shape[1] if left else 0 :][:, : rows.shape[1]] = rows
        return self.gather(padded)

    def _of_each(self, x: Tensor) -> list[Tensor]:
        """The tensor of every rank, all of one shape, in the order of the ranks."""
        # As bytes, because no backend knows all data types.
        raw = x.contiguous().view(-1).view(torch.uint8)
        parts = [torch.empty_like(raw) for _ in range(self.count)]
        distributed.all_gather(parts, raw)
        return [part.view(x.dtype).view(x.shape) for part in parts]

    @property
    def _device(self) -> torch.device:
        return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")

    # Messages from rank 0.

    def tell(
        self, task: TaskName, values: Callable[[], Mapping[str, Any]] = dict, folders: Mapping[str, Path | None] | None = None
    ) -> None:
        """Tells the other ranks what to do; called by rank 0.

        Args:
            values: makes what goes with the task, as JSON; not called where there are no other ranks.
            folders: the files that these folders hold are sent too; None for a folder that does not exist.
        """
        if self.alone:
            return
        files = {name: sorted(f for f in folder.iterdir() if f.is_file()) if folder else None for name, folder in (folders or {}).items()}
        names = {name: None if found is None else [f.name for f in found] for name, found in files.items()}
        self._send(json.dumps({"name": task, "values": values(), "files": names}).encode())
        for found in files.values():
            for file in found or ():
                self._send(file.read_bytes())

    def hear(self, scratch: Path) -> Task:
        """Waits for the next task from rank 0; called by the others. Its folders are written into `scratch`, in place of earlier ones."""
        message = json.loads(self._send(b""))
        folders: dict[str, Path | None] = {}
        for name, files in message["files"].items():
            folders[name] = None if files is None else scratch / name
            for file in files or ():
                target = scratch / name / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self._send(b""))
        return Task(message["name"], message["values"], folders)

    def _send(self, data: bytes) -> bytes:
        """Rank 0's bytes, on every rank."""
        length = torch.tensor([len(data)])
        distributed.broadcast(length, 0, group=self.control)
        raw = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(int(length), dtype=torch.uint8)
        if len(raw):
            distributed.broadcast(raw, 0, group=self.control)
        return raw.numpy().tobytes()


def join(device: str) -> Ranks:
    """This process among those that a launcher started, as its environment says; by itself where no launcher did.

    Args:
        device: `cpu`, `cuda`, or `auto`. Ranks meet over gloo on processors and over NCCL on GPUs, where each has one of its own.

    Raises:
        RanksError: there are more processes on this machine than GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Ranks()
    cpu = device == "cpu" or not torch.cuda.is_available()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if not cpu and here > torch.cuda.device_count():
        raise RanksError(
            f"{here} processes on this machine, which has {torch.cuda.device_count()} GPUs: set --processes to at most that many, "
            "or --device cpu"
        )
    from accelerate import PartialState

    if rendezvous := os.environ.get(RENDEZVOUS):
        # Processes of one machine meet at a file, so that no port is open for it.
        rank = int(os.environ["RANK"])
        distributed.init_process_group(
            "gloo" if cpu else "nccl", init_method=f"file://{rendezvous}", rank=rank, world_size=count, timeout=PATIENCE
        )
    state: Any = PartialState(cpu=cpu, timeout=PATIENCE)
    return Ranks(state.process_index, state.num_processes, distributed.new_group(backend="gloo", timeout=PATIENCE))
