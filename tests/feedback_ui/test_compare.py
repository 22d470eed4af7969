"""What the Compare page's server functions do, over a real store."""

import json
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.helpers import special_args

from feedback_ui import compare
from storage import annotators, judgments, policies, presentations
from storage.database import StoreError


def act(view, choice, reason=None):
    return {"presentation_id": view["presentation_id"], "choice": choice, "reason": reason}


def saved(store):
    return [dict(row) for row in store.rows("SELECT * FROM judgments ORDER BY id")]


def quality_of(store, completion_id):
    return store.value("SELECT text FROM completions WHERE id = ?", [completion_id]).split()[0]


def test_the_view_is_blind(store, desk, local, waiting):
    view = desk.next_for(local)
    assert set(view) == {"state", "presentation_id", "kind", "turns", "answers", "count"}
    assert policies.by_name(store, "SecretModel").name not in json.dumps(view)


def test_answers_stand_in_the_order_of_the_presentation(store, desk, local, waiting):
    view = desk.next_for(local)
    order = presentations.get(store, view["presentation_id"]).order
    texts = {c.id: c.text for c in waiting[0].completions}
    assert view["answers"] == [f"<p>{texts[completion_id]}</p>" for completion_id in order]


def test_every_turn_is_shown_and_made_safe(desk, local, waiting):
    desk.judge(local, act(desk.next_for(local), "a"))
    view = desk.next_for(local)
    assert [turn["role"] for turn in view["turns"]] == ["Person", "Assistant", "Person"]
    assert view["turns"][2]["html"] == "<p>Two hours. &lt;b&gt;Why?&lt;/b&gt;</p>"
    assert view["kind"] == "Dialogue"


@pytest.mark.parametrize(("choice", "slot"), [("a", 0), ("b", 1)])
def test_the_chosen_slot_wins(store, desk, local, waiting, choice, slot):
    view = desk.next_for(local)
    order = presentations.get(store, view["presentation_id"]).order
    reply = desk.judge(local, act(view, choice))
    assert json.loads(saved(store)[0]["tiers"]) == [[order[slot]], [order[1 - slot]]]
    assert reply["next"]["presentation_id"] != view["presentation_id"]
    assert reply["next"]["count"] == "1 judged"
    assert "problem" not in reply


def test_what_was_read_as_better_is_what_is_stored(store, desk, local, waiting):
    for _ in waiting:
        view = desk.next_for(local)
        choice = "a" if "good" in view["answers"][0] else "b"
        desk.judge(local, act(view, choice))
    assert [quality_of(store, json.loads(row["tiers"])[0][0]) for row in saved(store)] == ["good", "good"]


@pytest.mark.parametrize(("choice", "all_bad"), [("tie", 0), ("both_bad", 1)])
def test_ties_share_a_tier(store, desk, local, waiting, choice, all_bad):
    desk.judge(local, act(desk.next_for(local), choice))
    (row,) = saved(store)
    assert [len(tier) for tier in json.loads(row["tiers"])] == [2]
    assert row["all_bad"] == all_bad


def test_a_skip_keeps_its_reason(store, desk, local, waiting):
    desk.judge(local, act(desk.next_for(local), "skip", "Broken prompt"))
    (row,) = saved(store)
    assert (row["verdict"], row["skip_reason"], row["tiers"]) == ("skip", "Broken prompt", "[]")


def test_sent_twice_it_counts_once(store, desk, local, waiting):
    view = desk.next_for(local)
    first = desk.judge(local, act(view, "a"))
    again = desk.judge(local, act(view, "b"))
    assert len(saved(store)) == 1
    assert again["next"] == first["next"]


def test_undo_brings_the_same_presentation_back(store, desk, local, waiting):
    view = desk.next_for(local)
    desk.judge(local, act(view, "a"))
    reply = desk.undo(local)
    assert reply["says"] == "Undone"
    assert reply["next"] == view
    assert judgments.count(store, local.id) == 0


def test_undo_with_nothing_to_undo_says_so(desk, local, waiting):
    assert desk.undo(local)["says"] == "Nothing to undo"


@pytest.mark.parametrize(
    "bad",
    [{"presentation_id": 999, "choice": "a"}, {"choice": "c"}, {"choice": "skip", "reason": "  "}, {"choice": "skip"}],
)
def test_what_fits_nothing_is_refused_and_the_page_goes_on(store, desk, local, waiting, bad):
    view = desk.next_for(local)
    reply = desk.judge(local, act(view, "a") | {"reason": None} | bad)
    assert reply["problem"].startswith("Not saved. ")
    assert reply["next"] == view
    assert saved(store) == []


def test_another_ones_presentation_is_refused(store, desk, local, waiting):
    view = desk.next_for(local)
    reply = desk.judge(annotators.ensure(store, "someone else"), act(view, "a"))
    assert "somebody else" in reply["problem"]
    assert saved(store) == []


def test_a_dry_queue_says_how_long(desk, local, server):
    server.fill(20.0)
    view = desk.next_for(local)
    assert (view["state"], view["count"]) == ("empty", "Nothing judged yet")
    assert view["note"] == "The model is writing new answers: about 20 s. This page fills by itself."


def test_a_dry_queue_without_a_server_says_so(desk, local, server):
    server.fall_over("no answer from the policy server at http://127.0.0.1:1/v1")
    assert desk.next_for(local)["note"].startswith(
        "No answer from the policy server at http://127.0.0.1:1/v1. Until then"
    )


def test_a_full_queue_does_not_need_the_server(desk, local, server, waiting):
    server.fall_over("gone")
    assert desk.next_for(local)["state"] == "comparison"


def test_server_functions_know_who_asks(build, store, server, waiting):
    """Called as Gradio's /component_server calls them: one payload, and the request by its annotation."""
    asked = []

    def annotator_of(request):
        asked.append(request)
        return annotators.ensure(store, "local")

    def page():
        with gr.Blocks(analytics_enabled=False):
            return compare.build(store, server, annotator_of=annotator_of)

    component = build(page)
    request = SimpleNamespace()

    def call(name, payload):
        function = getattr(component, name)
        assert function._is_server_fn
        arguments, *_ = special_args(function, [payload], request)
        return function(*arguments)

    view = call("next_comparison", {})
    assert call("judge", act(view, "a"))["next"]["count"] == "1 judged"
    assert call("undo", {})["next"] == view
    assert asked == [request] * 3


def test_a_store_that_cannot_answer_is_not_hidden(store, desk, local):
    stranger = type(local)(id=999, name="nobody", kind="human", rule=None)
    with pytest.raises(StoreError):
        desk.next_for(stranger)


def test_the_templates_hold_nothing_that_gradio_would_evaluate(assets):
    """Gradio reads both as Handlebars and then as JavaScript template strings."""
    for name in ("compare.html", "compare.css"):
        text = (assets / name).read_text(encoding="utf-8")
        assert not any(mark in text for mark in ("${", "{{", "`", "\\", "@children"))
