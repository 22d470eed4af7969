"""Signing in and out in a real browser, and an open page when the first account is made."""

import re

import pytest
from playwright.sync_api import expect

from storage.people import accounts
from tests.browser.pages import ComparePage, Traffic, settled

pytestmark = pytest.mark.slow

PASSWORD = "correct horse"


@pytest.fixture
def own(new_program, silent):
    """A program of the test's own that has no account yet."""
    program = new_program(*silent.options)
    for i in range(5):
        program.put_in(f"First {i}.", f"Second {i}.")
    return program.start()


def sign_in(page, name, password=PASSWORD):
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_from_the_local_visitor_to_an_account_and_out_again(own, page):
    program = own
    compare = ComparePage(page, program.url)
    compare.judge(button="choose-a")
    expect(page.locator("#visitor form")).to_have_count(0)

    # The page was open while the first account was made: its next request leads to the sign-in page.
    accounts.create(program.store, "Ann <b>", PASSWORD, ["annotator", "lead"])
    compare.by("choose-a").click()
    expect(page).to_have_url(f"{program.url}/sign-in")
    assert program.judged() == 1

    page.goto(program.url)
    expect(page).to_have_url(f"{program.url}/sign-in")
    sign_in(page, "Ann <b>", "wrong")
    expect(page.get_by_role("alert")).to_contain_text("do not match")
    expect(page.get_by_label("Name")).to_have_value("Ann <b>")
    expect(page.get_by_label("Password")).to_be_focused()
    traffic = Traffic(page)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{program.url}/")
    expect(page.get_by_test_id("visitor")).to_have_text("Ann <b>")
    expect(page.locator("#visitor")).to_contain_text("annotator, lead")
    tabs = page.get_by_role("tablist").first.get_by_role("tab")
    expect(tabs.filter(has_text="Lead").first).to_be_visible()
    expect(page.locator("#tab-training-button").first).to_be_hidden()
    shown = ComparePage(page, program.url)
    shown.judge(button="choose-b")
    assert [a.name for a in accounts.all_accounts(program.store)] == ["Ann <b>"]
    assert accounts.named(program.store, "Ann <b>").annotator.judged == 1
    # The middleware and the content security policy block nothing that the page needs.
    refused = [(reply.status, reply.url) for reply in traffic.responses if reply.status >= 400]
    assert refused == []

    assert page.evaluate("document.cookie").endswith("-roles=annotator.lead") and ";" not in page.evaluate("document.cookie")
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{program.url}/sign-in")
    page.go_back()
    expect(page).to_have_url(f"{program.url}/sign-in")
    page.goto(program.url)
    expect(page).to_have_url(f"{program.url}/sign-in")


def test_every_page_works_behind_the_guard(program, page):
    program.put_in("First.", "Second.")
    console = []
    page.on("console", lambda message: console.append(message.text))
    traffic = Traffic(page)
    compare = ComparePage(page, program.url)
    compare.ready()
    for tab in page.get_by_role("tab").all():
        if tab.is_visible():
            with settled(page):
                tab.click()
    assert [(reply.status, reply.url) for reply in traffic.responses if reply.status >= 400] == []
    assert [text for text in console if re.search("Content Security Policy|Refused to", text)] == []


def test_the_sign_in_page_without_scripts_in_korean_on_a_dark_phone(guarded, browser):
    accounts.create(guarded.store, "한결", PASSWORD, ["annotator", "lead"])
    context = browser.new_context(java_script_enabled=False, locale="ko-KR", color_scheme="dark", viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(guarded.url)
    expect(page).to_have_url(f"{guarded.url}/sign-in")
    expect(page.get_by_role("heading", name="로그인")).to_be_visible()
    box = page.locator("form").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(23, 22, 20)"
    for control in (page.get_by_label("이름"), page.get_by_label("비밀번호"), page.get_by_role("button", name="로그인")):
        assert control.bounding_box()["height"] >= 44
    page.get_by_label("이름").fill("한결")
    page.get_by_label("비밀번호").fill(PASSWORD)
    page.get_by_role("button", name="로그인").click()
    expect(page).to_have_url(f"{guarded.url}/")
    context.close()
