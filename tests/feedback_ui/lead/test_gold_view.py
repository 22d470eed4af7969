"""Typed orders of a gold comparison's answers, and the order of the list."""

import re
from dataclasses import replace

import pytest
from lead_page import EN

from feedback_ui.lead import gold_view, lead_view


@pytest.mark.parametrize(
    "typed, tiers",
    [("B > A = C", ((1,), (0, 2))), (" c>b >a ", ((2,), (1,), (0,))), ("a=b=c", ((0, 1, 2),))],
)
def test_a_gold_ranking_is_parsed(of_three, typed, tiers):
    ids = [c.id for c in of_three.completions]
    found = gold_view.tiers_of(EN, typed, of_three)
    assert found == tuple(tuple(ids[place] for place in tier) for tier in tiers)
    assert gold_view.tiers_of(EN, lead_view.letters(of_three, found), of_three) == tuple(tuple(sorted(tier)) for tier in found)


@pytest.mark.parametrize(
    "typed, problem",
    [
        ("B > A", "C is missing"), ("A > B > C > A", "A is named twice"), ("A > D > B", "D is not an answer here"),
        ("A B C", "A B C is not an answer"), ("", "∅ is not an answer"), ("A > > B = C", "∅ is not an answer"),
        ("1 > 2 > 3", "1 is not an answer"),
    ],
)  # fmt: skip
def test_an_invalid_ranking_is_refused_with_its_cause(of_three, typed, problem):
    with pytest.raises(gold_view.BadOrder, match=problem):
        gold_view.tiers_of(EN, typed, of_three)


def test_the_gold_comparison_that_most_judged_wrongly_comes_first(of_three):
    ids = [c.id for c in of_three.completions]
    every = [replace(of_three, id=number) for number in (1, 2, 3)]
    html = gold_view.gold_list(EN, every, dict.fromkeys((1, 2, 3), (tuple(ids),)), {1: (4, 3), 3: (2, 1)}, acts=True)
    # 1 of 2, then 3 of 4, and at the end the one that nobody judged.
    assert re.findall(r'data-row="(\d)"', html) == ["3", "1", "2"]
    assert html.index("1 of 2") < html.index("3 of 4") < html.index("not judged yet")


def test_each_answer_shows_its_place(of_three):
    a, b, c = (completion.id for completion in of_three.completions)
    html = gold_view.ordering(EN, of_three, {}, ((b,), (a, c)))
    pressed = re.findall(r'aria-pressed="true" aria-label="Answer (\w): place (\d)"', html)
    assert pressed == [("A", "2"), ("B", "1"), ("C", "2")] and html.count("data-place") == 9
    assert "B &gt; A = C" in html and f'data-order="{of_three.id}"' in html
    assert 'aria-pressed="true"' not in gold_view.ordering(EN, of_three, {}, None)
