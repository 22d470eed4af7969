"""The rank of this process and its random streams. A single process uses the same streams as rank 0.

Leaves out the reduction of gradients: here each process only gets its own prompts and its own samples.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import distributed


class DistributedContext(NamedTuple):
    rank: int = 0
    world: int = 1

    def key(self, *parts: int) -> tuple[int, ...]:
        """The key of this process's own random stream; rank 0 has that of a single process."""
        return (*parts, self.rank) if self.rank else parts


def distributed_context() -> DistributedContext:
    """From torch's default process group; a single process where there is none."""
    if distributed.is_available() and distributed.is_initialized():
        return DistributedContext(distributed.get_rank(), distributed.get_world_size())
    return DistributedContext()
