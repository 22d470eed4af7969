"""Judgments leave by the Lead page as files, and come in by it after a look at them."""

import json

import pytest
from playwright.sync_api import expect

from storage.judging import judgments, queue
from storage.people import annotators
from storage.project import settings
from tests.browser.program import Program, eventually
from tests.browser.test_accessibility import violations
from tests.browser.test_lead_page import Lead

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory, tiny_model, silent):
    """A program in which Ann and Bob have each judged two comparisons."""
    program = Program(tmp_path_factory.mktemp("files") / "data", tiny_model, *silent.options, environment=silent.as_proxy)
    settings.change(program.store, settings.ProjectSettings(overlap=2), None)
    for i in range(2):
        program.put_in(f"First answer {i}.", f"Second answer {i}.")
    for name in ("Ann", "Bob"):
        annotator = annotators.ensure(program.store, name)
        for _ in range(2):
            comparison, shown = queue.next_presentation(program.store, annotator.id)
            tiers = tuple((completion.id,) for completion in comparison.completions)
            judgments.save(program.store, shown.id, annotator.id, verdict="rank", tiers=tiers)
    program.start()
    yield program
    program.end()


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def choose(lead, elem_id, option):
    lead.page.locator(f"#{elem_id} input").click()
    # The list hangs where the field was when it was opened, which may be outside of the window when the page has moved since.
    lead.page.get_by_role("option", name=option, exact=True).dispatch_event("mousedown")


def test_a_previewed_file_is_imported_without_being_chosen_again(program, page, tmp_path):
    file = tmp_path / "kites.jsonl"
    rows = [{"q": f"Why do kites fly on day {n}?", "good": "Wind.", "bad": "Luck."} for n in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    imported = program.store.value("SELECT count(*) FROM imports")
    lead = Lead(page, program.url)
    lead.section("prompts")
    page.get_by_label("Preview first").check()
    with page.expect_file_chooser() as chooser:
        page.locator("#prompts-file").click()
    chooser.value.set_files(file)
    lead.says("prompts-message", "Its fields: q, good, bad.")
    lead.says("prompts-kept", "kites.jsonl is kept until")
    expect(page.locator("#prompts-import-kept")).to_be_disabled()
    lead.fill("prompts-map", "prompt=q,chosen=good,rejected=bad")
    lead.press("prompts-look-again")
    lead.says("prompts-message", "3 comparisons, 3 judgments")
    lead.says("prompts-message", "Why do kites fly on day 2?")
    assert violations(page) == []
    assert program.store.value("SELECT count(*) FROM imports") == imported and len(files_in(program.folder.uploads)) == 1
    lead.press("prompts-import-kept")
    lead.says("prompts-message", "Read with the given field map. 3 prompts added.")
    lead.says("prompt-imports", "kites.jsonl")
    expect(page.locator("#prompts-kept")).to_be_hidden()
    assert files_in(program.folder.uploads) == []
    # A preview that is cancelled leaves nothing either.
    with page.expect_file_chooser() as chooser:
        page.locator("#prompts-file").click()
    chooser.value.set_files(file)
    lead.says("prompts-message", "3 comparisons")
    lead.press("prompts-cancel-kept")
    expect(page.locator("#prompts-message")).to_be_empty()
    eventually(lambda: files_in(program.folder.uploads) == [], "the file is deleted")
    assert program.store.value("SELECT count(*) FROM imports") == imported + 1


def test_judgments_are_exported_downloaded_once_and_deleted(program, page, tmp_path):
    lead = Lead(page, program.url)
    lead.section("export")
    lead.says("export-holds", "it holds: system messages")
    choose(lead, "export-format", "csv")
    expect(page.get_by_label("CSV cells unchanged, formulas too")).to_be_visible()
    choose(lead, "export-format", "jsonl")
    expect(page.get_by_label("CSV cells unchanged, formulas too")).to_have_count(0)
    page.get_by_label("Annotators by name, not by pseudonym").check()
    assert violations(page) == []
    lead.press("export-start")
    votes = program.store.value("SELECT count(*) FROM votes")
    lead.says("export-status", f": {votes} rows")
    assert violations(page) == []
    link = page.locator("#export-status a")
    with page.expect_download() as downloaded:
        link.click()
    downloaded.value.save_as(tmp_path / "got.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "got.jsonl").read_text(encoding="utf-8").splitlines()]
    by = [row["annotator"] for row in rows]
    assert (len(by), by.count("Ann"), by.count("Bob")) == (votes, 2, 2)
    assert downloaded.value.suggested_filename.startswith("rankloop-jsonl-20")
    # The page says so by itself, and nothing is left.
    lead.says("export-status", "was downloaded, and is deleted here")
    eventually(lambda: not files_in(program.folder.downloads), "the file is deleted")
