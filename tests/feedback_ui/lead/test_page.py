"""The Lead page: who may do what, and how it opens."""

import inspect

import gradio as gr
import pytest
from lead_page import HERE, asking, pressed, sign_in

from feedback_ui.server.auth import AccessRefused
from storage.content import batches, policies
from storage.core.records import Sampling

READING = {
    "enter", "open", "load", "include", "open_item", "view", "follow", "show_newer", "show_older", "search", "show_preview",
    "choose_prompts", "choose_format", "foresee", "refresh", "press", "close", "filter", "from_person",
}  # fmt: skip
"""Handlers that only show something; a researcher may have them too. All others change something, or begin to."""


def called(handler, request):
    """Calls a handler with empty fields."""
    given = {}
    for name, parameter in inspect.signature(handler).parameters.items():
        kind = str(parameter.annotation)
        given[name] = request if "Request" in kind else pressed("x", 1) if "EventData" in kind else {} if name == "values" else None
    return handler(**given)


def handlers(app):
    return {f"{type(fn.fn.__self__).__name__}.{fn.fn.__name__}": fn.fn for fn in app.fns.values() if hasattr(fn.fn, "__self__")}


def test_every_handler_checks_access(store, app, auth):
    sign_in(store, auth, "Lea", "lead")
    annotator = sign_in(store, auth, "Ann", "annotator")
    researcher = sign_in(store, auth, "Res", "researcher")
    every = handlers(app)
    assert len(every) >= 30
    for name, handler in every.items():
        for request in (annotator, asking()):
            with pytest.raises(AccessRefused):
                called(handler, request)
        if name.split(".")[1] not in READING:
            with pytest.raises(AccessRefused, match="role"):
                called(handler, researcher)


def test_readers_see_no_buttons(store, lead, part, auth, waiting):
    sign_in(store, auth, "Lea", "lead")
    request = sign_in(store, auth, "Res", "researcher")
    batches.request(store, [policies.all_versions(store)[0].id], completions=2, sampling=Sampling(), count=1, by=None)
    shown = lead.enter("comparisons", None, request)
    assert "Only leads can make changes" in shown[lead.reading]
    assert shown[part.batches.asking].visible is False and shown[part.gold.setting].visible is False
    assert "rl-table" in shown[part.batches.list] and "data-act" not in shown[part.batches.list]
    assert "Judgments for each comparison" in part.settings.open(request)[part.settings.readers]


def test_opening_the_page_updates_the_open_section(lead, part):
    assert part.quality.overview in lead.enter("", None, HERE)
    assert part.audit.entries in lead.enter("audit", None, HERE) and part.quality.overview not in lead.enter("audit", None, HERE)
    assert part.quality.overview in lead.enter("no such section", None, HERE)


def test_a_link_opens_its_comparison_above_the_sections_once(lead, waiting, store, auth):
    opened = lead.enter("audit", waiting[0].id, HERE)
    assert "Why does bread rise?" in opened[lead.linked_item] and 'data-testid="item"' in opened[lead.linked_item]
    assert lead.enter("audit", None, HERE)[lead.linked_item] == ""
    assert "no comparison 99" in lead.enter("", 99, HERE)[lead.linked_item]
    sign_in(store, auth, "Lea", "lead")
    researcher = sign_in(store, auth, "Res", "researcher")
    read_only = lead.enter("", waiting[0].id, researcher)[lead.linked_item]
    assert "Why does bread rise?" in read_only and "data-act" not in read_only


def test_every_section_opens_in_korean_and_says_what_to_do_next(lead, part, store):
    policies.ensure_base(store, "m")
    for name, section in vars(part).items():
        shown = section.open(asking("ko-KR"))
        text = "".join(value for value in shown.values() if isinstance(value, str)).strip()
        assert not text or any("가" <= letter <= "힣" for letter in text), name
    assert "아직" in part.quality.open(asking("ko"))[part.quality.overview]


def test_a_forged_click_is_refused(part):
    for event in (gr.EventData(None, None), gr.EventData(None, {"act": "lift", "row": "1; DROP"}), gr.EventData(None, {"row": 1})):
        assert "reload the page" in part.exclusions.choose(event, HERE)[part.exclusions.message]
        assert "reload the page" in part.quality.open_item(event, HERE)


def test_a_draft_survives_a_change_of_section(part, people):
    section = part.guidelines
    assert section.load("", HERE)[section.loaded] == ""
    section.publish("One", HERE)
    assert section.load("", HERE)[section.loaded] == "One"
    section.publish("Two", HERE)
    assert section.load("One", HERE)[section.loaded] == "Two", "an older version is no draft"
    assert section.load("Three, half wri", HERE)[section.loaded] == "Three, half wri"


def test_from_a_person_the_page_leads_to_their_acts_or_to_an_exclusion(store, lead, part, people, auth, waiting, judge):
    judge(people.ann)
    shown = lead.from_person(pressed("judgments", people.ann.id), HERE)
    assert shown[lead.tabs].selected == "audit" and shown[part.audit.who].value == people.ann.id
    excluding = lead.from_person(pressed("exclude", people.ann.id), HERE)
    assert excluding[lead.tabs].selected == "exclusions" and excluding[part.exclusions.annotator].value == people.ann.id
    sign_in(store, auth, "Lea", "lead")
    researcher = sign_in(store, auth, "Res", "researcher")
    assert lead.from_person(pressed("judgments", people.ann.id), researcher)[part.audit.who].value == people.ann.id
    with pytest.raises(AccessRefused, match="role"):
        lead.from_person(pressed("exclude", people.ann.id), researcher)
