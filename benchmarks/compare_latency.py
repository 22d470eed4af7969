"""Latency from the click on a judgment to the painted next comparison, in real Chromium: `python benchmarks/compare_latency.py`.

The real `launch.py serve` over a store in a temporary folder, filled beforehand with comparisons of answers of
realistic length. Its policy server runs with a model built from a config, and an endpoint that never answers keeps it
from writing more: no model computes while the clock runs, as for an annotator whose queue is full. The clock is the
page's own: it runs from the click until two frames after the new presentation is in the document. Each click waits
until the page takes one, which it does 250 ms after it showed a comparison; that wait is not counted.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.browser import chromium
from tests.browser.pages import ComparePage
from tests.browser.program import Endpoint, Program
from tests.support import tiny

ANSWER_CHARACTERS = 300

BUTTONS = ("choose-a", "choose-b", "choose-tie", "choose-both-bad")

CLICK = """
button => new Promise(painted => {
  const root = document.querySelector("[data-testid=compare]");
  const before = root.dataset.presentation;
  let clicked;
  new MutationObserver((_, observer) => {
    if (root.dataset.presentation === before) return;
    observer.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => painted(performance.now() - clicked)));
  }).observe(root, { attributes: true, attributeFilter: ["data-presentation"] });
  clicked = performance.now();
  root.querySelector(`[data-testid=${button}]`).click();
})
"""

TEXT = (
    "When dough rests the yeast eats sugar and gives off gas which the gluten holds so that it rises slowly and tastes "
    "of more than flour; a warm kitchen makes this faster, a cold one slower, and both can be right for good bread."
)


def answer(rng: random.Random) -> str:
    """Two paragraphs with a list between, as models write them."""
    words, text = TEXT.split(), ""
    while len(text) < ANSWER_CHARACTERS:
        text += rng.choice((" ", " ", " ", " ", " ", ". ", ".\n\n", "\n- ")) + rng.choice(words)
    return text[:ANSWER_CHARACTERS].strip()


def measure(program: Program, judgments: int) -> list[float]:
    """Milliseconds of each judgment."""
    with chromium.opened() as browser:
        compare = ComparePage(browser.new_page(viewport={"width": 1280, "height": 900}), program.url)
        took = []
        for i in range(judgments):
            compare.ready()
            took.append(compare.page.evaluate(CLICK, BUTTONS[i % len(BUTTONS)]))
        return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgments", type=int, default=200, help="how many clicks are timed")
    args = parser.parse_args()
    rng = random.Random(0)
    endpoint = Endpoint()
    with tempfile.TemporaryDirectory() as folder:
        program = Program(Path(folder) / "data", tiny.write(Path(folder) / "tiny-model"), *endpoint.options)
        for _ in range(args.judgments + 1):
            program.put_in(answer(rng), answer(rng))
        try:
            program.start().until_answering()
            took = measure(program, args.judgments)
            saved = program.judged()
        finally:
            program.end()
            endpoint.close()
    if saved != args.judgments:
        print(f"{saved} of {args.judgments} judgments are in the store: not a measurement", file=sys.stderr)
        return 1
    p95 = statistics.quantiles(took, n=20)[-1]
    print(
        f"click to next comparison painted: median {statistics.median(took):.0f} ms, 95th percentile {p95:.0f} ms, "
        f"max {max(took):.0f} ms (n = {len(took)}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
