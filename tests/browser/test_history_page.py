"""The History page in a browser: judgments are found and corrected in the same form, and the earlier judgment stays."""

import pytest
from playwright.sync_api import expect

from storage.core.records import Details, Flag
from storage.judging import exclusions, judgments, queue
from storage.people import annotators
from tests.browser.pages import ComparePage, HistoryPage
from tests.browser.program import SECRET_MODELS

pytestmark = pytest.mark.slow


@pytest.fixture
def add_judgment(program):
    """Puts comparisons in and judges them; the judgments' ids."""
    annotator = annotators.ensure(program.store, "local")

    def judged(*answers, tiers=None, question=None, **more):
        program.put_in(*answers, question=question)
        _, shown = queue.next_presentation(program.store, annotator.id)
        if tiers is None:
            return judgments.save(program.store, shown.id, annotator.id, verdict="skip", skip_reason="Broken prompt", **more).id
        in_ids = tuple(tuple(shown.order[slot] for slot in tier) for tier in tiers)
        return judgments.save(program.store, shown.id, annotator.id, verdict="rank", tiers=in_ids, **more).id

    return judged


def test_judgments_are_searched_filtered_and_corrected(program, add_judgment, page):
    first = add_judgment("One.", "Other.", tiers=[[0], [1]], question=f"Why bread {program.judged()}?", details=Details(rationale="Crusty"))
    add_judgment("One.", "Other.", question=f"Why cake {program.judged()}?", details=Details(flags=(Flag("unsafe"),)))
    pie = f"Why pie {program.judged()}?"
    last = add_judgment("One.", "Other.", tiers=[[0, 1]], question=pie)
    exclusions.exclude(program.store, [last], rule="too fast", reason="Under two seconds.", by=None)
    history = HistoryPage(page, program.url)
    expect(history.rows().nth(0)).to_contain_text("Does not count (too fast): Under two seconds.")
    expect(history.rows().nth(1)).to_contain_text("Skipped: Broken prompt")
    expect(history.rows().nth(2)).to_contain_text("A is better")
    history.by("history-search").fill("crusty")
    expect(history.rows()).to_have_count(1)
    history.by("history-search").fill("nothing like it")
    expect(history.by("history-empty")).to_contain_text("Nothing found")
    # Other tests may have excluded something in the same store before.
    history.by("history-search").fill(pie)
    history.by("history-excluded").check()
    expect(history.rows()).to_have_count(1)
    history.by("history-excluded").uncheck()
    history.by("history-search").fill("crusty")
    expect(history.rows().nth(0)).to_contain_text("Why bread")

    form = history.open(0)
    expect(form.get_by_test_id("before")).to_contain_text("A is better")
    expect(form.get_by_test_id("rationale")).to_have_value("Crusty")
    page.keyboard.press("5")
    expect(form.get_by_test_id("choose-b-significantly")).to_have_attribute("aria-pressed", "true")
    assert judgments.get(program.store, first).counts
    page.keyboard.press("Control+Enter")
    expect(history.rows().nth(0)).to_contain_text("B is much better")
    expect(history.rows().nth(0)).to_contain_text("corrected")
    expect(history.rows().nth(0).get_by_role("button")).to_be_focused()
    corrected = program.last_judgment()
    assert (corrected.supersedes, corrected.strength, corrected.rationale) == (first, "significantly", "Crusty")
    assert not judgments.get(program.store, first).counts
    assert corrected.tiers == judgments.get(program.store, first).tiers[::-1]


def test_a_ranking_is_corrected_by_the_same_keys(program, add_judgment, page):
    first = add_judgment("One.", "Two.", "Three.", tiers=[[0], [1], [2]])
    history = HistoryPage(page, program.url)
    expect(history.rows().nth(0)).to_contain_text("1 > 2 > 3")
    form = history.open(0)
    page.keyboard.press("1")
    expect(form.get_by_test_id("tier-3").locator("b")).to_have_text("1")
    # Going back keeps the draft.
    page.keyboard.press("Escape")
    expect(form).to_have_count(0)
    history.open(0)
    expect(form.get_by_test_id("tier-3").locator("b")).to_have_text("1")
    page.keyboard.press("Enter")
    expect(history.rows().nth(0)).to_contain_text("2 > 3 > 1")
    assert program.last_judgment().supersedes == first


def test_pages_go_back_and_new_judgments_come_in(program, add_judgment, page):
    for i in range(22):
        add_judgment(f"One {i}.", f"Other {i}.", tiers=[[0], [1]])
    program.put_in("Fresh one.", "Fresh other.", question=f"A fresh question {program.judged()}?")
    compare = ComparePage(page, program.url)
    compare.ready()
    history = HistoryPage(page)
    expect(history.rows()).to_have_count(20)
    history.by("older").click()
    expect(history.rows().nth(21)).to_be_visible()
    page.locator("#pages [role=tab]").nth(0).click()
    compare.by("choose-a").click()
    expect(compare.by("empty-state")).to_be_visible()
    page.locator("#pages [role=tab]").nth(1).click()
    expect(history.rows().nth(0)).to_contain_text("A fresh question")


def test_the_page_is_blind_and_keys_do_nothing_on_a_hidden_page(program, add_judgment, page):
    add_judgment("One.", "Other.", tiers=[[0], [1]])
    program.put_in("Next one.", "Next other.")
    replies = []
    page.on("response", lambda reply: replies.append(reply) if "component_server" in reply.url else None)
    ComparePage(page, program.url).ready()
    history = HistoryPage(page)
    history.open(0)
    judged = program.judged()
    page.keyboard.press("1")
    page.keyboard.press("Control+Enter")
    expect(history.rows().nth(0)).to_contain_text("A is much better")
    assert program.judged() == judged
    texts = [reply.text() for reply in replies] + [page.content()]
    assert len(texts) > 4
    assert not [name for name in SECRET_MODELS for text in texts if name in text]
