"""The checks of `rankloop doctor`: the environment that a round needs, with a remedy for each failed check. They change nothing."""

from __future__ import annotations

import importlib.metadata
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from rlhf import model_files
from rlhf.config import DEFAULT_MODEL
from rlhf.safe_files import ModelError
from storage.core.data_folder import DataFolder
from storage.core.database import StoreError
from storage.core.examine import examine

NEEDED_MEMORY_GIB = 3.0
"""For a PPO round on the default model, which took 2.8 GiB; for another model `doctor --model` estimates it (`runs.memory`)."""

NEEDED_DISK_GIB = 3.0


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check; `remedy` is empty where it passed."""

    name: str
    found: str
    remedy: str = ""
    warning: str = ""
    """What passed but will be slow or behave differently, and what to do about it."""

    @property
    def ok(self) -> bool:
        return not self.remedy


def checks(folder: DataFolder, model: str, port: int, device: str = "auto") -> Iterator[Check]:
    """Each check in turn, the cheap ones first."""
    yield python()
    yield torch(device)
    yield memory()
    yield disk(folder)
    yield model_weights(model)
    yield store(folder)
    yield free_port(port)


def python() -> Check:
    installed = ".".join(map(str, sys.version_info[:3]))
    return Check("Python", installed, "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer and run `make clean run`")


def torch(wanted: str = "auto") -> Check:
    """The version of torch and its device; `wanted` is what `--device` asks for."""
    try:
        installed = importlib.metadata.version("torch")
        import torch as engine
    except Exception as error:
        return Check("torch", f"cannot be imported ({type(error).__name__}: {error})", "run `make install`")
    device = engine.cuda.get_device_name(0) if engine.cuda.is_available() else f"CPU, {engine.get_num_threads()} threads"
    remedy = ""
    if wanted == "cuda" and not engine.cuda.is_available():
        reason = (
            "sees no GPU: look at nvidia-smi" if engine.version.cuda else "is built for CPUs: install a CUDA build (docs/how-to/my-gpu.md)"
        )
        remedy = f"--device cuda: this torch {reason}, or use --device cpu"
    return Check("torch", f"{installed}; device: {device}", remedy)


def memory() -> Check:
    free = psutil.virtual_memory().available / 2**30
    remedy = "" if free >= NEEDED_MEMORY_GIB else f"close programs: a PPO round on the default model needs {NEEDED_MEMORY_GIB:.0f} GiB"
    return Check("free memory", f"{free:.1f} GiB", remedy)


def disk(folder: DataFolder) -> Check:
    place = next(p for p in (folder.root, *folder.root.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free / 2**30
    short = f"free some space, or name another disk with --data: {NEEDED_DISK_GIB:.0f} GiB are needed"
    return Check("free disk", f"{free:.1f} GiB at {place}", "" if free >= NEEDED_DISK_GIB else short)


def model_weights(model: str) -> Check:
    if model == DEFAULT_MODEL:
        default = model_files.default_folder()
        if model_files.is_intact(default):
            return Check("weights", f"{default}, all sha256 match")
        state = "damaged" if default.exists() else "not downloaded yet"
        return Check("weights", f"{default}: {state}", "run `rankloop serve`, which downloads them (93 MB)")
    try:
        # A hub model that is not downloaded yet passes: a check does not download gigabytes.
        folder = model_files.resolve(model, fetch=False)
        return Check("weights", f"{model}: on the hub, downloaded at the first use" if folder is None else str(folder))
    except ModelError as error:
        return Check("weights", model, str(error))


def store(folder: DataFolder) -> Check:
    if not folder.database.exists():
        return Check("store", f"{folder.database}: does not exist yet; the first start creates it")
    try:
        examined = examine(folder.database)
    except StoreError as error:
        return Check("store", str(folder.database), str(error))
    remedy = f"the file is damaged ({examined.damage}): restore a backup" if examined.damage else ""
    if examined.foreign:
        remedy = f"its schema is not rankloop's ({examined.foreign}): restore a backup, or remove that with the sqlite3 program"
    elif examined.unreadable:
        remedy = f"rows with invalid JSON are left out everywhere ({', '.join(examined.unreadable)}): restore a backup"
    soon = "; the next start migrates it" if examined.pending else ""
    return Check("store", f"{folder.database} at {examined.version}{soon}", remedy)


def free_port(port: int) -> Check:
    with socket.socket() as probe:
        # The web server sets this option too: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OverflowError:
            return Check("port", f"{port} is not a TCP port", "choose one from 1024 to 65535")
        except OSError as error:
            return Check("port", f"{port}: {error.strerror}", f"stop what uses it, or choose another: rankloop serve --port {port + 1}")
    return Check("port", f"{port} is free")
