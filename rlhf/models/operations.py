"""Counts what a piece of code asks a device to do: operations that compute, and looks of the host at their results.

An accelerator runs behind the host. Each operation costs the host a launch, and each look at a result makes it wait until everything
before has been computed. Counted as torch dispatches them, so a count on the CPU is that of any device.
"""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

HOST_READS = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::equal",
    "aten::unique_consecutive", "aten::bincount", "aten::is_nonzero",
}  # fmt: skip
"""Operations whose result, or its shape, the host waits for."""

FROM_HOST = {"aten::lift_fresh", "aten::lift_fresh_copy"}
"""Operations that begin with a tensor made of numbers of the host."""

NO_WORK = {
    "aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided", "aten::detach",
    "aten::_unsafe_view",
}  # fmt: skip
"""Operations that launch nothing, beside views: allocations, and other names of the same memory."""


class OperationCount:
    """Inside the block, counts the operations of this thread."""

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        """Those that compute, by name: no views and no allocations."""
        self.host_reads: Counter[str] = Counter()
        """Those whose result the host waits for, or that begin with numbers of the host."""
        self._modes = (_Methods(self), _Dispatches(self))

    @property
    def total(self) -> int:
        return self.operations.total()

    def __enter__(self) -> OperationCount:
        for mode in self._modes:
            mode.__enter__()  # type: ignore[no-untyped-call]  # torch leaves it without types
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]  # torch leaves it without types


class _Methods(TorchFunctionMode):
    """On the CPU some of Python's ways to read a tensor dispatch no operation."""

    def __init__(self, count: OperationCount):
        super().__init__()
        self.count = count

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("tolist", "numpy", "cpu"):
            self.count.host_reads[name] += 1
        return func(*args, **(kwargs or {}))


class _Dispatches(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it without types
    def __init__(self, count: OperationCount):
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self.count = count

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        name = func._schema.name
        if name in HOST_READS or name in FROM_HOST or _indexes_by_mask(name, args):
            self.count.host_reads[name] += 1
        if not func.is_view and name not in NO_WORK:
            self.count.operations[name] += 1
        return func(*args, **(kwargs or {}))


def _indexes_by_mask(name: str, args: tuple[Any, ...]) -> bool:
    """Whether an index is of booleans: how many it selects is known to the device alone."""
    if name not in ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"):
        return False
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])
