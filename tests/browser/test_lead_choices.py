"""A lead chooses what is judged: prompts of one kind, how many judgments, and sees it before it is done."""

import pytest
from playwright.sync_api import expect

from storage.content import batches, prompts
from storage.core.records import PromptFilter
from storage.exchange import imports
from storage.judging import gold
from tests.browser.program import eventually
from tests.browser.test_accessibility import violations
from tests.browser.test_lead_page import WRITTEN_S, Lead

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shop(tmp_path_factory, tiny_model):
    """A program with 12 prompts of a bicycle shop."""
    from tests.browser.program import Program

    program = Program(tmp_path_factory.mktemp("shop") / "data", tiny_model)
    rows = [{"prompt": f"Which bell rings in week {n}?", "kind": "bike_shop"} for n in range(12)]
    imports.import_rows(program.store, [*rows, {"prompt": "Which nave?", "kind": "churches"}], "prompts", source="shop.csv", by=None)
    program.start().until_answering()
    yield program
    program.end()


def choose(lead, elem_id, option):
    lead.page.locator(f"#{elem_id} input").click()
    # The list hangs where the field was when it was opened, which may be outside of the window when the page has moved since.
    lead.page.get_by_role("option", name=option, exact=True).dispatch_event("mousedown")


def test_a_batch_says_what_it_will_do_before_it_does_it(shop, page):
    lead = Lead(page, shop.url)
    lead.section("comparisons")
    lead.says("batch-outlook", "Choose the models that answer")
    choose(lead, "batch-kind", "bike shop")
    expect(lead.field("batch-count")).to_have_value("12")
    page.get_by_label(shop.model.name).check()
    # 15% of 12 is 1.8.
    lead.says("batch-outlook", "12 comparisons × 2 answers = 24 answers")
    lead.says("batch-outlook", "11 comparisons teach (training prompts), 1 measure (held-out prompts)")
    lead.fill("batch-count", "3")
    lead.fill("batch-wanted", "2")
    lead.says("batch-outlook", "6 judgments in all")
    assert violations(page) == []
    assert batches.all_batches(shop.store) == []
    lead.press("batch-ask")
    lead.says("batches-list", "kind bike shop")
    lead.says("batches-list", "2 judgments each")
    (batch,) = batches.all_batches(shop.store)
    assert (batch.prompts, batch.requested, batch.wanted) == (PromptFilter(kind="bike_shop"), 3, 2)
    eventually(lambda: batches.get(shop.store, batch.id).generated == 3, "the batch is written", within_s=WRITTEN_S)
    written = shop.store.rows(
        "SELECT p.kind, c.wanted FROM comparisons c JOIN prompts p ON p.id = c.prompt_id WHERE c.batch_id = ?", [batch.id]
    )
    assert {tuple(row) for row in written} == {("bike_shop", 2)}
    lead.says("batches-list", "done")


def test_a_prompt_is_found_read_and_saved_as_a_new_version(shop, page):
    lead = Lead(page, shop.url)
    lead.section("prompts")
    choose(lead, "prompts-list-kind", "churches")
    expect(page.locator("#prompt-list tbody tr")).to_have_count(1)
    choose(lead, "prompts-list-kind", "any")
    lead.field("prompts-list-search").press_sequentially("nave")
    expect(page.locator("#prompt-list tbody tr")).to_have_count(1)
    page.locator("#prompt-list").get_by_role("button", name="Open").click()
    lead.says("prompt-preview", "Which nave?")
    text = lead.field("prompt-text", "textarea")
    expect(text).to_have_value("Which nave?")
    text.fill("Which nave is long?")
    assert violations(page) == []
    lead.press("prompt-save")
    lead.says("prompt-message", "replaces prompt")
    lead.says("prompt-preview", "Which nave is long?")
    expect(page.locator("#prompt-list tbody tr")).to_have_count(2)
    assert [p.text for p in prompts.of_split(shop.store) if p.kind == "churches"] == ["Which nave is long?"]
    choose(lead, "prompts-list-state", "retired")
    expect(page.locator("#prompt-list tbody tr")).to_have_count(1)
    lead.says("prompt-list", "replaced by prompt")
    page.locator("#prompt-list").get_by_role("button", name="Bring back").click()
    expect(page.locator("#prompt-list")).to_contain_text("No prompt is like this")
    choose(lead, "prompts-list-state", "in use")
    expect(page.locator("#prompt-list tbody tr")).to_have_count(2)
    # What is typed above is in the list below at once.
    lead.page.locator("#prompts-lines textarea").fill("Which nave is wide?")
    lead.press("prompts-add")
    expect(page.locator("#prompt-list tbody tr")).to_have_count(3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_gold_is_made_by_putting_the_answers_in_order_where_they_stand(shop, browser, scheme):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    comparison = shop.put_in("Loud.", "Louder.", "Loudest.", question=f"Which bell is {scheme}?")
    a, b, c = (completion.id for completion in comparison.completions)
    # By keys, in the comparison that a link opens.
    page.goto(f"{shop.url}/#comparison-{comparison.id}")
    opened = page.locator("#lead-linked")
    opened.locator("[data-answer=A]").focus()
    for key in ("2", "1", "2"):
        page.keyboard.press(key)
    expect(opened.locator("[data-order-now]")).to_have_text("B > A = C")
    assert violations(page) == []
    page.keyboard.press("Enter")
    expect(opened).to_contain_text(f"Comparison {comparison.id} is gold now: B > A = C")
    assert gold.answer(shop.store, comparison.id) == ((b,), (a, c))
    # By mouse, from the list.
    page.evaluate("location.hash = '#lead/comparisons'")
    row = page.locator("#gold-list tbody tr", has_text=f"Which bell is {scheme}?")
    row.get_by_role("button", name="Open").click()
    form = page.locator("#gold-opened")
    expect(form.locator("[data-order-now]")).to_have_text("B > A = C")
    form.get_by_role("button", name="Answer C: place 3").click()
    form.locator("[data-answer=A]").focus()
    page.keyboard.press("ArrowUp")
    expect(form.locator("[data-order-now]")).to_have_text("A = B > C")
    form.get_by_role("button", name="Answer B: place 2").click()
    page.locator("#gold-note textarea, #gold-note input").first.fill("It is louder.")
    form.get_by_role("button", name="Save the known order").click()
    expect(page.locator("#gold-message")).to_contain_text("is gold now: A > B > C")
    eventually(lambda: gold.answer(shop.store, comparison.id) == ((a,), (b,), (c,)), "the order is stored")
    assert shop.store.value("SELECT note FROM gold_answers ORDER BY id DESC LIMIT 1") == "It is louder."
    context.close()
