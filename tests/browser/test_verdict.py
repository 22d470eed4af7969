"""The verdict on a run in real Chromium: its colour by what it says, and the question before a policy learns from a coin."""

import colorsys
import re
from itertools import pairwise

import numpy as np
import pytest
from playwright.sync_api import expect

from rlhf.runs.results import Estimate, RoundResult
from storage.content import comparisons, completions, policies, prompts
from storage.core.records import Sampling
from storage.judging import judgments, queue
from storage.people import annotators
from storage.project import runs
from tests.browser.pages import TrainingPage
from tests.browser.program import eventually
from tests.browser.test_appearance import THEMES, contrast, luminance

pytestmark = pytest.mark.slow

ROUND_S = 300.0

BETTER, EVEN, WORSE = Estimate(0.71, 0.62, 0.79, 60), Estimate(0.5, 0.4, 0.6, 60), Estimate(0.3, 0.2, 0.4, 60)
VERDICTS = {
    "better": (RoundResult(win_rate=BETTER), "Improved: 71% (62 to 79%)", "green"),
    "not-shown": (RoundResult(win_rate=EVEN), "No improvement shown: 50% (40 to 60%)", "amber"),
    "proxy": (RoundResult(win_rate_by_reward_model=BETTER), "but by its own yardstick: 71%", "amber"),
    "worse": (RoundResult(win_rate=WORSE), "Worse than before: 30% (20 to 40%)", "red"),
    "unknown": (RoundResult(kl=1.0), "Nothing has measured the policy", "grey"),
}
HUES = {"red": (335, 25), "amber": (25, 65), "green": (90, 170)}
"""From and to, in degrees."""


def colours(locator):
    """The computed colours of the text and of what is behind it, as fractions of red, green and blue."""
    found = locator.evaluate("e => ['color', 'backgroundColor'].map(name => getComputedStyle(e)[name].match(/[\\d.]+/g).map(Number))")
    return [np.array(colour[:3]) / 255 for colour in found]


def name_of(colour) -> str:
    hue, _, saturation = colorsys.rgb_to_hls(*colour)
    if saturation < 0.2:
        return "grey"
    degrees = 360 * hue
    return next(name for name, (low, high) in HUES.items() if (low <= degrees < high if low < high else degrees >= low or degrees < high))


@pytest.mark.parametrize("scheme", THEMES)
def test_the_colour_of_the_verdict_is_what_it_says(program, browser, scheme):
    known = {run.id for run in runs.all_runs(program.store)}
    for run_id, (result, *_) in VERDICTS.items():
        if run_id not in known:
            runs.create(program.store, run_id, config={}, seed=0, versions={})
            runs.finish(program.store, run_id, "done", result=result.to_json())
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    for run_id, (_, says, colour) in VERDICTS.items():
        page.goto(f"{program.url}/#training/{run_id}")
        verdict = page.get_by_test_id("run-verdict")
        expect(verdict).to_contain_text(says)
        # The page shows one run after the other in the same place: the colour follows within a frame or two.
        eventually(
            lambda verdict=verdict, colour=colour: name_of(colours(verdict)[0]) == colour, f"{run_id} is {colour} on a {scheme} page"
        )
        text, ground = colours(verdict)
        assert contrast(luminance(text), luminance(ground)) >= 4.5, (scheme, run_id)
    context.close()


def judged_by_the_visitor(program):
    """Three judged pairs that teach and three that measure: no interval over three pairs can leave out 50%."""
    store = program.store
    base = policies.ensure_base(store, str(program.model))
    for split in ("train", "heldout"):
        asked = [prompts.NewPrompt(({"role": "user", "content": f"{split} {i}?"},), split=split) for i in range(3)]
        prompts.add(store, asked, source="test")
    for prompt in prompts.of_split(store):
        ids = [
            completions.add(
                store, prompt_id=prompt.id, policy_version_id=base.id, text=f"{quality} {prompt.id}", sampling=Sampling(), seed=0,
                finish_reason="stop", latency_s=0.1,
            )
            for quality in ("Good", "Bad")
        ]  # fmt: skip
        comparisons.add(store, prompt.id, ids, purpose="collect")
    visitor = annotators.ensure(store, "local")
    while found := queue.next_presentation(store, visitor.id):
        judgments.save(store, found[1].id, visitor.id, verdict="rank", tiers=tuple((item,) for item in sorted(found[1].order)))


def policy_steps(program, run_id):
    return [metric.step for metric in runs.metrics(program.store, run_id) if metric.name == "objective/kl"]


def test_a_reward_model_at_chance_is_asked_about_before_the_policy_is_trained(new_program, page):
    program = new_program()
    judged_by_the_visitor(program)
    program.start()
    page.goto(program.url)
    training = TrainingPage(page)
    training.choose_preset("tiny")
    training.fill(min_pairs=3)
    training.start()
    question, go_on = page.get_by_test_id("run-question"), page.locator("#go-on-run")
    expect(question).to_contain_text(re.compile(r"Train the policy all the same\? .* of 3 held-out pairs"), timeout=1000 * ROUND_S)
    expect(training.status).to_have_text("Waits for your answer")
    expect(go_on).to_be_visible()
    expect(training.resume).to_be_hidden()
    (run,) = runs.all_runs(program.store)
    assert run.status == "cancelled" and policy_steps(program, run.id) == []
    # Not to answer is to stop: a reload and another page later it still waits, and nothing was trained.
    page.goto(f"{program.url}/#data")
    page.goto(f"{program.url}/#training/{run.id}")
    expect(question).to_be_visible()
    page.reload()
    expect(question).to_be_visible()
    assert runs.active(program.store) is None and policy_steps(program, run.id) == []
    go_on.click()
    expect(question).to_have_count(0)
    expect(go_on).to_be_hidden()
    training.expect_status("Done", within_s=ROUND_S)
    expect(page.get_by_test_id("run-verdict")).to_contain_text("the reward model cannot be told from a coin")
    steps = policy_steps(program, run.id)
    assert steps and all(later == earlier + 1 for earlier, later in pairwise(steps))


def test_a_round_that_is_to_stop_at_chance_stops_with_the_reason(new_program, page):
    program = new_program()
    judged_by_the_visitor(program)
    program.start()
    page.goto(program.url)
    training = TrainingPage(page)
    training.choose_preset("tiny")
    training.fill(min_pairs=3)
    page.locator("#options-round button").first.click()
    page.locator("#option-at-chance input").click()
    page.get_by_role("option", name="stop").click()
    training.start()
    expect(page.get_by_test_id("run-question")).to_be_visible(timeout=1000 * ROUND_S)
    (run,) = runs.all_runs(program.store)
    assert run.config["at_chance"] == "stop" and run.status == "cancelled" and policy_steps(program, run.id) == []
    assert "which a coin would do too" in run.error
