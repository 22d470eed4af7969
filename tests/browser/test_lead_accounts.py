"""The first account takes over what was judged without sign-in, a password is generated and copied, and a batch goes to one person."""

import pytest
from playwright.sync_api import expect

from storage.content import batches, comparisons
from storage.core.records import Sampling
from storage.judging import queue
from storage.people import accounts
from tests.browser.pages import ComparePage
from tests.browser.program import eventually
from tests.browser.test_accessibility import violations
from tests.browser.test_lead_page import Lead
from tests.browser.test_sign_in import PASSWORD, sign_in

pytestmark = pytest.mark.slow


@pytest.fixture
def own(new_program, silent):
    """A program of the test's own that has no account yet."""
    program = new_program(*silent.options)
    for i in range(3):
        program.put_in(f"First {i}.", f"Second {i}.")
    return program.start()


def test_the_first_account_takes_over_what_was_judged_without_sign_in(own, browser):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    ComparePage(page, own.url).judge(button="choose-a")
    eventually(lambda: own.judged() == 1, "the judgment is stored")
    lead = Lead(page, own.url)
    lead.section("accounts")
    lead.fill("account-new-name", "Lea")
    lead.press("account-generate-new")
    password = lead.field("account-new-password")
    expect(password).to_have_attribute("type", "text")
    expect(password).not_to_have_value("")
    generated = password.input_value()
    page.locator("#account-new-password").get_by_role("button").first.click()
    eventually(lambda: page.evaluate("navigator.clipboard.readText()") == generated, "the password is copied")
    page.get_by_label("Take over the judgments made so far without sign-in").check()
    assert violations(page) == []
    lead.press("account-create")
    lead.says("accounts-message", "Lea is the first account: sign-in is on now.")
    assert accounts.named(own.store, "Lea").annotator.judged == 1
    assert own.store.value("SELECT count(*) FROM annotators WHERE name = 'local'") == 0
    page.locator("#accounts-message a").click()
    expect(page).to_have_url(f"{own.url}/sign-in")
    sign_in(page, "Lea", generated)
    expect(page.get_by_test_id("visitor")).to_have_text("Lea")
    # The password is on no page that comes later.
    lead = Lead(page, own.url)
    lead.section("accounts")
    lead.says("accounts-list", "Lea")
    assert generated not in page.content()
    # Only the first account can take them over.
    expect(page.locator("#account-adopts")).to_have_count(0)
    context.close()


def test_a_password_is_generated_for_somebody_and_works(own, browser):
    accounts.create(own.store, "Lea", PASSWORD, ["lead"])
    accounts.create(own.store, "Ann", PASSWORD, ["annotator"])
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(own.url)
    sign_in(page, "Lea")
    lead = Lead(page, own.url)
    lead.section("accounts")
    page.locator("#accounts-list tbody tr", has_text="Ann").get_by_role("button", name="Edit").click()
    lead.press("account-generate")
    expect(lead.field("account-password")).not_to_have_value("")
    page.locator("#account-password").get_by_role("button").first.click()
    eventually(lambda: len(page.evaluate("navigator.clipboard.readText()")) >= 12, "the password is copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert violations(page) == []
    lead.press("account-set-password")
    lead.says("accounts-message", "Password set.")
    assert copied not in page.content()
    context.close()
    elsewhere = browser.new_context()
    page = elsewhere.new_page()
    page.goto(own.url)
    sign_in(page, "Ann", copied)
    expect(page.get_by_test_id("visitor")).to_have_text("Ann")
    elsewhere.close()


def test_a_batch_is_given_to_one_person(own, page):
    lea = accounts.create(own.store, "Lea", PASSWORD, ["lead"])
    ann, bob = (accounts.create(own.store, name, PASSWORD, ["annotator"]).annotator for name in ("Ann", "Bob"))
    version = own.store.value("SELECT policy_version_id FROM completions LIMIT 1")
    batch = batches.request(own.store, [version], completions=2, sampling=Sampling(), count=3, by=lea.annotator.id)
    # As if the policy server had written one of its comparisons, which stands before the others.
    first = comparisons.get(own.store, 1)
    ids = [completion.id for completion in first.completions]
    written = comparisons.add(own.store, first.prompt.id, ids, purpose="batch", batch_id=batch.id, priority=1)
    page.goto(own.url)
    sign_in(page, "Lea")
    lead = Lead(page, own.url)
    lead.section("comparisons")
    page.locator("#batches-list").get_by_role("button", name="Assign").click()
    lead.says("batch-assign-which", f"Who gets batch {batch.id}")
    lead.field("batch-judges").click()
    page.get_by_role("option", name="Ann", exact=True).click()
    page.keyboard.press("Escape")
    assert violations(page) == []
    lead.press("batch-assign-save")
    lead.says("batches-message", f"Batch {batch.id} is assigned.")
    lead.says("batches-list", "only for Ann")
    assert batches.get(own.store, batch.id).annotator_ids == (ann.id,)
    (bobs, _), (anns, _) = (queue.next_presentation(own.store, who.id) for who in (bob, ann))
    assert anns.id == written != bobs.id
    # Nobody chosen gives it to everybody again.
    page.locator("#batches-list").get_by_role("button", name="Assign").click()
    expect(page.locator("#batch-judges")).to_contain_text("Ann")
    lead.field("batch-judges").click()
    page.keyboard.press("Backspace")
    page.keyboard.press("Escape")
    lead.press("batch-assign-save")
    expect(page.locator("#batches-list")).not_to_contain_text("only for")
    assert batches.get(own.store, batch.id).annotator_ids == ()
