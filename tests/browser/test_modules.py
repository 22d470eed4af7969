"""The JavaScript modules of the judging pages in a browser: loaded once, from one version, with a message where that fails."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.pages import ComparePage, HistoryPage

pytestmark = pytest.mark.slow


def is_module(response) -> bool:
    return "/modules/" in response.url


def test_both_pages_share_one_set_of_modules_which_the_browser_caches(served, page):
    loaded, errors = [], []
    page.on("response", lambda response: loaded.append(response) if is_module(response) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    served.put_in("This one.", "That one.")
    ComparePage(page, served.url).ready()
    HistoryPage(page)
    names = [response.url.rpartition("/")[2] for response in loaded]
    assert {"judging.js", "compare.js", "history.js", "translations.js"} < set(names) and len(names) == len(set(names))
    assert len({re.search("/modules/([0-9a-f]{16})/", response.url)[1] for response in loaded}) == 1
    assert {response.status for response in loaded} == {200} and errors == []
    ComparePage(page, served.url).ready()
    transferred = page.evaluate(
        "() => performance.getEntriesByType('resource').filter(e => e.name.includes('/modules/')).map(e => e.transferSize)"
    )
    assert len(transferred) == len(names) and set(transferred) == {0}


@pytest.mark.parametrize(("locale", "message"), [("en-US", "This page could not be loaded completely"), ("ko-KR", "새로 고쳐 주세요")])
def test_a_page_whose_modules_cannot_be_loaded_shows_a_message(served, browser, locale, message):
    context = browser.new_context(locale=locale)
    page = context.new_page()
    page.route("**/modules/*/rank.js", lambda route: route.abort())
    page.goto(served.url)
    expect(page.get_by_test_id("load-failed").first).to_contain_text(message)
    context.close()
