"""The Lead page in a browser: what a lead sets there applies to annotators and to the policy server."""

import json

import pytest
from playwright.sync_api import expect

from storage.content import batches, comparisons
from storage.exchange import undos
from storage.judging import exclusions, judgments, queue
from storage.people import annotators
from storage.project import guidelines, settings
from tests.browser.program import eventually

pytestmark = pytest.mark.slow

WRITTEN_S = 90
"""Time limit for a small batch by the tiny model, in seconds; most of it is for loading the model."""


class Lead:
    def __init__(self, page, url):
        self.page = page
        page.goto(url)
        page.get_by_role("tab", name="Lead", exact=True).click()
        expect(page.locator("#quality-counts dl")).to_be_visible()

    def section(self, name):
        tab = self.page.locator(f"#lead-{name}-button")
        tab.click()
        expect(tab).to_have_attribute("aria-selected", "true")

    def field(self, elem_id, kind="input"):
        return self.page.locator(f"#{elem_id} {kind}")

    def fill(self, elem_id, text, kind="input"):
        box = self.field(elem_id, kind)
        box.fill(text)
        box.press("Tab")

    def press(self, elem_id):
        self.page.locator(f"#{elem_id}").click()

    def says(self, elem_id, text):
        expect(self.page.locator(f"#{elem_id}")).to_contain_text(text)


@pytest.fixture
def judged(new_program):
    """A program in which Ann and Bob have each judged two comparisons and disagree about one."""
    program = new_program()
    settings.change(program.store, settings.ProjectSettings(overlap=2), None)
    for i in range(2):
        program.put_in(f"First answer {i}.", f"Second answer {i}.")
    for name, orders in (("Ann", ((0, 1), (0, 1))), ("Bob", ((0, 1), (1, 0)))):
        annotator = annotators.ensure(program.store, name)
        for _ in range(2):
            comparison, shown = queue.next_presentation(program.store, annotator.id)
            tiers = tuple((comparison.completions[place].id,) for place in orders[comparison.id - 1])
            judgments.save(program.store, shown.id, annotator.id, verdict="rank", tiers=tiers)
    program.start()
    return program


def test_a_lead_sets_up_and_manages_a_project(judged, page):
    program, store = judged, judged.store
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    program.until_answering()
    lead = Lead(page, program.url)

    lead.section("guidelines")
    lead.says("guidelines-versions", "No guidelines yet")
    lead.field("guidelines-text", "textarea").press_sequentially("Prefer what **helps**.")
    expect(page.locator("#guidelines-preview strong")).to_have_text("helps")
    lead.press("guidelines-publish")
    lead.says("guidelines-versions", "on display")
    assert guidelines.current(store).text == "Prefer what **helps**."

    lead.section("settings")
    expect(lead.field("setting-overlap")).to_have_value("2")
    lead.fill("setting-overlap", "21")
    lead.press("settings-save")
    lead.says("settings-message", "overlap must be 1 to 20 judgments, not 21")
    lead.fill("setting-overlap", "3")
    lead.fill("setting-aspects", "helpful, honest")
    lead.press("settings-save")
    lead.says("settings-message", "Saved")
    assert settings.current(store).overlap == 3 and settings.current(store).aspects == ("helpful", "honest")

    lead.section("comparisons")
    lead.page.get_by_label(program.model.name).check()
    for name in ("Vogsphere-9B-pupil", "Zarquon-7B-teacher"):
        expect(page.locator("#batch-policies")).not_to_contain_text(name)
    lead.fill("batch-count", "3")
    lead.fill("batch-answers", "4")
    lead.press("batch-ask")
    lead.says("batches-list", "of 3")
    (batch,) = batches.all_batches(store)
    eventually(lambda: batches.get(store, batch.id).generated == 3, "the batch is written", within_s=WRITTEN_S)
    lead.says("batches-list", "done")
    ids = [row[0] for row in store.rows("SELECT id FROM comparisons WHERE batch_id = ?", [batch.id])]
    assert [c.purpose for c in comparisons.many(store, ids)] == ["batch"] * 3
    assert all(2 <= len(c.completions) <= 4 for c in comparisons.many(store, ids))

    lead.section("quality")
    expect(page.locator("[data-figure=unanimous]")).to_contain_text("1 of 2")
    page.locator("#quality-items tbody tr").first.get_by_role("button", name="Open").click()
    item = page.get_by_test_id("item")
    expect(item.locator(".rl-judgments li")).to_have_count(2)
    expect(item).to_contain_text("Zarquon-7B-teacher")

    bob = annotators.ensure(store, "Bob")
    page.locator("#quality-annotators tr", has_text="Bob").get_by_role("button", name="Exclude").click()
    expect(lead.field("exclude-annotator")).to_have_value("Bob")
    lead.fill("exclude-reason", "Judged in <b>one</b> second", kind="textarea, #exclude-reason input")
    lead.press("exclude")
    lead.says("exclusions-message", "2 judgments excluded")
    lead.says("exclusions-list", "Judged in <b>one</b> second")
    assert store.value("SELECT sum(counts) FROM judgments WHERE annotator_id = ?", [bob.id]) == 0
    page.locator("#exclusions-list").get_by_role("button", name="Lift").click()
    lead.fill("lift-reason", "It was somebody else", kind="textarea, #lift-reason input")
    lead.press("lift")
    lead.says("exclusions-list", "lifted")
    assert store.value("SELECT sum(counts) FROM judgments WHERE annotator_id = ?", [bob.id]) == 2
    assert exclusions.all_exclusions(store)[0].lifted_at is not None

    lead.section("audit")
    for text in ("published", "changed", "asked for", "excluded", "lifted"):
        lead.says("audit-entries", text)
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.get_by_role("tab", name="Lead", exact=True).click()
    expect(page.locator("#lead-audit-button")).to_have_attribute("aria-selected", "true")
    assert errors == []


def test_a_file_of_prompts_is_imported_and_not_kept(program, page, tmp_path):
    """The browser uploads the file, and a call names the upload."""
    file = tmp_path / "own prompts.jsonl"
    rows = [{"prompt": f"Why is the sky blue on day {n}?", "kind": "sky"} for n in range(9)] + [{"kind": "sky"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    lead = Lead(page, program.url)
    lead.section("prompts")
    with page.expect_file_chooser() as chooser:
        page.locator("#prompts-file").click()
    chooser.value.set_files(file)
    lead.says("prompts-message", "9 ")
    lead.says("prompt-imports", "own prompts.jsonl")
    assert program.store.value("SELECT source FROM imports ORDER BY id DESC LIMIT 1") == "own prompts.jsonl"
    assert not [path for path in program.folder.uploads.rglob("*") if path.is_file()]
    # The tests that share this program judge answers to starter prompts, which are out of use beside imported ones.
    undos.undo(program.store, program.store.value("SELECT max(id) FROM imports"), by=None)
