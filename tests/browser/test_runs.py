"""Runs on the Training page in real Chromium: their names, runs laid side by side, and what is downloaded from them."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from rlhf.config import PRESETS, with_options
from storage.people import audit
from storage.project import runs
from tests.browser.pages import open_part, settled
from tests.browser.program import Program
from tests.browser.test_accessibility import LOOKS, SIZES, nothing, violations

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory, tiny_model, silent):
    """A program with three runs that have ended, with the metrics and results of rounds."""
    program = Program(tmp_path_factory.mktemp("runs") / "data", tiny_model, *silent.options, environment=silent.as_proxy)
    for number, (run_id, kl_coef) in enumerate((("r1", 0.05), ("r2", 0.1), ("r3", 0.05))):
        config = with_options(PRESETS["tiny"], {"ppo-kl-coef": kl_coef, "seed": number})
        add_run(program.store, run_id, number=number, config=config.to_dict())
    yield program.start()
    program.end()


@pytest.fixture
def program(served):
    """The shared program, whose runs have no names."""
    for run_id in ("r1", "r2", "r3"):
        runs.describe(served.store, run_id, name="", note="")
    return served


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
    assert [entry.subject_id for entry in audit.entries(program.store, act="named")][:2] == ["r2", "r1"]


def test_a_run_s_files_and_charts_are_downloaded(program, page, tmp_path):
    page.goto(f"{program.url}/#training/r1")
    files = page.get_by_test_id("downloads")
    expect(files).to_contain_text("There is no adapter, because the run ended before it saved one.")
    with page.expect_download() as download:
        files.get_by_role("link", name="Metrics").click()
    assert download.value.suggested_filename == "r1-metrics.csv"
    text = Path(download.value.path()).read_text()
    assert text.startswith("step,metric,value\n0,objective/kl,0.0\n") and len(text.splitlines()) == 13
    open_part(page, "policy")
    chart = page.locator("#plot-policy-2")
    chart.hover()
    # Dark pages give the same picture: dark on white.
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        with page.expect_download() as download:
            chart.get_by_role("button", name="Save this chart as PNG").click()
        assert download.value.suggested_filename == "r1-KL-to-base.png"
        picture = np.asarray(Image.open(download.value.path()).convert("RGB"), dtype=int)
        assert picture.shape[0] > 300 and tuple(picture[0, 0]) == (255, 255, 255) and picture.min() < 90
    with page.expect_download() as download:
        chart.get_by_role("button", name="Save this chart as SVG").click()
    assert download.value.suggested_filename == "r1-KL-to-base.svg"
    assert "KL to base" in Path(download.value.path()).read_text()
    page.goto(f"{program.url}/#training/compare~r1~r2")
    chart = page.locator("#compared-objective-scores")
    expect(chart.locator(".js-plotly-plot")).to_be_visible()
    chart.hover()
    with page.expect_download() as download:
        chart.get_by_role("button", name="Save this chart as SVG").click()
    assert download.value.suggested_filename == "runs-Score.svg" and "r2" in Path(download.value.path()).read_text()


def lines(page, key):
    """The name, colour and dash of each line of a chart."""
    drawn = "plots => plots.map(plot => plot._fullData.map(each => [each.name, each.line.color, each.line.dash]))[0]"
    return page.locator(f"#compared-{key} .js-plotly-plot").evaluate_all(drawn)


def test_runs_are_laid_side_by_side_and_the_view_has_an_address(program, page):
    runs.describe(program.store, "r1", name="Baseline <b>1</b>")
    page.goto(f"{program.url}/#training/r2")
    expect(page.locator("#run-picker input")).to_have_value("r2 · done")
    page.get_by_role("tab", name="Side by side").click()
    expect(page).to_have_url(re.compile(r"#training/compare$"))
    expect(page.locator("#compared-figures")).to_contain_text("Choose 2 to 4 runs")
    for run_id in ("r1", "r2"):
        page.locator("#compared-runs input").click()
        page.get_by_role("option", name=re.compile(run_id)).click()
    expect(page).to_have_url(re.compile(r"#training/compare~r1~r2$"))
    figures = page.get_by_test_id("compared-figures")
    expect(figures.locator("thead th")).to_have_text(["Baseline <b>1</b>", "r2"])
    expect(figures).to_contain_text("60% (40 to 80%)")
    differing = page.get_by_test_id("compared-options").locator("> .rl-scrolls th[scope=row]")
    expect(differing).to_have_text(["Seed", "PPO KL coefficient"])
    expect(page.locator("#compared-objective-kl .legend .traces")).to_have_count(2)
    assert lines(page, "objective-kl") == [["Baseline &lt;b&gt;1&lt;/b&gt;", "#0072b2", "solid"], ["r2", "#d55e00", "dash"]]
    expect(page.locator("#compared-objective-kl .legendtext").first).to_have_text("Baseline <b>1</b>")
    page.reload()
    expect(figures.locator("thead th")).to_have_text(["Baseline <b>1</b>", "r2"])
    expect(page.locator("#compared-runs")).to_contain_text("r2 · done")
    # Back leads to what was open before, and a link to what it names.
    page.go_back()
    expect(page.locator("#compared-figures")).to_contain_text("Choose 2 to 4 runs")
    page.get_by_role("tab", name="Rounds", exact=True).click()
    expect(page).to_have_url(re.compile(r"#training$"))
    page.get_by_test_id("rounds").get_by_role("link", name="Lay the newest side by side").click()
    expect(figures.locator("thead th")).to_have_text(["r3", "r2", "Baseline <b>1</b>"])
    page.goto(f"{program.url}/#training/compare~r1~r9")
    expect(page.locator("#compared-message")).to_contain_text("no such run here: r9")
    page.goto(f"{program.url}/#training/r3")
    expect(page.locator("#run-picker input")).to_have_value("r3 · done")


@pytest.mark.parametrize("size, scheme", LOOKS)
def test_axe_finds_nothing_in_runs_side_by_side(program, browser, size, scheme):
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)
    page = context.new_page()
    with settled(page):
        page.goto(f"{program.url}/#training/compare~r1~r2~r3")
    page.locator(".rl-all-options summary").click()
    assert nothing({f"{size} {scheme}": violations(page)})
    context.close()
