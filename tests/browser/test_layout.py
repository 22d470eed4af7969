"""Where things are on the judging pages: on phones, on wide windows, and that nothing moves when something is chosen."""

import pytest
from playwright.sync_api import expect

from tests.browser.pages import ComparePage, settled

pytestmark = pytest.mark.slow

PHONE = {"width": 390, "height": 844}

BOXES = """(selector) => [...document.querySelectorAll(selector)].filter((each) => each.checkVisibility()).map((each) => {
    const { x, y, width, height } = each.getBoundingClientRect()
    return [each.dataset.testid ?? each.id, x, y, width, height]
})"""


def boxes(page, selector: str) -> list:
    return page.evaluate(BOXES, selector)


def settled_boxes(page, selector: str) -> list:
    """The boxes once they have stayed the same for half a second, for a page whose size has just been changed."""
    before, since = boxes(page, selector), 0
    while since < 5:
        page.wait_for_timeout(100)
        now = boxes(page, selector)
        before, since = now, since + 1 if now == before else 0
    return before


def row(compare, *names: str) -> float:
    """The top of these controls, which stand in one row from left to right."""
    places = [compare.by(name).bounding_box() for name in names]
    assert len({place["y"] for place in places}) == 1, names
    assert [place["x"] for place in places] == sorted(place["x"] for place in places)
    return places[0]["y"]


def test_on_a_phone_a_tie_and_b_come_first_and_strengths_second(program, project, page):
    page.set_viewport_size(PHONE)
    program.put_in("One answer.", "Another answer.")
    compare = ComparePage(page, program.url)
    compare.ready()
    first = row(compare, "choose-a", "choose-tie", "choose-b")
    assert first < row(compare, "choose-a-significantly", "choose-b-significantly") < row(compare, "choose-both-bad", "skip", "undo")
    project(four_strengths=True)
    page.reload()
    compare.ready()
    first = row(compare, "choose-a", "choose-tie", "choose-b")
    of_a = row(compare, *(f"choose-a-{strength}" for strength in ("significantly", "slightly", "negligibly")))
    of_b = row(compare, *(f"choose-b-{strength}" for strength in ("negligibly", "slightly", "significantly")))
    assert first < of_a < of_b < row(compare, "choose-both-bad", "skip", "undo")


def test_on_a_phone_one_tap_leads_to_the_other_answer(program, page):
    page.set_viewport_size(PHONE)
    program.put_in("A long answer. " * 150, "Another long answer. " * 150)
    compare = ComparePage(page, program.url)
    compare.ready()
    # In the middle of A its head is still there.
    page.mouse.move(200, 300)
    compare.by("answer-a").evaluate("answer => window.scrollTo(0, answer.getBoundingClientRect().top + 500)")
    expect(compare.by("jump-a")).to_be_in_viewport()
    compare.by("jump-a").click()
    assert abs(compare.by("answer-b").bounding_box()["y"]) < 2
    compare.by("jump-b").click()
    assert abs(compare.by("answer-a").bounding_box()["y"]) < 2
    page.set_viewport_size({"width": 1280, "height": 900})
    expect(compare.by("jump-a")).to_be_hidden()


def test_four_answers_stand_two_by_two_and_nothing_moves_when_one_is_placed(program, page):
    program.put_in(*[f"Answer {i}. " * 20 for i in range(4)])
    compare = ComparePage(page, program.url)
    compare.ready()
    still = ".rl-answer, .rl-answer .rl-text, .rl-action-bar, .rl-actions button, .rl-prompt, .rl-page-header, #pages [role=tab]"
    before = boxes(page, still)
    one, two, three, four = (compare.by(f"answer-{number}").bounding_box() for number in (1, 2, 3, 4))
    assert one["y"] == two["y"] < three["y"] == four["y"]
    assert one["x"] == three["x"] < two["x"] == four["x"]
    for key in ("2", "1", "=", "3", "4", "Backspace", "0"):
        compare.press(key)
        assert boxes(page, still) == before, key
    page.set_viewport_size(PHONE)
    before = settled_boxes(page, still)
    for key in ("Backspace", "Backspace", "Backspace", "Backspace", "2", "1", "=", "3"):
        compare.press(key)
        assert boxes(page, still) == before, key


