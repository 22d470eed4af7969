"""Which of several equal processes this is. A process by itself reads the streams that it always read.

Leaves out how gradients come together: each process has its own prompts and its own draws, and no more is done here.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import distributed


class DistributedContext(NamedTuple):
    rank: int = 0
    world: int = 1

    def key(self, *parts: int) -> tuple[int, ...]:
        """A random stream's key, of this process's own: rank 0 reads the stream of a process by itself."""
        return (*parts, self.rank) if self.rank else parts


def distributed_context() -> DistributedContext:
    """Among the processes of torch's default group; alone where there is none."""
    if distributed.is_available() and distributed.is_initialized():
        return DistributedContext(distributed.get_rank(), distributed.get_world_size())
    return DistributedContext()
