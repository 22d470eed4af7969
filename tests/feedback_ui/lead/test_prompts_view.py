"""Prompts counted and listed."""

import re

from lead_page import EN

from feedback_ui.lead import prompts_view
from storage.content.prompt_list import ListedPrompt
from storage.content.prompts import Starters
from storage.core.records import Prompt


def numbers(html):
    return [re.findall(r">([\d,]+)<", row) for row in html.split("<tr>")[2:]]


def test_prompts_are_counted_by_kind_and_split_with_a_sum_if_there_are_two_kinds():
    story = [("story", "train", 1_200), ("story", "heldout", 3)]
    assert numbers(prompts_view.prompt_counts(EN, story)) == [["1,200", "3", "1,203"]]
    both = prompts_view.prompt_counts(EN, [*story, ("one_fact", "heldout", 7)])
    assert numbers(both) == [["0", "7", "7"], ["1,200", "3", "1,203"], ["1,200", "10", "1,210"]]
    assert "one fact" in both


def test_votes_on_starter_prompts_that_are_not_in_use_are_counted():
    votes = "3 votes on starter prompts are left out"
    assert votes in prompts_view.starters_now(EN, Starters(240, False, 3))
    assert votes not in prompts_view.starters_now(EN, Starters(240, True, 3)), "they count then"
    assert "left out" not in prompts_view.starters_now(EN, Starters(240, False, 0))
    assert "There are no starter prompts" in prompts_view.starters_now(EN, Starters(0, False, 0))


def test_each_prompt_has_the_button_that_its_state_needs_and_the_rest_is_counted():
    states = ("in use", "retired", "unused_starter")
    listed = [
        ListedPrompt(Prompt(number, ({"role": "user", "content": "Q?"},), "chat", "train"), "file", state.replace(" ", "_"), 0, False)
        for number, state in enumerate(states, start=1)
    ]
    html = prompts_view.prompts_listed(EN, listed, 1_004, acts=True)
    assert [(act, row) for act, row in re.findall(r'data-act="(\w+)" data-row="(\d)"', html) if act != "open"] == [
        ("retire", "1"),
        ("restore", "2"),
        ("retire", "3"),
    ]
    assert "1,001 more prompts are not shown" in html
    all_of_them = prompts_view.prompts_listed(EN, listed, 3, acts=False)
    assert "not shown" not in all_of_them and set(re.findall(r'data-act="(\w+)"', all_of_them)) == {"open"}, "a reader may only open them"


def test_an_open_prompt_shows_all_its_turns_and_its_lineage():
    turns = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "A *bell*?"})
    found = ListedPrompt(Prompt(12, turns, "own_bikes", "heldout"), "bikes.csv", "retired", 3, False, replaces=7, replaced_by=40)
    html = prompts_view.prompt_opened(EN, found, 1)
    assert "Prompt 12 · own bikes" in html and "<em>bell</em>" in html and "Yes?" in html
    assert "held out · retired · bikes.csv · 3 comparisons · 1 judgment · replaces prompt 7 · replaced by prompt 40" in html
    assert "replaced by prompt 40" in prompts_view.prompts_listed(EN, [found], 1, acts=False)
