"""The Compare page in a browser, two answers at a time: what was clicked is what is stored."""

import re

import pytest
from playwright.sync_api import expect

from storage.judging import judgments, queue
from storage.people import accounts, annotators
from storage.project import guidelines
from tests.browser.pages import ComparePage
from tests.browser.program import SECRET_MODELS

pytestmark = pytest.mark.slow


def asks_for(request, function):
    return "component_server" in request.url and function in (request.post_data or "")


@pytest.fixture
def compare(program, page):
    for i in range(5):
        program.put_in(f"First answer {i}.", f"Second answer {i}.", question=f"What is {program.judged()} and {i}?")
    return ComparePage(page, program.url)


def test_the_chosen_answer_is_stored_as_the_better_one(program, compare):
    for act, slot in (({"button": "choose-a"}, 0), ({"button": "choose-b"}, 1), ({"key": "1"}, 0), ({"key": "ArrowRight"}, 1)):
        shown, before = compare.ready(), program.judged()
        in_order = program.texts_in_order(shown)
        assert compare.answers() == [text for _, text in in_order]
        compare.judge(**act)
        saved = program.last_judgment()
        assert saved.presentation_id == program.presentation_of(shown)
        assert saved.tiers == ((in_order[slot][0],), (in_order[1 - slot][0],))
        assert program.judged() == before + 1
        assert compare.count() == program.judged_today()


TWO_STEPS, FOUR_STEPS = {"four_strengths": False}, {"four_strengths": True}


@pytest.mark.parametrize(
    ("settings", "key", "slot", "strength"),
    [
        (TWO_STEPS, "1", 0, "significantly"), (TWO_STEPS, "2", 0, "better"), (TWO_STEPS, "3", None, None), (TWO_STEPS, "4", 1, "better"),
        (TWO_STEPS, "5", 1, "significantly"), (TWO_STEPS, "a", 0, "better"),
        (FOUR_STEPS, "1", 0, "significantly"), (FOUR_STEPS, "4", 0, "negligibly"), (FOUR_STEPS, "a", 0, "better"),
        (FOUR_STEPS, "5", None, None), (FOUR_STEPS, "7", 1, "slightly"),
    ],
)  # fmt: skip
def test_one_key_chooses_the_answer_and_the_strength(program, project, compare, settings, key, slot, strength):
    project(**settings)
    compare.page.reload()
    order = [completion_id for completion_id, _ in program.texts_in_order(compare.ready())]
    compare.judge(key=key)
    saved = program.last_judgment()
    assert saved.strength == strength
    assert saved.tiers == (((order[slot],), (order[1 - slot],)) if slot is not None else (tuple(order),))


def test_one_click_chooses_the_answer_and_the_strength(program, project, compare):
    project(**FOUR_STEPS)
    compare.page.reload()
    compare.judge(button="choose-b-slightly")
    assert program.last_judgment().strength == "slightly"
    compare.judge(button="choose-a")
    assert program.last_judgment().strength == "better"


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"strength": False}, ["A is better", "Tie", "B is better"]),
        (TWO_STEPS, ["A is much better", "A is better", "Tie", "B is better", "B is much better"]),
        (
            FOUR_STEPS,
            ["Much better", "Better", "Slightly", "Negligibly", "Tie", "Negligibly", "Slightly", "Better", "Much better"],
        ),
    ],
)
def test_the_question_stands_above_a_scale_from_a_to_b(project, compare, settings, scale):
    project(**settings)
    compare.page.reload()
    compare.ready()
    question = compare.by("question")
    expect(question).to_have_text("Which answer is better?")
    buttons = compare.root.locator(".rl-strength-scale button > span")
    assert buttons.all_inner_texts() == scale
    places = [button.bounding_box() for button in buttons.all()]
    assert [place["x"] for place in places] == sorted(place["x"] for place in places)
    above = question.bounding_box()
    assert all(above["y"] + above["height"] <= place["y"] for place in places)


def test_an_answer_that_reached_its_limit_says_so_at_its_end(program, page):
    program.put_in("It rises because", "It rises because of yeast.", cut_off=["It rises because"])
    compare = ComparePage(page, program.url)
    compare.ready()
    cut = compare.answers().index("It rises because")
    for slot, name in enumerate(("answer-a", "answer-b")):
        mark = compare.by(name).get_by_test_id("cut-off")
        expect(mark).to_have_count(1 if slot == cut else 0)
        if slot == cut:
            expect(mark).to_have_text("Cut off here, at the length limit")
            assert mark.bounding_box()["y"] >= compare.by(name).locator(".rl-text").bounding_box()["y"]


