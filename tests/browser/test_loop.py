"""The whole loop in a browser: judge, train, compare the versions; and interrupted rounds."""

import pytest
from playwright.sync_api import expect

from storage.content import prompts
from storage.project import runs
from tests.browser.pages import ComparePage, TrainingPage
from tests.browser.program import eventually

pytestmark = pytest.mark.slow

ROUND_S = 120.0
"""Time limit for a tiny round, in seconds; most of it is for importing torch."""


@pytest.fixture
def judged_program(new_program):
    """A program with four comparisons to judge and three held-out prompts."""
    program = new_program()
    for i in range(4):
        program.put_in(f"First answer {i}.", f"Second answer {i}.")
    questions = [prompts.NewPrompt(({"role": "user", "content": f"Held out {i}?"},), split="heldout") for i in range(3)]
    prompts.add(program.store, questions, source="test")
    return program.start()


def judge_all(program, page, judgments=4):
    compare = ComparePage(page, program.url)
    for _ in range(judgments - 1):
        compare.judge(button="choose-a")
    compare.ready()
    compare.page.keyboard.press("2")
    eventually(lambda: program.judged() == judgments, "every judgment is stored")


def test_judge_train_and_compare(judged_program, page):
    program = judged_program
    judge_all(program, page)

    training = TrainingPage(page)
    expect(page.locator("#pairs-available")).to_contain_text("from people: 4 teach · 0 measure")
    training.start()
    expect(page.locator("#start-refusal")).to_contain_text("50")
    training.choose_preset("tiny")
    training.fill(min_pairs=3, ppo_steps=60)
    training.start()
    training.expect_progress(within_s=ROUND_S)
    expect(training.status).to_have_text("Running")
    page.reload()
    training.open()
    expect(training.status).to_have_text("Running")
    training.expect_status("Done", within_s=ROUND_S)
    expect(page.get_by_test_id("result")).to_contain_text("Policy version")
    expect(page.get_by_test_id("run-verdict")).to_contain_text("no held-out pair has measured the reward model")
    for part, plot in (("trust", "reward-loss"), ("policy", "policy-1"), ("policy", "policy-2")):
        training.show(part)
        expect(page.locator(f"#plot-{plot} .scatterlayer .js-line")).to_be_attached()
    training.show("samples")
    expect(page.get_by_test_id("samples").locator(".rl-sample")).to_have_count(2)
    (run,) = runs.all_runs(program.store)
    assert run.config["reward"]["min_pairs"] == 3
    assert run.config["model"] == str(program.model)

    training.choose_preset("tiny")
    training.fill(ppo_steps=2000)
    training.start()
    expect(training.cancel).to_be_visible()
    training.expect_status("Running", within_s=ROUND_S)
    training.expect_progress(within_s=ROUND_S)
    training.cancel.click()
    training.expect_status("Cancelled", within_s=ROUND_S)
    expect(training.resume).to_be_visible()

    page.get_by_role("tab", name="Demo").click()
    expect(page.locator("#demo-versions-chosen")).to_contain_text(run.result["policy_version"])
    page.locator("#demo-prompt textarea").fill("Say something.")
    page.locator("#demo-ask").click()
    answers = page.locator("#demo-current .rl-answer")
    expect(answers.locator(".rl-prose:not([aria-busy])")).to_have_count(2)
    expect(answers.locator("h3")).to_have_text([program.model.name, run.result["policy_version"]])
    for text in answers.locator(".rl-prose").all_inner_texts():
        assert text.strip() not in ("", "The answer is empty.")


def test_a_round_outlives_a_restart_of_the_program(judged_program, page):
    program = judged_program
    judge_all(program, page)
    training = TrainingPage(page)
    training.choose_preset("tiny")
    training.fill(ppo_steps=2000)
    training.start()
    training.expect_status("Running", within_s=ROUND_S)
    program.kill()
    program.start()
    page.goto(program.url)
    training.open()
    training.expect_status("Running", within_s=ROUND_S)
    eventually(
        lambda: any(m.name == "objective/scores" for m in runs.metrics(program.store, runs.active(program.store).id)),
        "the run goes on", within_s=ROUND_S,
    )  # fmt: skip
    training.show("policy")
    expect(page.locator("#plot-policy-1 .scatterlayer .js-line")).to_be_attached()
    training.cancel.click()
    training.expect_status("Cancelled", within_s=ROUND_S)
