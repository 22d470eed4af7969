"""Gold answers are typed, shown and measured."""

import gradio as gr
import pytest
from lead_page import HERE, meet_gold, pressed, sign_in

from feedback_ui.server.auth import AccessRefused
from storage.core.records import ProjectSettings
from storage.judging import gold
from storage.people import audit
from storage.project import settings


def put(comparison_id, order):
    """The answers of an open comparison, put into this order and saved."""
    return gr.EventData(None, {"act": "gold", "row": comparison_id, "order": order})


def test_a_gold_answer_is_set_shown_and_measured(store, part, of_three, people, judge):
    section = part.gold
    assert "There is no comparison 99" in section.show(99, HERE)[section.message]
    assert "Type the number" in section.show(None, HERE)[section.message]
    shown = section.show(of_three.id, HERE)
    for text in ("Three?", "answer &lt;i&gt;2&lt;/i&gt;", "m</span>"):
        assert text in shown[section.opened]
    assert "C is missing" in section.set_answer("", put(of_three.id, "B > A"), HERE)[section.message]
    assert "ties all completions" in section.set_answer("", put(of_three.id, "A = B = C"), HERE)[section.message]
    shown = section.set_answer("B is <right>", put(of_three.id, "B > A = C"), HERE)
    ids = [c.id for c in of_three.completions]
    assert gold.answer(store, of_three.id) == ((ids[1],), (ids[0], ids[2]))
    assert "not judged yet" in shown[section.list] and "B &gt; A = C" in shown[section.list]
    settings.change(store, ProjectSettings(gold_share=0.5), None)
    for annotator, order in ((people.ann, (1, 0, 2)), (people.tom, (0, 1, 2))):
        meet_gold(store, annotator, of_three, order)
    assert "1 of 2" in section.open(HERE)[section.list]
    assert "B &gt; A = C</strong>" in section.choose(pressed("open", of_three.id), HERE)[section.opened]
    assert "B is <right>" in {entry.detail for entry in audit.entries(store)}


def test_the_open_comparison_becomes_gold_where_it_stands(store, part, lead, of_three, auth):
    quality = part.quality
    assert "data-order" in quality.open_item(pressed("open", of_three.id), HERE)
    shown = quality.order_item(put(of_three.id, "C > A > B"), HERE)
    assert "Comparison 1 is gold now: C &gt; A &gt; B" in shown and 'aria-label="Answer C: place 1"' in shown
    a, b, c = (completion.id for completion in of_three.completions)
    assert gold.answer(store, of_three.id) == ((c,), (a,), (b,))
    assert "ties all" in quality.order_item(put(of_three.id, "C = A = B"), HERE)
    assert "Markup" not in type(quality.order_item(pressed("exclude-one", 1), HERE)).__name__, "other buttons are not for this"
    assert lead.exclude_from(put(of_three.id, "C > A > B"), HERE) == quality.order_item(pressed("x", 1), HERE), "and the other way round"
    sign_in(store, auth, "Lea", "lead")
    researcher = sign_in(store, auth, "Res", "researcher")
    assert "data-order" not in quality.open_item(pressed("open", of_three.id), researcher)
    with pytest.raises(AccessRefused, match="role"):
        quality.order_item(put(of_three.id, "A > B > C"), researcher)