def test_without_strength_two_is_the_second_answer(program, project, page):
    project(strength=False)
    program.put_in("One.", "Other.")
    program.put_in("One.", "Another.")
    compare = ComparePage(page, program.url)
    order = [completion_id for completion_id, _ in program.texts_in_order(compare.ready())]
    expect(compare.root.locator("[data-strength]")).to_have_count(0)
    compare.judge(key="2")
    saved = program.last_judgment()
    assert (saved.tiers, saved.strength) == (((order[1],), (order[0],)), None)


def test_tie_both_bad_and_skip(program, compare):
    both = {completion_id for completion_id, _ in program.texts_in_order(compare.ready())}
    compare.judge(key="t")
    tie = program.last_judgment()
    assert ([set(tier) for tier in tie.tiers], tie.all_bad) == ([both], False)

    compare.judge(button="choose-both-bad")
    bad = program.last_judgment()
    assert ([len(tier) for tier in bad.tiers], bad.all_bad) == ([2], True)

    before = compare.ready()
    compare.by("skip").click()
    compare.page.keyboard.press("4")
    compare.by("skip-text").fill("It asks two things")
    compare.by("skip-submit").click()
    expect(compare.root).not_to_have_attribute("data-presentation", before)
    skip = program.last_judgment()
    assert (skip.verdict, skip.tiers, skip.skip_reason) == ("skip", (), "It asks two things")


def test_undo_brings_the_same_comparison_back_in_the_same_order(program, compare):
    shown, answers, before = compare.ready(), compare.answers(), program.judged()
    compare.judge(button="choose-a")
    assert compare.judge(key="u") == shown
    assert compare.answers() == answers
    assert program.judged() == before
    assert compare.count() == program.judged_today()
    compare.judge(button="choose-b")
    assert program.last_judgment().presentation_id == program.presentation_of(shown)


def test_an_undo_marks_the_choice_and_says_what_was_undone(program, compare):
    shown = compare.ready()
    compare.judge(button="choose-b-significantly")
    # Also in a tab that has no draft of it.
    compare.page.evaluate("sessionStorage.clear()")
    compare.page.reload()
    assert compare.judge(key="u") == shown
    expect(compare.by("saved-note")).to_have_text("· Undone: B is much better")
    expect(compare.by("choose-b-significantly")).to_have_attribute("aria-pressed", "true")
    expect(compare.root.locator("[aria-pressed=true]")).to_have_count(1)
    expect(compare.by("live")).to_contain_text("Undone: B is much better")
    compare.judge(key="t")
    expect(compare.root.locator("[aria-pressed=true]")).to_have_count(0)


def test_progress_counts_the_day_and_what_waits(guarded, page):
    """By an annotator of its own: what waits is counted anew at every tenth judgment of one, and tests before this one judged too."""
    guarded.ask_for(daily_goal=500)
    accounts.create(guarded.store, "Counted", "correct horse", ["annotator"])
    page.goto(guarded.url)
    page.get_by_label("Name").fill("Counted")
    page.get_by_label("Password").fill("correct horse")
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{guarded.url}/")
    compare = ComparePage(page, guarded.url)
    compare.ready()
    count = compare.by("judged-count")
    expect(count).to_have_text("0 of 500 today · 4 waiting")
    compare.judge(key="1")
    expect(count).to_have_text("1 of 500 today · 3 waiting")
    compare.judge(key="u")
    expect(count).to_have_text("0 of 500 today · 4 waiting")


def test_a_reload_shows_the_same_comparison(compare):
    shown, answers = compare.ready(), compare.answers()
    compare.page.reload()
    assert compare.ready() == shown
    assert compare.answers() == answers


def test_a_lost_reply_is_sent_again_and_counts_once(program, compare):
    before = program.judged()
    compare.ready()
    lost = []

    def lose(route):
        if not lost and asks_for(route.request, "judge"):
            lost.append(route.fetch())
            return route.abort()
        return route.continue_()

    compare.page.route(re.compile("component_server"), lose)
    shown = compare.presentation()
    compare.by("choose-a").click()
    # Nobody sends it again: the page does by itself.
    expect(compare.root).not_to_have_attribute("data-presentation", shown)
    compare.ready()
    assert lost
    expect(compare.by("problem")).to_be_hidden()
    assert program.judged() == before + 1
    assert compare.count() == program.judged_today()


