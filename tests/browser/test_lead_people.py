"""A lead sees who needs a look, reads what they did, and sees what an exclusion would change; text typed while a page loads stays."""

import re

import pytest
from playwright.sync_api import expect

from storage.core.records import Details, Timing
from storage.judging import judgments, queue
from storage.people import annotators
from storage.project import guidelines, settings
from tests.browser.program import Program
from tests.browser.test_accessibility import violations
from tests.browser.test_lead_page import Lead

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def crowd(tmp_path_factory, tiny_model, silent):
    """A program in which Bob takes a second for a judgment and disagrees with Ann."""
    program = Program(tmp_path_factory.mktemp("crowd") / "data", tiny_model, *silent.options, environment=silent.as_proxy)
    settings.change(program.store, settings.ProjectSettings(overlap=2), None)
    for i in range(12):
        program.put_in(f"First answer {i}.", f"Second answer {i}.")
    for name, order, ms in (("Ann", (0, 1), 9_000), ("Bob", (1, 0), 1_000)):
        annotator = annotators.ensure(program.store, name)
        for _ in range(12):
            comparison, shown = queue.next_presentation(program.store, annotator.id)
            tiers = tuple((comparison.completions[place].id,) for place in order)
            details = Details(timing=Timing(ms, 0, ms))
            judgments.save(program.store, shown.id, annotator.id, verdict="rank", tiers=tiers, details=details)
    program.start()
    yield program
    program.end()


def test_people_come_first_with_their_judgments_and_what_an_exclusion_would_change(crowd, page):
    lead = Lead(page, crowd.url)
    bob = page.locator("#quality-people li", has_text="Bob")
    expect(bob.filter(has_text="is hasty")).to_contain_text("less than 1.0 s, under the bound of 3 s")
    expect(bob.filter(has_text="disagrees")).to_contain_text("in 0% of 12 pairs")
    lead.says("quality-overview", "no better than chance; look at the guidelines")
    assert violations(page) == []
    bob.first.get_by_role("button", name="Judgments").click()
    expect(lead.field("audit-who")).to_have_value("Bob")
    expect(page.locator("#audit-entries tbody tr")).to_have_count(12)
    expect(page.locator("#audit-entries")).not_to_contain_text("Ann")
    number = next(who.id for who in annotators.all_annotators(crowd.store) if who.name == "Bob")
    expect(page).to_have_url(re.compile(rf"/#lead/audit/{number}$"))
    assert violations(page) == []
    page.locator("#audit-entries a").first.click()
    expect(page.locator("#lead-linked [data-testid=item]")).to_be_visible()
    lead.section("quality")
    bob.first.get_by_role("button", name="Exclude").click()
    lead.says("exclude-effect", "12 votes of 24 would stop counting. 12 comparisons would go back to the queue.")
    assert violations(page) == []
    assert crowd.store.value("SELECT sum(counts) FROM judgments") == 24


@pytest.mark.parametrize("language", ["en-US", "ko-KR"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_sentence_makes_the_page_wider(crowd, browser, width, language):
    context = browser.new_context(viewport={"width": width, "height": 900}, locale=language)
    page = context.new_page()
    page.goto(f"{crowd.url}/#lead/quality")
    expect(page.locator("#quality-items tbody tr").first).to_be_visible(timeout=60_000)
    expect(page.locator("#quality-annotators .rl-meaning").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_what_is_typed_while_the_guidelines_load_stays(crowd, page):
    guidelines.publish(crowd.store, "The published ones.", None)
    lead = Lead(page, crowd.url)
    held, holding = [], True
    page.route("**/gradio_api/run/predict*", lambda route: held.append(route) if holding else route.continue_())
    page.locator("#lead-guidelines-button").click()
    editor = lead.field("guidelines-text", "textarea")
    editor.fill("Typed before the page had loaded")
    page.wait_for_timeout(500)
    holding = False
    for route in held:
        route.continue_()
    assert held, "nothing was on its way: the test tests nothing"
    lead.says("guidelines-versions", "on display")
    lead.says("guidelines-preview", "Typed before")
    expect(editor).to_have_value("Typed before the page had loaded")
    # And where nothing was typed, the published text is there.
    page.reload()
    lead.section("guidelines")
    expect(editor).to_have_value("The published ones.")
