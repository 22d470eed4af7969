"""Captures a decode step as a CUDA graph does, on any device: the operations, on the memory that they had, and nothing of Python.

What a step would read from Python at each run is a constant on the tape, so a step that does is found out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map


class OpTape:
    """Takes the place of `CudaGraphs`."""

    def __init__(self):
        self.captures = self.replays = 0

    def warm_up(self, step):
        step()

    def capture(self, step):
        tape = Recording()
        with tape:
            step()
        tape.undo()
        self.captures += 1

        def replay():
            self.replays += 1
            tape.replay()

        return replay


class Recording(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[int]]] = []
        # Every tensor that was made, by its identity; they are kept, so that no identity is used twice.
        self.made: dict[int, int] = {}
        self.kept: list[Tensor] = []
        self.storages_made: set[int] = set()
        # What memory from outside held before it was written.
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor):
                self._remember(value)
        known = {id(value) for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)}
        call = tree_map(self._slot, (args, kwargs))
        out = func(*args, **kwargs)
        slots = []
        for value in tree_iter(out):
            if isinstance(value, Tensor) and id(value) not in known:
                self.made[id(value)] = len(self.kept)
                slots.append(len(self.kept))
                self.kept.append(value)
                if not func.is_view:
                    self.storages_made.add(value.untyped_storage().data_ptr())
            else:
                slots.append(-1)
        self.calls.append((func, *call, slots))
        return out

    def _slot(self, value):
        return Slot(self.made[id(value)]) if isinstance(value, Tensor) and id(value) in self.made else value

    def _remember(self, value):
        storage = value.untyped_storage()
        if storage.data_ptr() not in self.storages_made and storage.data_ptr() not in self.before:
            self.before[storage.data_ptr()] = (storage, storage.clone())

    def undo(self):
        """A step does not run while it is captured."""
        for storage, before in self.before.values():
            storage.copy_(before)

    def replay(self):
        values: dict[int, Any] = {}

        def given(value):
            return values[value.number] if isinstance(value, Slot) else value

        for func, args, kwargs, slots in self.calls:
            args, kwargs = tree_map(given, (args, kwargs))
            out = func(*args, **kwargs)
            for slot, value in zip(slots, tree_iter(out), strict=True):
                if slot >= 0:
                    values[slot] = value


class Slot:
    """In the place of a tensor that was made on the tape."""

    def __init__(self, number: int):
        self.number = number
