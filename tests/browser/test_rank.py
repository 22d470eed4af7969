"""Ranking three and more answers in a browser: by key, tap and drag, each alone."""

import pytest
from playwright.sync_api import expect

from feedback_ui.judging.compare import midnight
from storage.judging import judgments
from storage.people import annotators
from tests.browser.pages import ComparePage

pytestmark = pytest.mark.slow


@pytest.fixture
def compare(program, page):
    program.put_in(*[f"Answer number {i}. " * 30 for i in range(4)])
    program.put_in(*[f"Later answer {i}." for i in range(3)])
    shown = ComparePage(page, program.url)
    shown.ready()
    return shown


def in_slots(program, saved):
    order = [completion_id for completion_id, _ in program.texts_in_order(saved.presentation_id)]
    return [sorted(order.index(completion_id) + 1 for completion_id in tier) for tier in saved.tiers]


def saved_as(program, compare, *, partial=False):
    """Waits for the next comparison; the tiers that were stored, as numbers of answers."""
    today = judgments.given_since(program.store, annotators.ensure(program.store, "local").id, midnight(0))
    expect(compare.by("judged-count")).to_contain_text(f"{today.ranks} today")
    saved = program.last_judgment()
    assert (saved.verdict, bool(saved.partial), saved.strength) == ("rank", partial, None)
    return in_slots(program, saved)


def save(compare):
    before = compare.presentation()
    compare.by("save").click()
    expect(compare.root).not_to_have_attribute("data-presentation", before)


def test_by_keys_alone(program, compare):
    compare.press("2", "1", "=", "3")
    assert compare.tiers() == [[2], [1, 3]]
    expect(compare.by("live")).to_have_text("Answer 3: 2nd, shared with 1. 1 left.")
    # A digit again puts it last; Backspace takes the last step back.
    compare.press("2")
    assert compare.tiers() == [[1, 3], [2]]
    compare.press("Backspace")
    assert compare.tiers() == [[2], [1, 3]]
    compare.press("4", "Enter")
    expect(compare.by("answer-4")).to_have_count(0)
    assert saved_as(program, compare) == [[2], [1, 3], [4]]
    compare.ready()
    compare.press("3", "0", "Space")
    expect(compare.by("empty-state")).to_be_visible()
    assert saved_as(program, compare) == [[3], [1, 2]]


def test_a_partial_ranking_is_saved_only_after_confirmation(program, compare):
    judged = program.judged()
    compare.press("Enter")
    expect(compare.by("missing")).to_have_text("Rank at least two answers first.")
    compare.press("3", "1", "Enter")
    expect(compare.by("save")).to_be_focused()
    expect(compare.by("save")).to_contain_text("Save 2 of 4")
    expect(compare.by("missing")).to_contain_text("2 answers are not ranked")
    assert program.judged() == judged
    compare.press("Enter")
    expect(compare.by("answer-4")).to_have_count(0)
    assert saved_as(program, compare, partial=True) == [[3], [1]]


def test_arrows_move_the_answer_in_focus(compare):
    compare.press("1", "2", "3")
    chip = compare.by("chip-3")
    chip.focus()
    compare.press("ArrowUp")
    assert compare.tiers() == [[1], [2, 3]]
    expect(chip).to_be_focused()
    compare.press("ArrowUp")
    assert compare.tiers() == [[1], [3], [2]]
    compare.press("ArrowUp", "ArrowUp")
    assert compare.tiers() == [[3], [1], [2]]
    compare.press("ArrowUp")
    assert compare.tiers() == [[3], [1], [2]]
    compare.press("ArrowDown")
    assert compare.tiers() == [[1, 3], [2]]
    expect(chip).to_have_attribute("aria-label", "Answer 3, 1st place")
    # Moved down out of a shared tier, the answer gets a tier of its own below.
    compare.press("ArrowDown")
    assert compare.tiers() == [[1], [3], [2]]
    compare.press("Delete")
    assert compare.tiers() == [[1], [2]]
    expect(chip).to_be_focused()


def test_by_taps_alone(program, compare):
    compare.by("place-3").click()
    compare.by("place-1").click()
    compare.by("tie-4").click()
    assert compare.tiers() == [[3], [1, 4]]
    compare.by("take-1").click()
    assert compare.tiers() == [[3], [4]]
    # An answer picked up in the panel goes where the next tap is: into a tier, between two, or out of the ranking.
    compare.by("chip-1").click()
    compare.by("tier-1").locator(".rl-tier-place").click()
    assert compare.tiers() == [[1, 3], [4]]
    compare.by("chip-2").click()
    compare.by("before-2").click()
    assert compare.tiers() == [[1, 3], [2], [4]]
    compare.by("chip-4").click()
    compare.by("chip-4").click()
    assert compare.tiers() == [[1, 3], [2], [4]]
    save(compare)
    assert saved_as(program, compare) == [[1, 3], [2], [4]]


