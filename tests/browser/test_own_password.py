"""Changing one's own password in a real browser, from the line that says who is signed in."""

import pytest
from playwright.sync_api import expect

from storage.people import accounts
from tests.browser.pages import ComparePage
from tests.browser.test_sign_in import PASSWORD, sign_in

pytestmark = pytest.mark.slow

NEW = "battery staple"


def change(page, current, new, again):
    for label, text in (("Current password", current), ("New password", new), ("New password once more", again)):
        page.get_by_label(label, exact=True).fill(text)
    page.get_by_role("button", name="Change password").click()


def test_from_the_pages_to_a_new_password_and_back(guarded, page, browser):
    accounts.create(guarded.store, "Ann", PASSWORD, ["annotator", "lead"])
    elsewhere = browser.new_context().new_page()
    for tab in (elsewhere, page):
        tab.goto(guarded.url)
        sign_in(tab, "Ann")
        expect(tab.get_by_test_id("visitor")).to_have_text("Ann")

    page.get_by_role("link", name="Password").click()
    expect(page).to_have_url(f"{guarded.url}/password")
    expect(page.get_by_role("heading", name="Change password")).to_be_visible()
    expect(page.get_by_label("Current password")).to_be_focused()
    change(page, "wrong one", NEW, NEW)
    expect(page.get_by_role("alert")).to_contain_text("not your current password")
    change(page, PASSWORD, NEW, "battery stable")
    expect(page.get_by_role("alert")).to_contain_text("differ")
    change(page, PASSWORD, NEW, NEW)
    expect(page.get_by_role("status")).to_contain_text("Your password is changed")
    # No typed password is left on the page.
    assert NEW not in page.content() and PASSWORD not in page.content()

    page.get_by_role("link", name="Back to the pages").click()
    expect(page.get_by_test_id("visitor")).to_have_text("Ann")
    ComparePage(page, guarded.url).judge(button="choose-a")
    assert accounts.named(guarded.store, "Ann").annotator.judged == 1
    elsewhere.reload()
    expect(elsewhere).to_have_url(f"{guarded.url}/sign-in")
    sign_in(elsewhere, "Ann", PASSWORD)
    expect(elsewhere.get_by_role("alert")).to_contain_text("do not match")
    sign_in(elsewhere, "Ann", NEW)
    expect(elsewhere.get_by_test_id("visitor")).to_have_text("Ann")
    elsewhere.context.close()


def test_in_korean_on_a_dark_phone_without_scripts(guarded, browser):
    accounts.create(guarded.store, "하늘", PASSWORD, ["annotator", "lead"])
    context = browser.new_context(java_script_enabled=False, locale="ko-KR", color_scheme="dark", viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(guarded.url)
    page.get_by_label("이름").fill("하늘")
    page.get_by_label("비밀번호").fill(PASSWORD)
    page.get_by_role("button", name="로그인").click()
    page.goto(f"{guarded.url}/password")
    box = page.locator("form").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    for label in ("현재 비밀번호", "새 비밀번호", "새 비밀번호 확인"):
        field = page.get_by_label(label, exact=True)
        assert field.bounding_box()["height"] >= 44
        field.fill(PASSWORD if label == "현재 비밀번호" else NEW)
    page.get_by_role("button", name="비밀번호 변경").click()
    expect(page.get_by_role("status")).to_contain_text("비밀번호를 변경했습니다")
    context.close()