def test_tabs_stay_in_place_when_one_is_chosen(program, page):
    program.put_in("A long answer. " * 200, "Another answer.")
    compare = ComparePage(page, program.url)
    compare.ready()
    tabs = page.locator("#pages > .tab-wrapper [role=tab]:visible")
    names = tabs.all_inner_texts()
    before = boxes(page, "#pages > .tab-wrapper [role=tab]")
    assert len(names) > 3
    for name in names:
        with settled(page):
            page.locator("#pages > .tab-wrapper").get_by_role("tab", name=name, exact=True).click()
        assert boxes(page, "#pages > .tab-wrapper [role=tab]") == before, name


def test_ratings_say_what_they_ask_and_how_many_are_left(program, project, page):
    project(aspects=("Helpful", "Honest"), aspect_scale=5)
    program.put_in("One answer.", "Another answer.")
    compare = ComparePage(page, program.url)
    compare.ready()
    for name in ("answer-a", "answer-b"):
        card = compare.by(name)
        expect(card.locator(".rl-aspects-head")).to_have_text("Rate this answer required")
        assert [text.split("\n") for text in card.locator(".rl-aspect .rl-options").all_inner_texts()] == [
            ["low", "1", "2", "3", "4", "5", "high"]
        ] * 2
    assert compare.by("rate-0-0-1").evaluate("input => input.required")
    expect(compare.by("rated")).to_have_text("0 of 4 rated")
    still = ".rl-answer, .rl-aspect, .rl-option, .rl-actions button, .rl-action-bar"
    before = boxes(page, still)
    compare.by("rate-0-0-1").focus()
    compare.press("3", "4", "2")
    expect(compare.by("rated")).to_have_text("3 of 4 rated")
    assert boxes(page, still) == before
    # A draft counts too.
    page.reload()
    compare.ready()
    expect(compare.by("rated")).to_have_text("3 of 4 rated")


def test_the_first_tab_skips_to_the_answers(program, page):
    program.put_in("One answer.", "Another answer.")
    compare = ComparePage(page, program.url)
    compare.ready()
    page.evaluate("document.activeElement.blur()")
    link = page.get_by_test_id("skip-link")
    compare.press("Tab")
    expect(link).to_be_focused()
    expect(link).to_have_text("Skip to the answers")
    assert link.bounding_box()["y"] >= 0
    compare.press("Enter")
    expect(compare.by("answers")).to_be_focused()
    assert page.url.rstrip("/").endswith(program.url) or "#answers" not in page.url
    # The keys of the page work there.
    compare.press("?")
    expect(compare.by("help")).to_be_visible()
    compare.press("?")
    page.locator("#pages [role=tab]").nth(1).click()
    expect(link).to_be_hidden()


def test_the_hints_of_keys_come_with_the_first_key_on_a_tablet(program, browser):
    program.put_in("One answer.", "Another answer.")
    program.put_in("A third answer.", "A fourth answer.")
    context = browser.new_context(viewport={"width": 1024, "height": 768}, has_touch=True, is_mobile=True)
    try:
        compare = ComparePage(context.new_page(), program.url)
        compare.ready()
        hint = compare.by("choose-a").locator("kbd")
        expect(hint).to_be_hidden()
        expect(compare.by("help-button")).to_be_hidden()
        compare.judge(key="t")
        expect(hint).to_be_visible()
        expect(compare.by("help-button")).to_be_visible()
        compare.page.reload()
        compare.ready()
        expect(hint).to_be_visible()
    finally:
        context.close()
    # A narrow window of a machine with a mouse has them from the start.
    narrow = browser.new_context(viewport={"width": 640, "height": 700})
    compare = ComparePage(narrow.new_page(), program.url)
    compare.ready()
    expect(compare.by("choose-a").locator("kbd")).to_be_visible()
    narrow.close()
