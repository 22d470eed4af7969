"""Page objects for Playwright: each operates one page of the program."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Dialog, Locator, Page, Request, Response, expect

from feedback_ui.shared.i18n import Translator
from rlhf.config import PRESETS
from tests.support.waiting import PATIENCE_S

ANSWER_SLOTS = ("answer-a", "answer-b")
STILL_MS = 150
"""A page that has not changed for so long, while the server owes it nothing, has drawn what there is to draw."""

UNCHANGED = """(still) => new Promise((done) => {
    let timer = setTimeout(done, still)
    const seen = new MutationObserver(() => { clearTimeout(timer); timer = setTimeout(done, still) })
    seen.observe(document, { subtree: true, childList: true, attributes: true, characterData: true })
    setTimeout(done, 5000)
})"""
"""Resolves when nothing has changed in the document for a moment; a clock that ticks on the page holds it up for 5 s at most."""

RESTING = "document.getAnimations().every((each) => each.playState !== 'running' || each.effect.getTiming().iterations === Infinity)"


@contextmanager
def settled(page: Page) -> Iterator[None]:
    """At the end of the block what it did is done: each request that it led to was answered, and the page has drawn the answers.

    The page's heartbeat never ends and does not count.
    """
    open_now: set[Request] = set()

    def begun(request: Request) -> None:
        if "/heartbeat/" not in request.url:
            open_now.add(request)

    def ended(request: Request) -> None:
        open_now.discard(request)

    listeners = {"request": begun, "requestfinished": ended, "requestfailed": ended}
    for event, listener in listeners.items():
        page.on(event, listener)
    try:
        yield
        give_up_at = time.monotonic() + PATIENCE_S
        still = False
        while not still:
            assert time.monotonic() < give_up_at, f"these are not answered: {[request.url for request in open_now]}"
            nothing_owed = not open_now
            page.evaluate(UNCHANGED, STILL_MS)
            still = nothing_owed and not open_now
    finally:
        for event, listener in listeners.items():
            page.remove_listener(event, listener)


def open_tab(page: Page, name: str) -> None:
    """Opens the tab with this name, in the row of tabs or in the overflow menu."""
    tab = page.get_by_role("tab", name=name, exact=True).and_(page.locator(":visible"))
    if not tab.count():
        page.locator("#pages").get_by_role("button", name="More tabs").first.click()
        tab = page.locator("#pages .overflow-dropdown button", has_text=re.compile(rf"^\s*{name}\s*$"))
    tab.click()


def open_part(page: Page, part: str) -> None:
    """Opens a part of the run by its tab, or on a phone by the menu of tabs that do not fit."""
    tab = page.locator(f"#run-part-{part}-button").and_(page.locator(":visible"))
    if not tab.count():
        page.locator("#run-parts").get_by_role("button", name="More tabs").first.click()
        name = Translator("en")(f"training.part.{part}")
        tab = page.locator("#run-parts .overflow-dropdown button", has_text=re.compile(rf"^\s*{name}\s*$"))
    tab.click()


class ComparePage:
    """The Compare page."""

    def __init__(self, page: Page, url: str, *, first_visit: bool = False):
        """Opens the page. Without `first_visit` the browser remembers that the practice comparison was done."""
        self.page = page
        self.root = page.get_by_test_id("compare")
        if not first_visit:
            page.add_init_script("localStorage.setItem('rankloop.practice', 'done')")
        page.goto(url)

    def by(self, test_id: str) -> Locator:
        return self.root.get_by_test_id(test_id)

    def ready(self) -> str:
        """Waits until a comparison can be judged; the name that the page has of it."""
        expect(self.root).to_have_attribute("data-state", "ready")
        return self.presentation()

    def presentation(self) -> str:
        return self.root.get_attribute("data-presentation")

    def answers(self) -> list[str]:
        return [self.by(slot).locator(".rl-text").inner_text() for slot in ANSWER_SLOTS]

    def count(self) -> int:
        """The judgments that the page counts today, judged ones and skipped ones together."""
        text = self.by("judged-count").inner_text()
        return sum(int(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:of [\d,]+ )?(?:today|skipped)", text))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def tiers(self) -> list[list[int]]:
        """The numbers of the answers in each tier, as the panel shows them."""
        rows = self.by("tiers").locator("li:not(.rl-next-tier)").all()
        return [[int(chip.locator("b").inner_text()) for chip in row.locator("[data-chip]").all()] for row in rows]

    def judge(self, *, button: str | None = None, key: str | None = None) -> str:
        """Judges once, waits for the next comparison and returns its presentation token."""
        before = self.ready()
        if button:
            self.by(button).click()
        else:
            self.page.keyboard.press(key)
        expect(self.root).not_to_have_attribute("data-presentation", before)
        return self.ready()


class HistoryPage:
    """The History page."""

    def __init__(self, page: Page, url: str | None = None):
        self.page = page
        if url:
            page.goto(url)
        page.locator("#pages [role=tab]").nth(1).click()
        self.root = page.get_by_test_id("history")
        expect(self.root).to_have_attribute("data-state", "list")

    def by(self, test_id: str) -> Locator:
        return self.root.get_by_test_id(test_id)

    def rows(self) -> Locator:
        return self.by("past-judgment")

    def open(self, number: int) -> Locator:
        """Opens one of the rows and returns its form."""
        self.rows().nth(number).get_by_role("button").click()
        form = self.by("correcting")
        expect(form).to_have_attribute("data-state", "ready")
        return form


class TrainingPage:
    """The Training page."""

    def __init__(self, page: Page):
        self.page = page
        self.status = page.get_by_test_id("run-status")
        self.cancel = page.locator("#cancel-run")
        self.resume = page.locator("#resume-run")
        self.open()

    def open(self) -> None:
        self.page.get_by_role("tab", name="Training").click()
        expect(self.page.locator("#pairs-available")).to_contain_text("pair")

    def show(self, part: str) -> None:
        """Opens a part of the run: `result`, `trust`, `policy`, `samples`, `config` or `log`."""
        open_part(self.page, part)

    def choose_preset(self, name: str) -> None:
        self.page.locator("#preset input").click()
        self.page.get_by_role("option", name=name).click()
        # The server fills the form: text typed before that would be overwritten.
        expect(self.option("ppo-steps")).to_have_value(str(PRESETS[name].ppo.steps))

    def option(self, name: str) -> Locator:
        return self.page.locator(f"#option-{name} input")

    def fill(self, **options: float) -> None:
        for name, value in options.items():
            box = self.option(name.replace("_", "-"))
            box.fill(str(value))
            box.press("Tab")

    def start(self) -> None:
        self.page.locator("#start-round").click()

    def expect_status(self, status: str, *, within_s: float) -> None:
        expect(self.status).to_have_text(status, timeout=1000 * within_s)

    def expect_progress(self, *, within_s: float) -> None:
        """Waits until the progress bar is above 0."""
        self.page.wait_for_function("() => document.querySelector('#run-progress progress')?.value > 0", timeout=1000 * within_s)


class Traffic:
    """All requests and responses of a page, and the dialogs that it opened."""

    def __init__(self, page: Page):
        self.requests: list[Request] = []
        self.responses: list[Response] = []
        self.dialogs: list[str] = []
        page.on("request", lambda request: self.requests.append(request))
        page.on("response", lambda response: self.responses.append(response))
        page.on("dialog", self._dismiss)

    def _dismiss(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def hosts(self) -> set[str]:
        """The hosts of all requests; `data:` and `blob:` addresses have none."""
        urls = (urlsplit(request.url) for request in self.requests)
        return {url.hostname for url in urls if url.scheme not in ("data", "blob")}

    def replies(self, part: str = "") -> dict[str, str]:
        """The text of each response, by address; endless streams are left out."""
        return {
            response.url: response.text()
            for response in self.responses
            if part in response.url and "/heartbeat/" not in response.url and _is_text(response)
        }


def _is_text(response: Response) -> bool:
    kind = response.headers.get("content-type", "")
    return response.ok and any(word in kind for word in ("json", "html", "text", "javascript")) and "event-stream" not in kind
