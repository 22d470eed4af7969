"""Ratings, a reason, a better answer and flags: shown only if the project asks for them."""

import pytest
from playwright.sync_api import expect

from storage.core.records import Flag, IdealAnswer
from storage.judging.details import of_judgments
from tests.browser.pages import ComparePage

pytestmark = pytest.mark.slow

EVERYTHING = {"aspects": ("Helpful", "Honest"), "rationale": "required", "rationale_min_chars": 12, "ideal_answers": True}


@pytest.fixture
def opened(program, project, page):
    """Opens the page over a project with these settings, with two comparisons waiting."""

    def made(answers=2, **settings):
        project(**settings)
        for i in range(2):
            program.put_in(*[f"Answer {j} of {i}." for j in range(answers)])
        compare = ComparePage(page, program.url)
        compare.ready()
        return compare

    return made


def saved_details(program):
    saved = program.last_judgment()
    return of_judgments(program.store, [saved.id])[saved.id]


def test_inputs_that_the_project_does_not_ask_for_are_hidden(opened):
    compare = opened(strength=False, flags=False)
    for name in ("details", "save", "flag-button", "missing", "notice", "problem", "ranking"):
        expect(compare.by(name)).to_be_hidden()
    expect(compare.root.locator(".rl-actions button")).to_have_count(6)


def test_a_missing_input_gets_the_focus_and_nothing_is_sent(program, opened):
    compare = opened(**EVERYTHING)
    shown, judged = compare.presentation(), program.judged()
    a, b = (completion_id for completion_id, _ in program.texts_in_order(shown))
    compare.press("b")
    expect(compare.by("rate-0-0-1")).to_be_focused()
    expect(compare.by("choose-b")).to_have_attribute("aria-pressed", "true")
    # Digits rate and go on: A helpful, A honest, B helpful, B honest, and then the reason.
    compare.press("4", "3", "5", "2")
    expect(compare.by("rationale")).to_be_focused()
    compare.page.keyboard.type("Too short")
    expect(compare.by("rationale-count")).to_have_text("9 of 12 characters")
    compare.press("Control+Enter")
    expect(compare.by("missing")).to_have_text("Still missing: a reason, 3 more characters.")
    expect(compare.by("rationale")).to_be_focused()
    assert program.judged() == judged
    compare.page.keyboard.type(" no more")
    compare.press("Control+Enter")
    expect(compare.root).not_to_have_attribute("data-presentation", shown)
    kept = saved_details(program)
    assert kept.aspects == {a: {"Helpful": 4, "Honest": 3}, b: {"Helpful": 5, "Honest": 2}}
    assert (kept.rationale, kept.strength, kept.ideal, kept.flags) == ("Too short no more", "better", None, ())
    assert kept.timing.client_ms > 0
    compare.ready()
    assert compare.by("rationale").input_value() == ""


def test_enter_saves_what_the_save_button_says(program, opened):
    compare = opened(aspects=("Helpful",))
    shown, judged = compare.presentation(), program.judged()
    expect(compare.by("save").locator("kbd")).to_have_text("Enter")
    compare.press("b", "Enter")
    expect(compare.by("missing")).to_contain_text("Still missing: Helpful")
    compare.press("4", "2")
    # The focus is still on a rating, where Enter has no meaning of its own.
    compare.press("Enter")
    expect(compare.root).not_to_have_attribute("data-presentation", shown)
    assert program.judged() == judged + 1
    compare.ready()
    # On a button Enter is that button's.
    compare.by("choose-a").focus()
    compare.press("Enter")
    expect(compare.by("choose-a")).to_have_attribute("aria-pressed", "true")
    assert program.judged() == judged + 1


def test_half_a_surrogate_pair_is_refused_and_the_draft_stays(program, opened):
    """A form can hold half a surrogate pair, UTF-8 cannot: it is refused before any handler, and the page shows the message."""
    compare = opened(rationale="required", rationale_min_chars=5)
    judged = program.judged()
    half = "box => { box.value = 'It is clear \\ud83d'; box.dispatchEvent(new Event('input', {bubbles: true})); }"
    compare.by("rationale").evaluate(half)
    compare.press("1")
    expect(compare.by("problem")).to_contain_text("half a surrogate pair, which cannot be stored")
    assert program.judged() == judged
    compare.by("rationale").fill("It is clear")
    compare.judge(button="choose-a")
    assert saved_details(program).rationale == "It is clear"


