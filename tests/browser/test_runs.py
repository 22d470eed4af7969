"""Runs on the Training page in real Chromium: their names, runs laid side by side, and what is downloaded from them."""

import re

import pytest
from playwright.sync_api import expect

from storage.people import audit
from storage.project import runs

pytestmark = pytest.mark.slow


@pytest.fixture
def program(new_program):
    """Three runs that have ended, with the metrics and results of rounds."""
    program = new_program()
    for number, (run_id, kl_coef) in enumerate((("r1", 0.05), ("r2", 0.1), ("r3", 0.05))):
        add_run(program.store, run_id, number=number, config={"ppo": {"kl_coef": kl_coef}})
    return program.start()


def add_run(store, run_id, *, number, config):
    runs.create(store, run_id, config=config, seed=number, versions={})
    runs.set_snapshot(store, run_id, {"pairs": 90, "train": 60, "heldout": 30, "simulated": 0, "sha256": "3f2a91c0" * 8})
    for step in range(4):
        runs.log_metrics(store, run_id, step, {"objective/kl": step * (1 + number), "objective/scores": 0.1 * step, "reward/loss": 0.7})
    share = {"value": 0.5 + 0.1 * number, "low": 0.4, "high": 0.8, "cases": 30}
    runs.finish(store, run_id, "done", result={"heldout_accuracy": share, "win_rate_by_reward_model": share, "kl": 3.0 * (1 + number)})


def test_a_run_is_named_on_the_page_while_the_page_follows_it(program, page):
    page.goto(f"{program.url}/#training/r2")
    expect(page.locator("#run-picker input")).to_have_value("r2 · done")
    page.locator("#run-naming button").first.click()
    note = page.locator("#run-note textarea")
    note.fill("Twice the coefficient.")
    # Somebody names another run meanwhile, and the page follows: what is typed here stays.
    runs.describe(program.store, "r1", name="Baseline")
    expect(page.get_by_test_id("rounds")).to_contain_text("Baseline")
    expect(note).to_have_value("Twice the coefficient.")
    page.locator("#run-name :is(input, textarea)").fill("Twice")
    page.locator("#save-run-name").click()
    expect(page.locator("#run-name-message")).to_have_text("Saved.")
    expect(page.get_by_test_id("run-name")).to_have_text("Twice")
    expect(page.get_by_test_id("run-note")).to_have_text("Twice the coefficient.")
    expect(page.locator("#run-picker input")).to_have_value("Twice · r2 · done")
    page.locator("#run-picker input").click()
    page.get_by_role("option", name=re.compile("r1")).click()
    expect(page.locator("#run-name :is(input, textarea)")).to_have_value("Baseline")
    expect(note).to_have_value("")
    assert [entry.subject_id for entry in audit.entries(program.store, act="named")] == ["r2", "r1"]
