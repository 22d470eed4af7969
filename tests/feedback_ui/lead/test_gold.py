"""Gold answers are typed, shown and measured."""

from lead_page import HERE, meet_gold, pressed

from storage.core.records import ProjectSettings
from storage.judging import gold
from storage.people import audit
from storage.project import settings


def test_a_gold_answer_is_set_shown_and_measured(store, part, of_three, people, judge):
    section = part.gold
    assert "There is no comparison 99" in section.show(99, HERE)[section.message]
    assert "Type the number" in section.show(None, HERE)[section.message]
    shown = section.show(of_three.id, HERE)
    for text in ("Three?", "answer &lt;i&gt;2&lt;/i&gt;", "m</span>"):
        assert text in shown[section.opened]
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