def test_a_stale_tab_says_what_the_store_has_and_leads_to_its_correction(program, compare):
    shown = compare.ready()
    other = ComparePage(compare.page.context.new_page(), program.url)
    assert other.ready() == shown
    order = [completion_id for completion_id, _ in program.texts_in_order(shown)]
    compare.judge(button="choose-a")
    before = program.judged()
    other.judge(button="choose-b")
    assert program.last_judgment().tiers == ((order[0],), (order[1],))
    expect(other.by("notice")).to_contain_text("You judged this one already: A is better")
    expect(other.by("saved-note")).to_have_text("")
    other.by("correct-it").click()
    form = other.page.get_by_test_id("correcting")
    expect(form.get_by_test_id("before")).to_contain_text("A is better")
    # What was chosen in the stale tab is marked, and counts once it is saved.
    expect(form.get_by_test_id("choose-b")).to_have_attribute("aria-pressed", "true")
    form.get_by_test_id("save").click()
    expect(form).to_have_count(0)
    assert program.last_judgment().tiers == ((order[1],), (order[0],))
    assert program.judged() == before


def test_on_a_phone_answers_are_stacked_and_every_button_is_in_reach(program, compare):
    page = compare.page
    page.set_viewport_size({"width": 390, "height": 844})
    program.clear_queue()
    program.put_in("A long answer. " * 60, "averyveryverylongword" * 30)
    page.reload()
    compare.ready()
    a, b = (compare.by(slot).bounding_box() for slot in ("answer-a", "answer-b"))
    assert a["x"] == b["x"]
    assert b["y"] >= a["y"] + a["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in compare.root.locator(".rl-actions button").all():
        box = button.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        # Without scrolling: the bar sticks to the bottom.
        assert box["y"] + box["height"] <= 844
        assert box["height"] >= 40
        # Its text fits into it.
        assert button.evaluate("button => button.scrollWidth <= button.clientWidth + 1")
    compare.by("skip").click()
    for button in compare.by("skip-chooser").get_by_role("button").all():
        box = button.bounding_box()
        assert box is None or (box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] + box["height"] <= 844)


def test_a_conversation_names_its_speakers_and_a_hidden_system_prompt_is_not_sent(program, project, page):
    turns = (("system", "Be a curt baker."), ("user", "Flat bread."), ("assistant", "Warm it."))
    before = [{"role": role, "content": content} for role, content in turns]
    program.put_in("So.", "Thus.", question="And then?", before=before)
    compare = ComparePage(page, program.url)
    compare.ready()
    assert compare.root.locator(".rl-role").all_inner_texts() == ["Instructions", "Person", "Assistant", "Person"]
    project(show_system=False)
    page.reload()
    compare.ready()
    assert compare.root.locator(".rl-role").all_inner_texts() == ["Person", "Assistant", "Person"]
    assert "curt baker" not in page.content()


# ---- guidelines


def test_guidelines_stay_open_or_closed_and_a_new_version_is_marked(program, compare):
    guidelines.publish(program.store, "Prefer what is **true**.", None)
    compare.page.reload()
    compare.ready()
    panel = compare.by("guidelines")
    expect(panel.locator("strong")).to_have_text("true")
    expect(compare.by("guidelines-new")).to_be_hidden()
    compare.press("g")
    expect(panel).to_be_hidden()
    compare.page.reload()
    compare.ready()
    expect(panel).to_be_hidden()
    expect(compare.by("guidelines-new")).to_be_hidden()

    guidelines.publish(program.store, "Prefer what is *kind*.", None)
    compare.judge(key="1")
    expect(compare.by("guidelines-new")).to_be_visible()
    expect(panel).to_be_hidden()
    compare.by("guidelines-button").click()
    expect(panel.locator("em")).to_have_text("kind")
    expect(compare.by("guidelines-new")).to_be_hidden()
    compare.judge(key="1")
    guidelines.publish(program.store, "Prefer what is short.", None)
    compare.judge(key="1")
    expect(compare.by("guidelines-updated")).to_be_visible()
    expect(panel).to_contain_text("short")
    compare.judge(key="1")
    expect(compare.by("guidelines-updated")).to_be_hidden()


# ---- time and leases


def test_active_and_idle_time_are_measured_separately(program, page):
    for i in range(2):
        program.put_in(f"One {i}.", f"Other {i}.")
    page.clock.install()
    compare = ComparePage(page, program.url)
    page.clock.run_for(1000)
    compare.ready()
    page.mouse.move(10, 10)
    page.clock.run_for(10_000)
    page.mouse.move(20, 20)
    # Half a minute of this counts as reading, the rest as absence.
    page.clock.run_for(100_000)
    page.mouse.move(30, 30)
    page.clock.run_for(5_000)
    compare.by("choose-a").click()
    page.clock.run_for(1000)
    expect(compare.root).to_have_attribute("data-state", re.compile("settling|ready"))
    row = program.store.row("SELECT active_ms, idle_ms, client_ms FROM judgments ORDER BY id DESC LIMIT 1")
    assert row["client_ms"] == row["active_ms"] + row["idle_ms"]
    assert row["idle_ms"] == pytest.approx(70_000, abs=2000)
    assert row["active_ms"] == pytest.approx(45_000, abs=4000)


