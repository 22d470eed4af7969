"""Every text of a page is in the browser's language, and its `lang` attribute says so to screen readers."""

import pytest
from playwright.sync_api import expect

from feedback_ui.shared.i18n import LANGUAGES, Translator, tables
from rlhf.config import RoundConfig, options
from tests.browser.pages import settled
from tests.browser.program import Program

pytestmark = pytest.mark.slow

PAGES = ("compare", "history", "lead", "leaderboard", "training", "demo", "data")


@pytest.fixture(scope="module")
def program(tmp_path_factory, tiny_model, silent):
    """A program of this file's own: a round must be refused for want of votes, however much other tests judged."""
    own = Program(tmp_path_factory.mktemp("languages") / "data", tiny_model, *silent.options, environment=silent.as_proxy)
    own.put_in("First answer.", "Second answer.")
    yield own.start()
    own.end()


@pytest.fixture
def reader(browser, program):
    """Opens the program in a browser that asks for that language."""
    contexts = []

    def opened(locale: str):
        contexts.append(browser.new_context(locale=locale, viewport={"width": 1280, "height": 900}))
        page = contexts[-1].new_page()
        page.goto(program.url)
        expect(page.get_by_role("tab").first).to_be_visible()
        return page

    yield opened
    for context in contexts:
        context.close()


def shown(page) -> str:
    """What can be read on the page or is read aloud: text, labels, placeholders."""
    return page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility()).flatMap((e) => [
            ...[...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent),
            e.getAttribute('aria-label'), e.getAttribute('placeholder'), e.getAttribute('title'),
        ]).map((text) => text?.trim()).filter(Boolean).join('\\n')"""
    )


def pages_of(page, language: str) -> dict[str, str]:
    found = {}
    for name in PAGES:
        with settled(page):
            page.get_by_role("tab", name=Translator(language)(f"app.{name}"), exact=True).click()
        if name == "training":
            page.locator("#start-round").click()
            expect(page.locator("#start-refusal")).to_contain_text("50")
            page.locator("#options-guards button").first.click()
            expect(page.locator("#options-guards input").last).to_be_visible()
        found[name] = shown(page)
    return found


def own_texts(language: str) -> set[str]:
    """The texts that only this language has, as whole lines; values of options belong to no language."""
    others = {value for option in options(RoundConfig()) for value in option.choices}
    others |= {text for other in LANGUAGES if other != language for text in tables()[other].values()}
    return {text for text in tables()[language].values() if "{" not in text} - others


@pytest.mark.parametrize(
    ("locale", "language", "at_least"),
    [("ko-KR", "ko", {"training": 25, "demo": 10, "data": 8}), ("en-GB", "en", {"training": 25, "demo": 10, "data": 8})],
)
def test_every_page_is_in_the_browsers_language(reader, locale, language, at_least):
    page = reader(locale)
    assert page.evaluate("document.documentElement.lang") == language
    for name, text in pages_of(page, language).items():
        lines = set(text.splitlines())
        assert "__i18n__" not in text, name
        for other in LANGUAGES:
            found = lines & own_texts(other)
            assert (len(found) >= at_least.get(name, 3)) if other == language else not found, (name, other, found)


def test_a_language_without_translation_gets_english_and_its_lang_attribute(reader):
    page = reader("fr-FR")
    assert page.evaluate("document.documentElement.lang") == "en"
    expect(page.get_by_role("tab", name="Training", exact=True)).to_be_visible()
    page.get_by_role("tab", name="Data", exact=True).click()
    expect(page.get_by_test_id("data-judgments")).to_contain_text("by people")


def test_later_messages_of_the_server_are_in_the_same_language(reader):
    """The browser translates the button, the server the figures and the refusal: both must choose the same language."""
    page = reader("ko-KR")
    page.get_by_role("tab", name="학습", exact=True).click()
    expect(page.locator("#start-round")).to_have_text("라운드 시작")
    page.locator("#start-round").click()
    expect(page.locator("#start-refusal")).to_contain_text("‘모의 판정 포함’을 켤 때만")
    page.get_by_role("tab", name="데이터", exact=True).click()
    expect(page.get_by_test_id("data-judgments")).to_contain_text("대기 중인 비교")
