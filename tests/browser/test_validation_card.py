"""The validation card of a finished round, and the links from judgments with high loss to their comparisons."""

import numpy as np
import pytest
from playwright.sync_api import expect

from rlhf.analysis import validation
from rlhf.config import RoundConfig
from storage.content import prompts
from storage.judging import judgments, queue
from storage.people import annotators
from storage.project import runs
from tests.browser.pages import TrainingPage, open_part, settled
from tests.browser.program import Program
from tests.browser.test_accessibility import nothing, violations

pytestmark = pytest.mark.slow

QUESTIONS = 60
HARMFUL = "<img src=x onerror=alert(1)> & <b>bold</b>?"
KINDS = ("explain", "short_story", "code")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model, silent):
    """A program with a finished round: two people judged with the same preference, and Bob reversed his last judgment."""
    program = Program(tmp_path_factory.mktemp("validation") / "data", tiny_model, *silent.options, environment=silent.as_proxy)
    fill(program)
    yield program.start()
    program.end()


def fill(program: Program) -> None:
    store, rng = program.store, np.random.default_rng(0)
    asked = [HARMFUL if i == QUESTIONS - 1 else f"What is the {i + 1}. thing to know about bread?" for i in range(QUESTIONS)]
    for i, question in enumerate(asked):
        prompts.add(store, [prompts.NewPrompt(({"role": "user", "content": question},), KINDS[i % 3], "train")], source="test")
        for number in range(3):
            program.put_in(f"Answer {number} about {i}.", f"Another {number} about {i}.", question=question)
    people = [annotators.ensure(store, name) for name in ("Ann", "Bob <i>Baker</i>", "New")]
    made = []
    while found := queue.next_presentation(store, (by := people[min(len(made) % 5 // 3, 1) if len(made) > 5 else 2]).id):
        made.append(judgments.save(store, found[1].id, by.id, verdict="rank", tiers=tuple((i,) for i in found[1].order)))
    taste = rng.standard_normal(30) / np.sqrt(30)
    features = rng.standard_normal((len(made), 30))
    agreed = rng.random(len(made)) < 1 / (1 + np.exp(-5 * features @ taste))
    difference = np.where(agreed, 1, -1)[:, None] * features
    difference[-1] = -4 * taste * np.sqrt(30)
    origins = judgments.metadata(store, [j.id for j in made])
    found = validation.validate(difference, [origins[j.id] for j in made], lambda rows: 0.02 * difference[rows].sum(0), seed=0)
    config = RoundConfig().to_dict()
    runs.create(store, "round-1", config=config, seed=0, versions={})
    snapshot = {"pairs": 214, "train": len(made), "heldout": 214 - len(made), "simulated": 0, "sha256": "ab" * 32}
    runs.set_snapshot(store, "round-1", snapshot)
    runs.set_validation(store, "round-1", found.to_json())
    for step in range(1, 11):
        runs.log_metrics(store, "round-1", step, {
            "reward/loss": 0.7 - 0.03 * step, "objective/scores": 0.9 * np.sqrt(step) - 0.02 * step**1.5,
            "objective/kl": 0.4 * step, "objective/disagreement": 0.1 + 0.05 * step, "policy/entropy_avg": 2.0, "val/response_length": 40.0,
        })  # fmt: skip
    figure = {"value": 0.64, "low": 0.51, "high": 0.75, "cases": 34}
    result = {"heldout_accuracy": figure, "kl": 4.0, "minutes": 21.0, "policy_version": "tuned-1"}
    runs.finish(store, "round-1", "done", result=result)


def test_the_card_shows_the_validation_and_links_to_comparisons(finished, page):
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(finished.url)
    training = TrainingPage(page)
    training.show("trust")
    validation = runs.get(finished.store, "round-1").validation

    card = page.get_by_test_id("validation")
    expect(card).to_contain_text(f"{100 * validation['accuracy']['value']:.0f}%")
    expect(card).to_contain_text("180 pairs of 60 training prompts")
    for part, plot in (("policy", "score_over_kl"), ("trust", "learning_curve"), ("trust", "reliability")):
        training.show(part)
        expect(page.locator(f"#plot-{plot} .scatterlayer .points path").first).to_be_attached()
    expect(page.get_by_test_id("validation-kinds").locator("tbody tr")).to_have_count(3)
    expect(page.get_by_test_id("validation-kinds")).to_contain_text("short story")
    people = page.get_by_test_id("validation-annotators").locator("tbody tr")
    expect(people).to_have_count(3)
    expect(people.filter(has_text="New")).to_contain_text("too few")
    expect(people.filter(has_text="Bob")).to_contain_text("Bob <i>Baker</i>")

    judgments = page.get_by_test_id("validation-high-loss").locator("tbody tr")
    expect(judgments).to_have_count(10)
    first = judgments.first
    expect(first).to_contain_text(HARMFUL)
    with page.context.expect_page() as opened:
        first.get_by_role("link").click()
    linked = opened.value
    expect(linked.locator("#tab-lead-button")).to_have_attribute("aria-selected", "true")
    item = linked.get_by_test_id("item")
    worst = validation["high_loss_judgments"][0]
    expect(item).to_contain_text(f"{worst['comparison_id']}")
    expect(item).to_contain_text("onerror=alert(1)")
    expect(item).to_contain_text(f"{worst['judgment_id']}")
    expect(item).to_be_in_viewport()
    # The address stays, so that it can be shared; a later visit by the tabs shows the page as usual.
    assert linked.url.endswith(f"#comparison-{worst['comparison_id']}")
    linked.locator("#tab-training-button").click()
    linked.locator("#tab-lead-button").click()
    expect(linked.get_by_test_id("item")).to_have_count(0)
    assert dialogs == []


def test_a_link_to_a_missing_comparison_shows_an_error(finished, page):
    page.goto(f"{finished.url}/#comparison-99999")
    expect(page.locator("#lead-linked")).to_contain_text("99999")


def test_before_the_validation_the_card_says_when_it_appears(finished, page):
    runs.create(finished.store, "round-2", config=RoundConfig().to_dict(), seed=0, versions={})
    page.goto(finished.url)
    TrainingPage(page).show("trust")
    expect(page.get_by_test_id("validation")).to_contain_text("before the policy is trained")
    expect(page.locator("#plot-reliability")).not_to_be_visible()
    runs.set_validation(finished.store, "round-2", runs.get(finished.store, "round-1").validation)
    expect(page.get_by_test_id("validation-high-loss")).to_be_visible()
    expect(page.locator("#plot-reliability")).to_be_visible()
    expect(page.get_by_test_id("run-status")).to_have_text("Waiting to start")
    runs.finish(finished.store, "round-2", "cancelled")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_of_and_a_phone_need_not_scroll_sideways(finished, browser, scheme):
    for size in ({"width": 1280, "height": 900}, {"width": 390, "height": 844}):
        context = browser.new_context(viewport=size, color_scheme=scheme)
        page = context.new_page()
        with settled(page):
            page.goto(f"{finished.url}?__theme={scheme}#training/round-1")
        expect(page.get_by_test_id("run-verdict")).to_be_visible()
        found = {}
        for part in ("trust", "policy", "samples", "config", "log", "result"):
            with settled(page):
                open_part(page, part)
            if part in ("trust", "policy"):
                # Gradio's placeholder of a plot that is not there yet is not checked.
                expect(page.locator(".rl-plot .main-svg").locator("visible=true").first).to_be_visible()
                expect(page.locator(".rl-plot .empty").locator("visible=true")).to_have_count(0)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), part
            found[part] = violations(page)
        with settled(page):
            page.locator("#option-search input, #option-search textarea").first.fill("clip")
        expect(page.locator("#option-ppo-clip")).to_be_visible()
        page.locator("#option-ppo-clip input").fill("0.3")
        expect(page.locator("#option-ppo-clip [data-mark]")).to_have_attribute("data-mark", "changed")
        found["search"] = violations(page)
        assert nothing(found)
        context.close()