def lapse(program):
    with program.store.atomic() as connection:
        connection.conn.execute("UPDATE leases SET expires_at = '2000-01-01T00:00:00.000+00:00' WHERE ended_at IS NULL")


HIDE = """hidden => {
  Object.defineProperty(document, "visibilityState", { configurable: true, get: () => hidden ? "hidden" : "visible" });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_the_lease_is_renewed_while_the_annotator_is_active(program, page):
    program.put_in("One.", "Other.")
    page.clock.install()
    compare = ComparePage(page, program.url)
    page.clock.run_for(1000)
    shown = compare.ready()
    page.clock.run_for(45_000)
    page.mouse.move(10, 10)
    with page.expect_request(lambda request: asks_for(request, "renew")):
        page.clock.run_for(25_000)
    # Without input the lease is not renewed.
    renewed = []
    page.on("request", lambda request: renewed.append(request) if asks_for(request, "renew") else None)
    page.clock.run_for(60_000)
    renewed.clear()
    page.clock.run_for(300_000)
    assert renewed == []
    assert compare.presentation() == shown


def test_after_the_lease_the_next_comparison_is_shown_and_the_draft_is_kept(program, project, page):
    project(rationale="optional")
    program.put_in("One.", "Other.")
    program.put_in("Third.", "Fourth.")
    page.clock.install()
    compare = ComparePage(page, program.url)
    page.clock.run_for(1000)
    shown = compare.ready()
    compare.press("r")
    compare.by("rationale").fill("Half a thought")
    page.evaluate(HIDE, True)
    page.clock.run_for(120_000)
    lapse(program)
    somebody = annotators.ensure(program.store, "somebody else")
    while found := queue.next_presentation(program.store, somebody.id):
        judgments.save(program.store, found[1].id, somebody.id, verdict="rank", tiers=(found[1].order,))
    program.put_in("Fifth.", "Sixth.")
    page.evaluate(HIDE, False)
    expect(compare.root).not_to_have_attribute("data-presentation", shown)
    page.clock.run_for(1000)
    expect(compare.by("notice")).to_contain_text("somebody else")
    assert sorted(compare.answers()) == ["Fifth.", "Sixth."]
    assert "Half a thought" in page.evaluate(f"sessionStorage.getItem('rankloop.draft.compare.{shown}')")
    expect(compare.by("rationale")).to_have_count(0)


# ---- who may


def test_signing_out_keeps_the_draft(guarded, page):
    program, compare_url = guarded, guarded.url
    program.clear_queue()
    program.ask_for(rationale="required", rationale_min_chars=5)
    program.put_in("One.", "Other.")
    account = accounts.create(program.store, "Bo", "correct horse", ["annotator", "lead"])

    def sign_in():
        page.get_by_label("Name").fill("Bo")
        page.get_by_label("Password").fill("correct horse")
        page.get_by_role("button", name="Sign in").click()

    page.goto(compare_url)
    sign_in()
    expect(page).to_have_url(f"{compare_url}/")
    compare = ComparePage(page, compare_url)
    compare.ready()
    compare.press("b")
    compare.by("rationale").fill("Much better")
    page.context.clear_cookies()
    # The page is left at once: whatever it asks from then on gets no answer.
    page.route("**/*", lambda route: route.abort() if route.request.method == "HEAD" else route.continue_())
    compare.press("Control+Enter")
    expect(page).to_have_url(f"{compare_url}/sign-in")
    assert annotators.get(program.store, account.annotator.id).judged == 0
    sign_in()
    compare = ComparePage(page, compare_url)
    compare.ready()
    expect(compare.by("rationale")).to_have_value("Much better")
    expect(compare.by("choose-b")).to_have_attribute("aria-pressed", "true")
    compare.press("Control+Enter")
    expect(compare.by("empty-state")).to_be_visible()
    assert annotators.get(program.store, account.annotator.id).judged == 1
    assert program.last_judgment().rationale == "Much better"


def test_names_of_models_in_the_tests_exist(program):
    """The blindness test searches for these names, so they must exist."""
    assert {c.policy_version_id for c in program.put_in("a", "b").completions} == {
        program.store.value("SELECT id FROM policy_versions WHERE name = ?", [name]) for name in SECRET_MODELS
    }
