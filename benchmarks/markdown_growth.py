"""Rendering time of adversarial Markdown texts: `python benchmarks/markdown_growth.py`.

Each text is one construct, repeated to 5,000, 20,000 and 80,000 characters, rendered as the pages do, but without the limit
above which a text is shown as plain text. Seconds of this process's CPU; linear time grows fourfold from one column to the next.
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from feedback_ui.shared import markdown  # noqa: E402

SIZES = (5_000, 20_000, 80_000)
CONSTRUCTS = {
    "links": "[a](http://x.y) ",
    "automatic links": "<http://x.y> ",
    "images": "![a](http://x.y) ",
    "uses of a definition": "[a]",
    "open brackets": "[",
    "open images": "![",
    "open links": "[a](",
    "emphasis": "*a _b ",
    "backticks": "`a``b",
    "quotations": "> a\n",
    "lists": "- a\n",
    "table rows": "|1|2|\n",
    "entities": "&amp;",
    "lazy lines": "a\n",
}
BEFORE = {"uses of a definition": "[a]: http://x.y/" + "b" * 5_000 + "\n\n", "table rows": "|a|b|\n|-|-|\n", "lazy lines": ">" * 19 + "a\n"}


def seconds(text: str) -> float:
    began = time.process_time()
    markdown._render(text)
    return time.process_time() - began


def main() -> None:
    gc.disable()
    markdown._render("warm")
    print(f"{'construct':<24}" + "".join(f"{size:>10,}" for size in SIZES) + "   last ratio")
    for name, unit in CONSTRUCTS.items():
        times = [min(seconds(BEFORE.get(name, "") + unit * (size // len(unit))) for _ in range(2)) for size in SIZES]
        print(f"{name:<24}" + "".join(f"{one:>10.3f}" for one in times) + f"{times[-1] / times[-2]:>13.1f}")
        gc.collect()


if __name__ == "__main__":
    main()
