"""Folders that are replaced atomically, and an optimiser's state as safetensors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

STATE_FILE = "state.json"
"""Written last, so that its presence marks a complete checkpoint."""


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder to fill, which then replaces the old one; a kill leaves one of the two complete."""
    part, old = folder.with_name(folder.name + ".part"), folder.with_name(folder.name + ".old")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    # After an interrupted save only the old folder exists: it is deleted once the new one has its name.
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def latest_checkpoint(folder: Path) -> Path | None:
    """The latest complete checkpoint, if there is one."""
    return next((f for f in (folder, folder.with_name(folder.name + ".old")) if (f / STATE_FILE).is_file()), None)


def save_optimizer(optimizer: torch.optim.Optimizer, file: Path) -> None:
    moments = {
        f"{index}.{key}": value.detach().cpu().contiguous()
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }
    save_file(moments, file)


def load_optimizer(optimizer: torch.optim.Optimizer, file: Path) -> None:
    state = optimizer.state_dict()
    state["state"] = {}
    for key, value in load_file(file).items():
        index, name = key.split(".", 1)
        state["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)
