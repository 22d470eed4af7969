"""Every page, Lead section, run and comparison has an address, which a reload, Back and a link keep."""

import re
import time

import pytest
from playwright.sync_api import expect

from storage.people import annotators
from storage.project import guidelines, runs, settings
from tests.browser.pages import ComparePage, HistoryPage, open_tab

pytestmark = pytest.mark.slow


def at(address):
    return re.compile(re.escape(address) + "$")


def expect_open(page, name):
    expect(page.locator(f"#tab-{name}-button")).to_have_attribute("aria-selected", "true")


def test_each_page_has_an_address_that_back_and_a_reload_keep(program, page):
    page.goto(program.url)
    expect_open(page, "compare")
    open_tab(page, "History")
    expect(page).to_have_url(at("/#history"))
    open_tab(page, "Data")
    expect(page).to_have_url(at("/#data"))
    page.reload()
    expect_open(page, "data")
    expect(page.locator("#data-overview")).to_be_visible()
    page.go_back()
    expect_open(page, "history")
    page.go_back()
    expect_open(page, "compare")
    expect(page).to_have_url(re.compile("/$"))
    page.go_forward()
    expect_open(page, "history")


def test_the_sections_of_the_lead_page_and_comparisons_have_addresses(program, page):
    comparison = program.put_in("One.", "Two.")
    page.goto(f"{program.url}/#lead/guidelines")
    expect(page.locator("#lead-guidelines-button")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#guidelines-versions")).to_be_visible()
    page.locator("#lead-audit-button").click()
    expect(page).to_have_url(at("/#lead/audit"))
    page.go_back()
    expect(page.locator("#lead-guidelines-button")).to_have_attribute("aria-selected", "true")
    page.evaluate("(id) => { location.hash = `comparison-${id}` }", comparison.id)
    expect(page.locator("#lead-linked [data-comparison]")).to_have_attribute("data-comparison", str(comparison.id))
    page.reload()
    expect(page.locator("#lead-linked [data-comparison]")).to_have_attribute("data-comparison", str(comparison.id))
    expect(page).to_have_url(at(f"/#comparison-{comparison.id}"))
    page.go_back()
    expect(page.locator("#lead-linked [data-comparison]")).to_have_count(0)
    expect(page.locator("#lead-guidelines-button")).to_have_attribute("aria-selected", "true")


def test_a_judgment_that_is_open_has_an_address(program, page):
    program.put_in("One.", "Two.")
    compare = ComparePage(page, program.url)
    compare.ready()
    compare.press("a")
    expect(compare.by("judged-count")).to_contain_text("today")
    history = HistoryPage(page)
    history.open(0)
    url = page.url
    assert re.search(r"#history/.{32}", url)
    page.reload()
    expect(history.by("correcting")).to_have_attribute("data-state", "ready")
    page.go_back()
    expect(history.by("correcting")).to_have_count(0)
    expect(history.rows().first).to_be_visible()
    page.goto("about:blank")
    page.goto(url)
    expect(history.by("correcting")).to_have_attribute("data-state", "ready")
    history.by("correcting").get_by_test_id("back").click()
    expect(page).to_have_url(at("/#history"))


def test_a_run_has_an_address(new_program, page):
    program = new_program()
    for run_id in ("20260101-000000-aaaa", "20260102-000000-bbbb"):
        runs.create(program.store, run_id, config={}, seed=0, versions={})
        runs.finish(program.store, run_id, "failed", error="It stopped.")
    program.start()
    page.goto(f"{program.url}/#training")
    expect(page.locator("#run-picker input")).to_have_value(re.compile("bbbb"))
    page.goto("about:blank")
    page.goto(f"{program.url}/#training/20260101-000000-aaaa")
    expect(page.locator("#run-picker input")).to_have_value(re.compile("aaaa"))
    page.locator("#run-picker input").click()
    page.get_by_role("option", name=re.compile("bbbb")).click()
    expect(page).to_have_url(at("/#training/20260102-000000-bbbb"))
    page.go_back()
    expect(page.locator("#run-picker input")).to_have_value(re.compile("aaaa"))
    open_tab(page, "Data")
    open_tab(page, "Training")
    expect(page).to_have_url(at("/#training/20260101-000000-aaaa"))
    expect(page.locator("#run-picker input")).to_have_value(re.compile("aaaa"))
    # The page is left before the server has answered: the choice is kept all the same.
    page.route("**/gradio_api/run/predict", lambda route: (time.sleep(0.5), route.continue_()))
    page.locator("#run-picker input").click()
    page.get_by_role("option", name=re.compile("bbbb")).click()
    open_tab(page, "Data")
    open_tab(page, "Training")
    expect(page).to_have_url(at("/#training/20260102-000000-bbbb"))
    expect(page.locator("#run-picker input")).to_have_value(re.compile("bbbb"))
    page.go_back()
    page.go_back()
    expect(page).to_have_url(at("/#training/20260102-000000-bbbb"))
    page.go_back()
    expect(page).to_have_url(at("/#training/20260101-000000-aaaa"))
    expect(page.locator("#run-picker input")).to_have_value(re.compile("aaaa"))
    page.unroute("**/gradio_api/run/predict")
    page.goto(f"{program.url}/#training/none")
    expect(page.locator("#run-picker input")).to_have_value(re.compile("bbbb"))


def test_what_the_audit_shows_has_an_address(new_program, page):
    program = new_program()
    ann, bob = (annotators.ensure(program.store, name) for name in ("Ann", "Bob"))
    for number, who in enumerate((ann, ann, bob), start=1):
        guidelines.publish(program.store, f"Version {number}.", who.id)
    settings.change(program.store, settings.ProjectSettings(overlap=2), ann.id)
    program.start()
    rows = page.locator("#audit-entries tbody tr")
    page.goto(f"{program.url}/#lead/audit")
    expect(rows).to_have_count(4)
    page.locator("#audit-who input").click()
    page.get_by_role("option", name="Ann", exact=True).click()
    expect(rows).to_have_count(3)
    expect(page).to_have_url(at(f"/#lead/audit/{ann.id}"))
    page.locator("#audit-did input").click()
    page.get_by_role("option", name="published", exact=True).click()
    expect(rows).to_have_count(2)
    expect(page).to_have_url(at(f"/#lead/audit/{ann.id}/published"))
    page.reload()
    expect(rows).to_have_count(2)
    expect(page.locator("#audit-who input")).to_have_value("Ann")
    expect(page.locator("#audit-did input")).to_have_value("published")
    page.go_back()
    expect(rows).to_have_count(3)
    page.go_back()
    expect(rows).to_have_count(4)
    # A shared link, in a browser that has not been here.
    page.goto("about:blank")
    page.goto(f"{program.url}/#lead/audit/{bob.id}")
    expect(rows).to_have_count(1)
    expect(page.locator("#audit-who input")).to_have_value("Bob")
    # The filter stays while another section and another page are looked at.
    page.locator("#lead-settings-button").click()
    expect(page).to_have_url(at("/#lead/settings"))
    page.locator("#lead-audit-button").click()
    expect(page).to_have_url(at(f"/#lead/audit/{bob.id}"))
    page.get_by_role("tab", name="Data", exact=True).click()
    expect(page).to_have_url(at("/#data"))
    page.go_back()
    expect(rows).to_have_count(1)
    expect(page.locator("#audit-who input")).to_have_value("Bob")
