"""The environment variables of the engine's processes."""

from __future__ import annotations

import os


def engine_environment() -> dict[str, str]:
    """This process's environment, with an allocator that keeps large blocks.

    glibc gives every block above 128 KiB back to the system when it is freed and takes it again for the next tensor;
    the page faults cost a fifth of a training step on CPU. The user's own settings win.
    """
    return {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(8 << 30)} | dict(os.environ)