def test_a_choice_submits_a_complete_judgment(program, opened):
    compare = opened(rationale="required", rationale_min_chars=5)
    compare.press("r")
    compare.page.keyboard.type("Good one")
    compare.press("Escape")
    compare.judge(key="1")
    assert (saved_details(program).rationale, saved_details(program).strength) == ("Good one", "significantly")


def test_an_ideal_answer_starts_from_the_chosen_answer(program, opened):
    compare = opened(ideal_answers=True)
    (first, first_text), (second, second_text) = program.texts_in_order(compare.presentation())
    compare.press("e")
    expect(compare.by("ideal")).to_have_value(first_text)
    compare.by("ideal-from-1").check(force=True)
    expect(compare.by("ideal")).to_have_value(second_text)
    compare.by("ideal").fill("Mine alone.")
    # Text that was edited is not replaced by another answer.
    compare.by("ideal-from-0").check(force=True)
    expect(compare.by("ideal")).to_have_value("Mine alone.")
    compare.by("ideal-from-1").check(force=True)
    compare.judge(button="choose-a")
    assert saved_details(program).ideal == IdealAnswer("Mine alone.", second)
    assert program.store.value("SELECT edit_distance FROM ideal_answers ORDER BY judgment_id DESC LIMIT 1") > 3
    # An answer that was not edited is not saved as an ideal answer.
    compare.press("e", "Escape")
    compare.by("choose-a").click()
    expect(compare.by("empty-state")).to_be_visible()
    assert saved_details(program).ideal is None
    assert first != second


def test_flags_on_the_prompt_and_on_an_answer(program, opened):
    compare = opened()
    a, _ = (completion_id for completion_id, _ in program.texts_in_order(compare.presentation()))
    compare.press("f")
    expect(compare.by("flag-unsafe")).to_be_focused()
    unchecked = compare.by("flag-broken_prompt").screenshot()
    compare.by("flag-broken_prompt").check()
    assert compare.by("flag-broken_prompt").screenshot() != unchecked, "a checked box looks like an unchecked one"
    compare.by("flag-on-0").check(force=True)
    expect(compare.by("flag-broken_prompt")).to_have_count(0)
    compare.by("flag-personal_data").check()
    compare.by("flag-note").fill("A telephone number")
    compare.by("flag-close").click()
    expect(compare.by("flags-0")).to_have_text("Personal data")
    expect(compare.by("flags-prompt")).to_have_text("Broken prompt")
    compare.press("s", "3")
    expect(compare.root).not_to_have_attribute("data-state", "saving")
    compare.ready()
    assert set(saved_details(program).flags) == {Flag("broken_prompt"), Flag("personal_data", "A telephone number", a)}
    expect(compare.by("flags-0")).to_have_count(0)


def test_a_draft_survives_a_reload(program, opened):
    compare = opened(**EVERYTHING)
    compare.press("a", "2")
    compare.by("rationale").fill("Half a thought")
    compare.press("Escape", "e")
    compare.by("ideal").fill("Half an answer")
    compare.press("Escape", "f")
    compare.by("flag-unsafe").check()
    compare.page.reload()
    compare.ready()
    expect(compare.by("rationale")).to_have_value("Half a thought")
    expect(compare.by("ideal")).to_have_value("Half an answer")
    expect(compare.by("rate-0-0-2")).to_be_checked()
    expect(compare.by("choose-a")).to_have_attribute("aria-pressed", "true")
    expect(compare.by("flags-prompt")).to_have_text("Unsafe")


def test_only_what_is_ranked_must_be_rated(program, opened):
    compare = opened(answers=3, aspects=("Clear",))
    shown = compare.presentation()
    compare.press("2", "3")
    compare.by("save").click()
    expect(compare.by("rate-1-0-1")).to_be_focused()
    compare.press("5", "4")
    compare.by("save").click()
    expect(compare.root).not_to_have_attribute("data-presentation", shown)
    order = [completion_id for completion_id, _ in program.texts_in_order(shown)]
    assert saved_details(program).aspects == {order[1]: {"Clear": 5}, order[2]: {"Clear": 4}}


def test_the_key_map_lists_the_keys_of_the_inputs_on_the_page(opened):
    compare = opened(flags=False)
    compare.press("?")
    expect(compare.by("help")).to_be_visible()
    plain = compare.by("help").inner_text()
    assert "A is much better" in plain
    assert "Flag" not in plain and "Write a reason" not in plain
    # Keys of the page do nothing while the key map is open.
    shown = compare.presentation()
    compare.press("1", "?")
    expect(compare.by("help")).to_be_hidden()
    assert compare.ready() == shown
