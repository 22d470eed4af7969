"""Pictures of the pages of a running program: `python benchmarks/screenshots.py --url http://127.0.0.1:7860`.

Writes one picture a page. It reads and asks, and judges nothing. For pictures worth showing there must be a comparison
waiting (rank.png: one of three answers or more, which must come first), judgments, a finished round and a tuned version.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import Browser, Error, Page, expect

from tests.browser import chromium
from tests.browser.pages import ComparePage, TrainingPage

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
QUESTION = "I always feel nervous before giving a talk at work. What should I do?"
ANSWERED_WITHIN_MS = 180_000
"""Time limit for two answers generated on a CPU."""


def opened(browser: Browser, viewport: dict[str, int]) -> Page:
    return browser.new_context(viewport=viewport, device_scale_factor=2).new_page()


def compare(page: Page, url: str) -> None:
    ComparePage(page, url).ready()


def rank(page: Page, url: str) -> None:
    ComparePage(page, url).ready()
    for key in "21=3":
        page.keyboard.press(key)


def tab(name: str, wait_for: str) -> Callable[[Page, str], None]:
    def show(page: Page, url: str) -> None:
        page.goto(url)
        page.locator(f"#tab-{name}-button").click()
        expect(page.locator(wait_for).first).to_be_visible(timeout=60_000)
        page.wait_for_timeout(1500)

    return show


def training(page: Page, url: str) -> None:
    page.goto(url)
    TrainingPage(page)
    expect(page.get_by_test_id("run-status")).to_be_visible()
    # Plotly draws after its data has come.
    page.wait_for_timeout(1500)


def demo(page: Page, url: str, question: str = QUESTION) -> None:
    page.goto(url)
    page.get_by_role("tab", name="Demo").click()
    expect(page.locator("#demo-versions-chosen .token")).to_have_count(2, timeout=20_000)
    page.locator("#demo-prompt textarea").fill(question)
    page.locator("#demo-ask").click()
    answered = page.locator("#demo-current .rl-answer .rl-prose:not([aria-busy])")
    expect(answered).to_have_count(2, timeout=ANSWERED_WITHIN_MS)


PICTURES = {
    "compare": (compare, DESKTOP),
    "phone": (compare, PHONE),
    "rank": (rank, DESKTOP),
    "history": (tab("history", "[data-testid=past-judgment]"), DESKTOP),
    "lead": (tab("lead", "#quality-annotators table"), DESKTOP),
    "leaderboard": (tab("leaderboard", "#leaderboard-standings table"), DESKTOP),
    "training": (training, DESKTOP),
    "demo": (demo, DESKTOP),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:7860", help="where the program serves")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder for the pictures")
    parser.add_argument("--only", choices=list(PICTURES), action="append", help="only this picture; can be repeated")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with chromium.opened() as browser:
        for name in args.only or PICTURES:
            show, viewport = PICTURES[name]
            page = opened(browser, viewport)
            try:
                show(page, args.url)
            except (AssertionError, Error) as error:
                print(f"{name}: {str(error).splitlines()[0]}", file=sys.stderr)
                failed += 1
                continue
            file = args.out / f"{name}.png"
            page.screenshot(path=file, animations="disabled")
            print(f"{file} ({file.stat().st_size / 1024:.0f} KiB)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