def drag(page, start, end, *, at=0.5):
    a, b = start.bounding_box(), end.bounding_box()
    page.mouse.move(a["x"] + a["width"] / 2, a["y"] + a["height"] / 2)
    page.mouse.down()
    page.mouse.move(a["x"] + a["width"] / 2 + 12, a["y"] + a["height"] / 2 + 3, steps=3)
    b = end.bounding_box() or b
    page.mouse.move(b["x"] + 20, b["y"] + b["height"] * at, steps=6)
    page.mouse.up()


def test_by_dragging_alone(program, compare):
    page = compare.page
    drag(page, compare.by("answer-1").locator("[data-grip]"), compare.by("next-place"))
    assert compare.tiers() == [[1]]
    drag(page, compare.by("chip-2"), compare.by("next-place"))
    drag(page, compare.by("chip-3"), compare.by("tier-1"))
    assert compare.tiers() == [[1, 3], [2]]
    drag(page, compare.by("chip-4"), compare.by("tier-2"), at=-0.05)
    assert compare.tiers() == [[1, 3], [4], [2]]
    drag(page, compare.by("chip-1"), compare.by("tier-3"))
    assert compare.tiers() == [[3], [4], [1, 2]]
    # A drag is no tap, and Escape cancels it.
    expect(compare.root.locator("[data-chip][aria-pressed=true]")).to_have_count(0)
    box = compare.by("chip-3").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] + 120, steps=4)
    expect(page.locator(".rl-drag-preview")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(".rl-drag-preview")).to_have_count(0)
    page.mouse.up()
    assert compare.tiers() == [[3], [4], [1, 2]]
    save(compare)
    assert saved_as(program, compare) == [[3], [4], [1, 2]]


def test_dragging_near_the_edge_scrolls_the_page(compare):
    page = compare.page
    box = compare.by("answer-1").locator("[data-grip]").bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 10, box["y"] + 60, steps=3)
    page.mouse.move(box["x"] + 10, 890, steps=3)
    page.wait_for_function("window.scrollY > 60")
    page.mouse.up()
    assert compare.tiers() == []


def test_by_finger_on_a_phone(program, browser):
    program.put_in(*[f"Short answer {i}." for i in range(9)])
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    try:
        compare = ComparePage(context.new_page(), program.url)
        compare.ready()
        assert compare.page.evaluate("document.documentElement.scrollWidth") <= 390
        compare.by("place-2").tap()
        compare.by("tie-1").tap()
        expect(compare.by("rank-summary")).to_contain_text("1 = 2")
        compare.by("rank-summary").tap()
        expect(compare.by("rank-summary")).to_have_attribute("aria-expanded", "true")
        touch_drag(compare.page, compare.by("chip-3"), compare.by("next-place"))
        assert compare.tiers() == [[1, 2], [3]]
        # Chromium takes a tap right after a drag for the end of a fling, and makes no click of it.
        compare.page.wait_for_timeout(500)
        compare.by("chip-4").tap()
        compare.by("tier-2").locator(".rl-tier-place").tap()
        assert compare.tiers() == [[1, 2], [3, 4]]
        for button in compare.root.get_by_role("button").all():
            box = button.bounding_box()
            assert box is None or (box["width"] >= 24 and box["height"] >= 24 and box["x"] + box["width"] <= 390)
        before = compare.presentation()
        compare.by("save").tap()
        expect(compare.root).not_to_have_attribute("data-presentation", before)
        assert saved_as(program, compare, partial=True) == [[1, 2], [3, 4]]
    finally:
        context.close()


def touch_drag(page, start, end):
    """Drags with touch events: Playwright's touchscreen only taps."""
    a, b = start.bounding_box(), end.bounding_box()
    session = page.context.new_cdp_session(page)

    def touch(kind, *points):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})

    x, y = a["x"] + 20, a["y"] + a["height"] / 2
    touch("touchStart", (x, y))
    touch("touchMove", (x + 6, y + 6))
    to_x, to_y = b["x"] + 60, b["y"] + b["height"] / 2
    for step in range(1, 6):
        touch("touchMove", (x + (to_x - x) * step / 5, y + (to_y - y) * step / 5))
    touch("touchEnd")


def test_a_ranking_survives_a_reload_and_an_undo(program, compare):
    shown = compare.presentation()
    compare.press("4", "2", "=", "1")
    compare.page.reload()
    assert compare.ready() == shown
    assert compare.tiers() == [[4], [1, 2]]
    compare.press("3", "Enter")
    expect(compare.by("answer-4")).to_have_count(0)
    compare.ready()
    compare.press("u")
    expect(compare.by("answer-4")).to_have_count(1)
    assert compare.ready() == shown
    assert compare.tiers() == [[4], [1, 2], [3]]


def test_all_bad_and_skip(program, compare):
    compare.press("x")
    expect(compare.by("answer-4")).to_have_count(0)
    bad = program.last_judgment()
    assert ([len(tier) for tier in bad.tiers], bad.all_bad) == ([4], True)
    compare.ready()
    compare.press("s", "2")
    expect(compare.by("empty-state")).to_be_visible()
    assert program.last_judgment().skip_reason == "Broken prompt"
