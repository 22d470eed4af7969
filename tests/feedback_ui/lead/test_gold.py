"""Gold answers are typed, shown and measured."""

import pytest
from lead_page import EN, HERE, meet_gold, pressed

from feedback_ui.lead import lead_view
from storage.core.records import ProjectSettings
from storage.judging import gold
from storage.people import audit
from storage.project import settings


@pytest.mark.parametrize(
    "said, tiers",
    [("B > A = C", ((1,), (0, 2))), (" c>b >a ", ((2,), (1,), (0,))), ("a=b=c", ((0, 1, 2),))],
)
def test_a_known_order_is_read(of_three, said, tiers):
    ids = [c.id for c in of_three.completions]
    found = lead_view.tiers_of(EN, said, of_three)
    assert found == tuple(tuple(ids[place] for place in tier) for tier in tiers)
    assert lead_view.tiers_of(EN, lead_view.letters(of_three, found), of_three) == tuple(tuple(sorted(tier)) for tier in found)


@pytest.mark.parametrize(
    "said, problem",
    [
        ("B > A", "C is missing"), ("A > B > C > A", "A is named twice"), ("A > D > B", "D is not an answer here"),
        ("A B C", "A B C is not an answer"), ("", "∅ is not an answer"), ("A > > B = C", "∅ is not an answer"),
        ("1 > 2 > 3", "1 is not an answer"),
    ],
)  # fmt: skip
def test_what_is_no_order_is_refused_with_its_cause(of_three, said, problem):
    with pytest.raises(lead_view.BadOrder, match=problem):
        lead_view.tiers_of(EN, said, of_three)


def test_a_gold_answer_is_set_shown_and_measured(store, part, of_three, people, judge):
    section = part.gold
    assert "There is no comparison 99" in section.show(99, HERE)[section.message]
    assert "Type the number" in section.show(None, HERE)[section.message]
    shown = section.show(of_three.id, HERE)
    for said in ("Three?", "answer &lt;i&gt;2&lt;/i&gt;", "m</span>"):
        assert said in shown[section.opened]
    assert "C is missing" in section.set_answer(of_three.id, "B > A", "", HERE)[section.message]
    shown = section.set_answer(of_three.id, "B > A = C", "B is <right>", HERE)
    ids = [c.id for c in of_three.completions]
    assert gold.answer(store, of_three.id) == ((ids[1],), (ids[0], ids[2]))
    assert "not judged yet" in shown[section.list] and "B &gt; A = C" in shown[section.list]
    settings.change(store, ProjectSettings(gold_share=0.5), None)
    for annotator, order in ((people.ann, (1, 0, 2)), (people.tom, (0, 1, 2))):
        meet_gold(store, annotator, of_three, order)
    assert "1 of 2" in section.open(HERE)[section.list]
    assert section.choose(pressed("open", of_three.id), HERE)[section.order] == "B > A = C"
    assert "B is <right>" in {entry.detail for entry in audit.entries(store)}
