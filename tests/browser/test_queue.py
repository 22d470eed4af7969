"""The queue of rounds and the triggers on the Training page, in real Chromium with a tiny model."""

import pytest
from playwright.sync_api import expect

from storage.project import queued_rounds, rounds, runs, settings
from tests.browser.pages import ComparePage, TrainingPage
from tests.browser.program import eventually

pytestmark = pytest.mark.slow


@pytest.fixture
def program(new_program):
    program = new_program()
    for i in range(5):
        program.put_in(f"First answer {i}.", f"Second answer {i}.")
    program.start()
    return program


def test_a_round_that_waits_is_shown_and_taken_out_and_a_trigger_begins_one(program, page):
    store = program.store
    compare = ComparePage(page, program.url)
    for _ in range(4):
        compare.judge(button="choose-a")
    # A run that never ends, as far as this store knows.
    runs.create(store, "r-first", config={}, seed=0, versions={})
    runs.mark_started(store, "r-first", program.process.pid)

    training = TrainingPage(page)
    training.choose_preset("tiny")
    training.fill(min_pairs=3)
    training.start()
    row = page.locator("#round-queue li")
    expect(page.locator("#queue-message")).to_contain_text("waits for its turn")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("PPO")
    row.get_by_role("button", name="Take out").click()
    expect(row).to_have_count(0)
    assert queued_rounds.get(store, 1).state == "taken out" and len(runs.all_runs(store)) == 1

    page.locator("#triggers button").first.click()
    expect(page.get_by_test_id("triggers")).to_have_attribute("data-state", "off")
    page.locator("#setting-retrain-after-judgments input").fill("4")
    page.locator("#setting-retrain-schedule input, #setting-retrain-schedule textarea").first.fill("every day")
    page.locator("#save-triggers").click()
    expect(page.locator("#triggers-message")).to_contain_text("five fields")
    page.locator("#setting-retrain-schedule input, #setting-retrain-schedule textarea").first.fill("0 3 * * *")
    page.locator("#save-triggers").click()
    state = page.get_by_test_id("triggers")
    expect(state).to_have_attribute("data-state", "held")
    expect(state).to_contain_text("4 of 4")
    expect(page.get_by_test_id("triggers-standing")).to_contain_text("run r-first trains")
    assert settings.current(store).retrain_options["preset"] == "tiny"
    page.locator("#dry-run-triggers").click()
    expect(page.get_by_test_id("triggers-dry-run")).to_contain_text("could begin now")

    # The run ends: the trigger begins a round by itself, and the page shows it.
    runs.finish(store, "r-first", "failed", error="out of luck")
    eventually(lambda: rounds.all_rounds(store), "the trigger begins a round", within_s=60)
    (found,) = rounds.all_rounds(store)
    assert (found.trigger, found.by_id) == ("judgments", None)
    expect(state).to_contain_text(found.run_id)
    eventually(lambda: runs.get(store, found.run_id).status == "done", "it ends", within_s=180)
