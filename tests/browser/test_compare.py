"""The Compare page in a browser: what was clicked is what is stored."""

import pytest
from playwright.sync_api import expect

from tests.browser.pages import ComparePage
from tests.browser.program import SECRET_MODELS


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
        assert saved.presentation_id == shown
        assert saved.tiers == ((in_order[slot][0],), (in_order[1 - slot][0],))
        assert compare.count() == program.judged() == before + 1


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
    expect(compare.root).not_to_have_attribute("data-presentation", str(before))
    skip = program.last_judgment()
    assert (skip.verdict, skip.tiers, skip.skip_reason) == ("skip", (), "It asks two things")


def test_undo_brings_the_same_comparison_back_in_the_same_order(program, compare):
    shown, answers, before = compare.ready(), compare.answers(), program.judged()
    compare.judge(button="choose-a")
    assert compare.judge(key="u") == shown
    assert compare.answers() == answers
    assert compare.count() == program.judged() == before
    compare.judge(button="choose-b")
    assert program.last_judgment().presentation_id == shown


def test_a_reload_shows_the_same_comparison(compare):
    shown, answers = compare.ready(), compare.answers()
    compare.page.reload()
    assert compare.ready() == shown
    assert compare.answers() == answers


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
    for name in ("choose-a", "choose-b", "choose-tie", "choose-both-bad", "skip", "undo"):
        box = compare.by(name).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        # Without scrolling: the bar sticks to the bottom.
        assert box["y"] + box["height"] <= 844
        assert box["height"] >= 40
    compare.by("skip").click()
    for button in compare.by("skip-chooser").get_by_role("button").all():
        box = button.bounding_box()
        assert box is None or (box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] + box["height"] <= 844)


def test_names_of_models_are_real(program):
    """The blindness test looks for these: they must be there to be found."""
    assert {c.policy_version_id for c in program.put_in("a", "b").completions} == {
        program.store.value("SELECT id FROM policy_versions WHERE name = ?", [name]) for name in SECRET_MODELS
    }
