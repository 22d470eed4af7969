"""The process in which chat templates are rendered: `rlhf.models.chat_template` starts it, and kills it when a rendering does not end.

A template is a program that came with a model. transformers' sandbox keeps it from files and from Python's inside, but not
from using up time and memory, and nothing stops it from within. Requests and replies are JSON, one object a line. No torch here.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template


def limit_memory(more: int) -> None:
    """Limits this process to `more` bytes than it uses now, and to writing no file. Does nothing where the system has no such limits."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more,) * 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    except (ImportError, OSError, ValueError):
        return


def limit_time(seconds: float) -> None:
    """Lets the kernel end this process after so many seconds of processor time; 0 removes the limit."""
    with suppress(AttributeError):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def answer(request: dict[str, Any], longest: int) -> dict[str, Any]:
    """The rendered texts, or the limit or error that stopped the rendering."""
    try:
        # A pair, of which transformers types only the texts.
        texts: Sequence[str] = render_jinja_template(**request)[0]
    except (MemoryError, OverflowError):
        return {"limit": "memory"}
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)[:500]}
    return {"limit": "length"} if sum(map(len, texts)) > longest else {"texts": texts}


def main() -> None:
    seconds, memory, longest = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    limit_memory(memory)
    for line in sys.stdin:
        request = json.loads(line)
        limit_time(seconds)
        reply = json.dumps(answer(request, longest))
        limit_time(0)
        print(reply, flush=True)


if __name__ == "__main__":
    main()
