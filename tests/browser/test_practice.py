"""The practice comparison of the first visit: explained, not saved, and not shown again."""

import pytest
from playwright.sync_api import expect

from tests.browser.pages import ComparePage
from tests.browser.test_accessibility import SIZES, violations

pytestmark = pytest.mark.slow


@pytest.fixture
def first(new_program, endpoint, page):
    """A program in which nobody has judged anything, seen for the first time."""
    program = new_program(*endpoint.options)
    for i in range(2):
        program.put_in(f"First {i}.", f"Second {i}.")
    return program.start(), ComparePage(page, program.url, first_visit=True)


def test_a_first_visit_begins_with_a_practice_that_is_not_saved(first):
    program, compare = first
    expect(compare.root).to_have_attribute("data-state", "practice")
    expect(compare.by("practice-text")).to_contain_text("nothing of it is saved")
    expect(compare.by("answer-a")).to_contain_text("lemon juice")
    expect(compare.by("undo")).to_be_disabled()
    # The keys are those of real comparisons.
    compare.press("4")
    expect(compare.by("practice-text")).to_contain_text("You chose: B is better. Most people would choose A")
    compare.press("2")
    expect(compare.by("practice-text")).to_contain_text("A is better: most people would say so.")
    expect(compare.by("choose-a")).to_have_attribute("aria-pressed", "true")
    expect(compare.by("end-practice")).to_be_focused()
    assert program.judged() == 0
    compare.press("Enter")
    compare.ready()
    expect(compare.by("practice")).to_be_hidden()
    assert compare.answers()[0].startswith(("First", "Second"))
    expect(compare.root.locator("[aria-pressed=true]")).to_have_count(0)
    compare.judge(key="1")
    assert program.judged() == 1
    assert program.last_judgment().strength == "significantly"


def in_every_look(page) -> list[str]:
    found = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for size in SIZES.values():
            page.set_viewport_size(size)
            found += violations(page)
    return found


def test_axe_finds_nothing_in_the_practice_and_while_the_server_does_not_answer(first):
    _, compare = first
    page = compare.page
    expect(compare.root).to_have_attribute("data-state", "practice")
    assert in_every_look(page) == []
    compare.press("5")
    assert in_every_look(page) == []
    compare.press("Enter")
    compare.ready()
    page.get_by_test_id("skip-link").focus()
    assert in_every_look(page) == []
    page.route("**/component_server/**", lambda route: route.abort())
    page.route("**/component_server", lambda route: route.abort())
    compare.press("1")
    expect(compare.by("problem")).to_be_visible()
    assert in_every_look(page) == []


def test_a_skipped_practice_does_not_come_back(first):
    program, compare = first
    expect(compare.by("end-practice")).to_have_text("Skip the practice")
    compare.by("end-practice").click()
    shown = compare.ready()
    compare.page.reload()
    assert compare.ready() == shown
    expect(compare.by("practice")).to_be_hidden()
    assert program.judged() == 0


def test_who_has_judged_before_sees_no_practice_in_a_new_browser(first, browser):
    program, compare = first
    compare.by("end-practice").click()
    compare.judge(key="a")
    context = browser.new_context()
    other = ComparePage(context.new_page(), program.url, first_visit=True)
    other.ready()
    expect(other.by("practice")).to_be_hidden()
    context.close()
