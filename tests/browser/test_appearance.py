"""What can be seen in both themes and on every window: the states of controls, scrollbars, the bar beside the answers."""

import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from storage.project import runs
from tests.browser.pages import ComparePage, HistoryPage, settled

pytestmark = pytest.mark.slow

THEMES = ("light", "dark")
VISIBLE = 3.0
"""The contrast that a control and its state need (WCAG 2.2, 1.4.11)."""

WINDOWS = ((1280, 720), (1280, 400), (640, 450), (640, 360), (390, 844), (844, 390), (320, 256))
"""In CSS pixels; 640 x 360 is 1280 x 720 at 200% zoom."""


def pixels(control) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(control.screenshot(animations="disabled"))).convert("RGB"), dtype=float) / 255


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Relative luminance as WCAG 2.2 defines it."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def contrast(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    low, high = np.minimum(one, other), np.maximum(one, other)
    return (high + 0.05) / (low + 0.05)


def within(control) -> float:
    """The strongest contrast between two pixels of a control."""
    seen = luminance(pixels(control))
    return float(contrast(seen.min(), seen.max()))


def between(one: np.ndarray, other: np.ndarray) -> float:
    """The strongest contrast between two states, pixel by pixel."""
    return float(contrast(luminance(one), luminance(other)).max())


@pytest.fixture(params=THEMES)
def themed(request, browser, program):
    context = browser.new_context(color_scheme=request.param, viewport={"width": 1280, "height": 900})
    program.put_in("One answer.", "Another answer.")
    yield context.new_page()
    context.close()


def assert_states_are_visible(page, control, switch):
    """`switch` turns the control on. Off, on, hovered and focused, it can be seen, and on can be told from off."""
    page.mouse.move(0, 0)
    off = pixels(control)
    assert within(control) >= VISIBLE, "off"
    switch()
    page.mouse.move(0, 0)
    assert within(control) >= VISIBLE, "on"
    assert between(off, pixels(control)) >= VISIBLE, "on is like off"
    # The input of an option lies over the part that is drawn.
    control.hover(force=True)
    assert within(control) >= VISIBLE, "hovered"


def test_the_states_of_boxes_and_options_are_visible(program, themed):
    page = themed
    compare = ComparePage(page, program.url)
    compare.ready()
    compare.press("f")
    box = compare.by("flag-unsafe")
    assert_states_are_visible(page, box, box.check)
    option = compare.root.locator("label:has([data-testid=flag-on-1]) span")
    assert_states_are_visible(page, option, lambda: compare.by("flag-on-1").check(force=True))
    compare.by("flag-close").click()
    history = HistoryPage(page)
    box = history.by("history-flagged")
    assert_states_are_visible(page, box, box.check)
    option = history.root.locator("label:has([data-testid=history-skips]) span")
    assert_states_are_visible(page, option, lambda: history.by("history-skips").check(force=True))
    page.goto(f"{program.url}/#lead/settings")
    box = page.locator("#lead-settings input[type=checkbox]").first
    box.wait_for()
    assert_states_are_visible(page, box, lambda: box.set_checked(not box.is_checked()))


def test_the_window_has_scrollbars_of_its_theme(program, themed):
    ComparePage(themed, program.url).ready()
    dark = themed.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert themed.evaluate("getComputedStyle(document.documentElement).colorScheme") == ("dark" if dark else "light")


def test_the_bar_leaves_room_for_the_answers(program, project, page):
    project(strength=True)
    program.put_in("A long answer. " * 90, "Another long answer. " * 90)
    compare = ComparePage(page, program.url)
    compare.ready()
    bar = compare.root.locator(".rl-action-bar")
    for width, height in WINDOWS:
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate("window.scrollTo(0, 0)")
        covered = max(0, height - bar.bounding_box()["y"])
        assert covered <= 0.4 * height, (width, height)


@pytest.mark.parametrize(("key", "text"), [("Delete", "bc"), ("Backspace", "ab")])
def test_the_preview_of_the_guidelines_follows_every_change(program, page, key, text):
    with settled(page):
        page.goto(f"{program.url}/#lead/guidelines")
    editor = page.locator("#guidelines-text textarea")
    editor.fill("abc")
    expect(page.locator("#guidelines-preview")).to_have_text("abc")
    editor.press("Home" if key == "Delete" else "End")
    editor.press(key)
    expect(page.locator("#guidelines-preview")).to_have_text(text)
    editor.press("Control+a")
    page.evaluate("document.execCommand('insertText', false, 'pasted')")
    expect(page.locator("#guidelines-preview")).to_have_text("pasted")


def test_a_charts_tooltip_can_be_read_and_leaves_the_axis_free(new_program, page):
    program = new_program()
    runs.create(program.store, "r1", config={}, seed=0, versions={})
    for step in range(6):
        runs.log_metrics(program.store, "r1", step, {"reward/loss": 1 / (1 + step)})
    runs.finish(program.store, "r1", "failed", error="It stopped.")
    program.start()
    for scheme in THEMES:
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{program.url}/#training/r1")
        page.reload()
        page.locator("#run-part-trust-button").click()
        plot = page.locator("#plot-reward-loss .nsewdrag").first
        plot.wait_for()
        plot.hover()
        label = page.locator("#plot-reward-loss .hoverlayer .hovertext")
        expect(label).to_have_count(1)
        expect(page.locator("#plot-reward-loss .hoverlayer .axistext")).to_have_count(0)
        fill, ground = (
            label.locator(part).first.evaluate("e => getComputedStyle(e).fill.match(/[\\d.]+/g).slice(0, 3).map(Number)")
            for part in ("text", "path")
        )
        assert contrast(*(luminance(np.array(colour) / 255) for colour in (fill, ground))) >= 4.5, scheme
