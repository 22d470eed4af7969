"""The Compare page's server functions, with a real store."""

import json
import re
from datetime import UTC, datetime
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.helpers import special_args

from feedback_ui.judging import compare, judging_view
from feedback_ui.judging.component import STYLES
from feedback_ui.server.auth import Auth
from feedback_ui.shared.html import render_template
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.scripts import TRANSLATIONS, browser_texts, modules
from storage.content import comparisons, completions, policies, prompts
from storage.core.database import StoreError
from storage.core.records import Flag, IdealAnswer, ProjectSettings, Sampling, Timing
from storage.judging import judgments, presentations, queue
from storage.judging.details import of_judgments
from storage.people import accounts, annotators
from storage.project import guidelines, settings

EN, KO = Translator("en"), Translator("ko")

EVERYTHING = ProjectSettings(aspects=("Helpful", "Honest"), rationale="required", ideal_answers=True)


def act(view, choice, reason=None, **details):
    return {"presentation_id": view["presentation_id"], "choice": choice, "reason": reason} | details


def shown_as(service, annotator, view):
    """The presentation of a view, which the browser names by an opaque token."""
    return presentations.get(service.store, service.tokens.open("presentation", view["presentation_id"], annotator.id))


def saved(store):
    return [dict(row) for row in store.rows("SELECT * FROM judgments ORDER BY id")]


def details_of(store):
    (row,) = saved(store)
    return of_judgments(store, [row["id"]])[row["id"]]


def quality_of(store, completion_id):
    return store.value("SELECT text FROM completions WHERE id = ?", [completion_id]).split()[0]


@pytest.fixture
def four(store):
    """One waiting comparison of four answers."""
    prompts.add(store, [prompts.NewPrompt(({"role": "user", "content": "Why?"},), split="train")], source="test")
    (prompt,) = prompts.of_split(store)
    policy = policies.ensure_base(store, "SecretModel")
    ids = [
        completions.add(
            store, prompt_id=prompt.id, policy_version_id=policy.id, text=f"answer {i}", sampling=Sampling(), seed=0,
            finish_reason="stop", latency_s=0.1,
        )
        for i in range(4)
    ]  # fmt: skip
    return comparisons.get(store, comparisons.add(store, prompt.id, ids, purpose="collect"))


# ---- views


@pytest.mark.parametrize("project", [ProjectSettings(), EVERYTHING])
def test_the_view_is_blind(store, service, local, waiting, project):
    settings.change(store, project, None)
    view = service.next_for(local, EN, {})
    assert set(view) - {"sources"} == {
        "state", "presentation_id", "kind", "turns", "answers", "cut_off", "inputs", "count", "guidelines", "practice",
    }  # fmt: skip
    assert set(view["inputs"]) == {"strength", "aspects", "scale", "rationale", "min_chars", "ideal", "flags"}
    assert policies.by_name(store, "SecretModel").name not in json.dumps(view)


def test_gold_and_repeats_cannot_be_told_from_votes(store, service, local, waiting):
    shapes = []
    for purpose in ("vote", "gold", "repeat"):
        shown = presentations.record(store, waiting[0], local.id, purpose=purpose)
        view = judging_view.comparison_view(EN, waiting[0], shown.order, ProjectSettings(), presentation="x")
        shapes.append(json.dumps(view | {"answers": sorted(view["answers"])}))
    assert len(set(shapes)) == 1


def test_answers_stand_in_the_order_of_the_presentation(store, service, local, waiting):
    view = service.next_for(local, EN, {})
    order = shown_as(service, local, view).order
    texts = {c.id: c.text for c in waiting[0].completions}
    assert view["answers"] == [f"<p>{texts[completion_id]}</p>" for completion_id in order]
    assert "sources" not in view


def test_the_source_of_an_answer_leaves_the_server_only_to_be_edited(store, service, local, waiting):
    settings.change(store, ProjectSettings(ideal_answers=True), None)
    view = service.next_for(local, EN, {})
    assert [f"<p>{source}</p>" for source in view["sources"]] == view["answers"]


def test_every_turn_is_shown_and_made_safe(service, local, waiting):
    service.judge(local, EN, act(service.next_for(local, EN, {}), "a"))
    view = service.next_for(local, EN, {})
    assert [turn["speaker"] for turn in view["turns"]] == ["Person", "Assistant", "Person"]
    assert view["turns"][2]["html"] == "<p>Two hours. &lt;b&gt;Why?&lt;/b&gt;</p>"
    assert view["kind"] == "Dialogue"


@pytest.mark.parametrize(("shown", "roles"), [(True, ["system", "user"]), (False, ["user"])])
def test_a_hidden_system_prompt_never_leaves_the_server(shown, roles):
    messages = ({"role": "system", "content": "Be curt."}, {"role": "user", "content": "Hello"})
    turns = judging_view.turns(EN, messages, show_system=shown)
    assert [turn["role"] for turn in turns] == roles
    assert ("Be curt." in json.dumps(turns)) == shown
    # Speakers are named if there is more than one turn.
    assert bool(turns[-1]["speaker"]) == shown


def test_guidelines_are_sent_once_a_version(store, service, local, waiting):
    assert service.next_for(local, EN, {})["guidelines"] is None
    guidelines.publish(store, "Be **fair**.", None)
    # The beginning of the output of `printf 'Be **fair**.' | sha256sum`.
    first = "cffd9e051bb3674a"
    assert service.next_for(local, EN, {})["guidelines"] == {"id": first, "html": "<p>Be <strong>fair</strong>.</p>"}
    assert service.next_for(local, EN, {"guidelines": first})["guidelines"] == {"id": first}
    guidelines.publish(store, "Be kind.", None)
    second = service.next_for(local, EN, {"guidelines": first})["guidelines"]
    assert (second["id"] != first, second["html"]) == (True, "<p>Be kind.</p>")
    # A page from before an upgrade sends no valid version.
    assert "html" in service.next_for(local, EN, {"guidelines": 2})["guidelines"]


# ---- judgments


@pytest.mark.parametrize(("choice", "slot"), [("a", 0), ("b", 1)])
def test_the_chosen_slot_wins(store, service, local, waiting, choice, slot):
    view = service.next_for(local, EN, {})
    order = shown_as(service, local, view).order
    reply = service.judge(local, EN, act(view, choice))
    assert json.loads(saved(store)[0]["tiers"]) == [[order[slot]], [order[1 - slot]]]
    assert reply["next"]["presentation_id"] != view["presentation_id"]
    assert reply["next"]["count"] == "1 today · 0 waiting"
    assert "problem" not in reply


def test_the_answer_shown_as_better_is_stored_as_better(store, service, local, waiting):
    for _ in waiting:
        view = service.next_for(local, EN, {})
        choice = "a" if "good" in view["answers"][0] else "b"
        service.judge(local, EN, act(view, choice))
    assert [quality_of(store, json.loads(row["tiers"])[0][0]) for row in saved(store)] == ["good", "good"]


@pytest.mark.parametrize(("choice", "all_bad"), [("tie", 0), ("both_bad", 1)])
def test_ties_share_a_tier(store, service, local, waiting, choice, all_bad):
    service.judge(local, EN, act(service.next_for(local, EN, {}), choice))
    (row,) = saved(store)
    assert [len(tier) for tier in json.loads(row["tiers"])] == [2]
    assert row["all_bad"] == all_bad


def test_slots_of_a_ranking_become_completions(store, service, local, four):
    view = service.next_for(local, EN, {})
    order = shown_as(service, local, view).order
    service.judge(local, EN, act(view, "rank", tiers=[[2], [0, 3]]))
    (row,) = saved(store)
    assert json.loads(row["tiers"]) == [[order[2]], [order[0], order[3]]]
    assert (row["partial"], row["all_bad"]) == (1, 0)


def test_all_bad_ties_every_answer(store, service, local, four):
    service.judge(local, EN, act(service.next_for(local, EN, {}), "both_bad"))
    (row,) = saved(store)
    assert ([len(tier) for tier in json.loads(row["tiers"])], row["all_bad"], row["partial"]) == ([4], 1, 0)


def test_details_are_kept_by_completion(store, service, local, waiting):
    settings.change(store, EVERYTHING, None)
    view = service.next_for(local, EN, {})
    a, b = shown_as(service, local, view).order
    details = {
        "strength": "slightly", "aspects": {"0": {"Helpful": 4}, "1": {"Helpful": 2, "Honest": 5}},
        "rationale": "It is right and says why.",
        "ideal": {"text": "Better still.", "slot": 1}, "timing": {"active_ms": 900, "idle_ms": 100, "client_ms": 1000},
        "flags": [{"kind": "unsafe", "note": "burns", "slot": 0}, {"kind": "broken_prompt", "note": "", "slot": None}],
    }  # fmt: skip
    assert "problem" not in service.judge(local, EN, act(view, "b", **details))
    stored = details_of(store)
    assert stored.strength == "slightly"
    assert stored.aspects == {a: {"Helpful": 4}, b: {"Helpful": 2, "Honest": 5}}
    assert stored.rationale == "It is right and says why."
    assert stored.ideal == IdealAnswer("Better still.", b)
    assert stored.flags == (Flag("unsafe", "burns", a), Flag("broken_prompt", "", None))
    assert stored.timing == Timing(900, 100, 1000)


def test_a_skip_keeps_its_reason_and_its_flags_and_nothing_of_the_answers(store, service, local, waiting):
    flags = [{"kind": "personal_data", "slot": None}]
    view = service.next_for(local, EN, {})
    service.judge(local, EN, act(view, "skip", "Broken prompt", flags=flags, strength="better", aspects={"0": {"x": 1}}))
    (row,) = saved(store)
    assert (row["verdict"], row["skip_reason"], row["tiers"]) == ("skip", "Broken prompt", "[]")
    stored = details_of(store)
    assert (stored.flags, stored.strength, stored.aspects) == ((Flag("personal_data"),), None, {})


def test_a_judgment_that_is_sent_twice_counts_once(store, service, local, waiting):
    view = service.next_for(local, EN, {})
    first = service.judge(local, EN, act(view, "a"))
    again = service.judge(local, EN, act(view, "a"))
    assert len(saved(store)) == 1
    assert again == first


def test_a_stale_page_is_told_what_the_store_has(store, service, local, waiting):
    """Two tabs show one comparison: the second judgment of it is not saved, and the page must not say that it was."""
    view = service.next_for(local, EN, {})
    first = service.judge(local, EN, act(view, "a", strength="slightly"))
    stale = service.judge(local, EN, act(view, "b"))
    (row,) = saved(store)
    assert "A is slightly better" in stale["problem"] and "not saved" in stale["problem"]
    assert service.tokens.open("judgment", stale["stored"], local.id) == row["id"]
    assert stale["next"] == first["next"]
    assert service.judge(local, KO, act(view, "skip", "Broken prompt"))["problem"] != stale["problem"]
    assert len(saved(store)) == 1


def test_undo_brings_the_same_presentation_back(store, service, local, waiting):
    view = service.next_for(local, EN, {})
    service.judge(local, EN, act(view, "a"))
    reply = service.undo(local, EN, {})
    assert reply["message"] == "Undone: A is better"
    assert reply["next"] == view
    assert (reply["undone"]["choice"], reply["undone"]["strength"]) == ("a", None)
    assert annotators.get(store, local.id).judged == 0


def test_skips_are_not_counted_as_judged(store, service, local, waiting):
    view = service.next_for(local, EN, {})
    assert view["count"] == "0 today · 1 waiting"
    after_skip = service.judge(local, EN, act(view, "skip", "Broken prompt"))["next"]
    assert after_skip["count"] == "0 today · 1 skipped · 0 waiting"
    assert service.next_for(local, KO, {})["count"] == "오늘 0건 · 1건 건너뜀 · 0건 대기 중"
    assert service.judge(local, EN, act(after_skip, "a"))["next"]["count"] == "1 today · 1 skipped · 0 waiting"
    assert service.undo(local, EN, {})["message"] == "Undone: A is better"
    reply = service.undo(local, EN, {})
    assert (reply["message"], reply["next"]["count"]) == ("Undone: Skipped: Broken prompt", "0 today · 1 waiting")


def test_the_goal_of_a_day_is_counted_from_the_readers_midnight(store, service, local, waiting):
    settings.change(store, ProjectSettings(daily_goal=40), None)
    view = service.next_for(local, EN, {})
    reply = service.judge(local, EN, act(view, "a"))
    assert reply["next"]["count"] == "1 of 40 today · 0 waiting"
    assert service.next_for(local, KO, {})["count"] == "오늘 40건 중 1건 · 0건 대기 중"


@pytest.mark.parametrize(
    ("minutes_east", "began"),
    [
        (0, "2026-11-27T00:00:00.000+00:00"), (540, "2026-11-27T15:00:00.000+00:00"), (-300, "2026-11-27T05:00:00.000+00:00"),
        # Ahead of every time zone there is, and no number.
        (10**9, "2026-11-27T10:00:00.000+00:00"), (True, "2026-11-27T00:00:00.000+00:00"), ("x", "2026-11-27T00:00:00.000+00:00"),
        (None, "2026-11-27T00:00:00.000+00:00"),
    ],
)  # fmt: skip
def test_a_day_begins_at_the_readers_midnight(minutes_east, began):
    assert compare.midnight(minutes_east, datetime(2026, 11, 27, 21, 30, tzinfo=UTC)) == began


def test_how_many_wait_is_not_told_where_it_would_give_gold_and_repeats_away(store, service, local, waiting):
    for share in ({"gold_share": 0.1}, {"repeat_share": 0.1}):
        settings.change(store, ProjectSettings(**share), None)
        assert service.next_for(local, EN, {})["count"] == "0 today"


@pytest.mark.parametrize(("waiting", "shown"), [(0, "0 waiting"), (100, "100 waiting"), (101, "100+ waiting")])
def test_a_long_queue_is_counted_up_to_a_limit(waiting, shown):
    assert judging_view.progress(EN, judgments.Given(1200, 0), waiting=waiting) == f"1,200 today · {shown}"


def test_an_answer_that_reached_its_token_limit_is_marked(store, service, local):
    prompts.add(store, [prompts.NewPrompt(({"role": "user", "content": "Why?"},), split="train")], source="test")
    (prompt,) = prompts.of_split(store)
    policy = policies.ensure_base(store, "SecretModel")
    ids = [
        completions.add(
            store, prompt_id=prompt.id, policy_version_id=policy.id, text=f"answer {reason}", sampling=Sampling(), seed=0,
            finish_reason=reason, latency_s=0.1,
        )
        for reason in ("length", "stop")
    ]  # fmt: skip
    comparisons.add(store, prompt.id, ids, purpose="collect")
    view = service.next_for(local, EN, {})
    assert view["cut_off"] == ["length" in answer for answer in view["answers"]]


def test_the_practice_comparison_is_offered_until_something_is_judged(service, local, waiting):
    view = service.next_for(local, EN, {})
    assert view["practice"]
    assert not service.judge(local, EN, act(view, "a"))["next"].get("practice")


@pytest.mark.parametrize(("project", "steps"), [({}, 2), ({"four_strengths": True}, 4), ({"strength": False, "four_strengths": True}, 0)])
def test_the_lead_chooses_the_steps_of_strength(project, steps):
    assert judging_view.inputs(ProjectSettings(**project))["strength"] == steps


def test_an_undo_shows_a_strength_that_the_project_no_longer_asks_for(store, service, local, waiting):
    settings.change(store, ProjectSettings(four_strengths=True), None)
    service.judge(local, EN, act(service.next_for(local, EN, {}), "b", strength="slightly", rationale="Shorter."))
    settings.change(store, ProjectSettings(strength=False), None)
    reply = service.undo(local, EN, {})
    assert reply["message"] == "Undone: B is slightly better"
    assert (reply["undone"]["choice"], reply["undone"]["strength"], reply["undone"]["rationale"]) == ("b", "slightly", "Shorter.")
    assert (reply["next"]["inputs"]["strength"], reply["next"]["inputs"]["rationale"]) == (4, "optional")


def test_undo_with_nothing_to_undo_says_so(service, local, waiting):
    assert service.undo(local, EN, {})["message"] == "Nothing to undo"


BAD_ACTS = [
    {"presentation_id": 999, "choice": "a"}, {"presentation_id": "1"}, {"choice": "c"}, {"choice": None}, {"choice": ["a"]},
    {"choice": "skip", "reason": "  "}, {"choice": "skip"}, {"choice": "rank"}, {"choice": "rank", "tiers": [[0], [2]]},
    {"choice": "rank", "tiers": [[0], [-1]]}, {"choice": "rank", "tiers": [[0], ["1"]]}, {"choice": "rank", "tiers": 3},
    {"choice": "rank", "tiers": [[0], [0]]}, {"flags": [{}]}, {"flags": [{"kind": "ugly"}]}, {"flags": [{"kind": "unsafe", "slot": 7}]},
    {"aspects": {"x": {}}}, {"aspects": {"0": 3}}, {"aspects": [1]}, {"ideal": "text"}, {"ideal": {"text": " "}},
    {"ideal": {"text": "x", "slot": 9}}, {"timing": {"active_ms": 1}}, {"timing": 4}, {"strength": "hugely"}, {"rationale": 3},
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_ACTS)
def test_an_invalid_judgment_is_refused_and_the_next_comparison_is_shown(store, service, local, waiting, bad):
    view = service.next_for(local, EN, {})
    reply = service.judge(local, EN, act(view, "a") | {"reason": None} | bad)
    assert reply["problem"].startswith("Not saved. ")
    assert reply["next"] == view
    assert saved(store) == []


def test_the_presentation_of_another_annotator_is_refused(store, service, local, waiting):
    view = service.next_for(local, EN, {})
    reply = service.judge(annotators.ensure(store, "someone else"), EN, act(view, "a"))
    assert reply["problem"] == "Not saved. This comparison no longer exists here: reload the page."
    assert saved(store) == []


# ---- leases


def lapse(store):
    with store.atomic() as connection:
        connection.conn.execute("UPDATE leases SET expires_at = '2000-01-01T00:00:00.000+00:00'")


def test_a_renewal_extends_the_lease(store, service, local, waiting):
    view = service.next_for(local, EN, {})
    lapse(store)
    assert service.renew(local, EN, {"presentation_id": view["presentation_id"]}) == {"held": True}
    other = annotators.ensure(store, "other")
    withdrawn = service.next_for(other, EN, {})
    while withdrawn["state"] == "comparison" and shown_as(service, other, withdrawn).comparison_id != waiting[0].id:
        service.judge(other, EN, act(withdrawn, "a"))
        withdrawn = service.next_for(other, EN, {})
    assert withdrawn["state"] == "comparison"
    assert service.renew(local, EN, {"presentation_id": view["presentation_id"]}) == {"held": False}
    for nonsense in ({}, {"presentation_id": "x"}, {"presentation_id": 999}, {"presentation_id": withdrawn["presentation_id"]}):
        assert service.renew(local, EN, nonsense) == {"held": False}


def test_a_late_judgment_is_refused_and_another_comparison_is_shown(store, service, local, waiting):
    view = service.next_for(local, EN, {})
    lapse(store)
    other = annotators.ensure(store, "other")
    for _ in waiting:
        service.judge(other, EN, act(service.next_for(other, EN, {}), "a"))
    reply = service.judge(local, EN, act(view, "a"))
    assert reply["lease_over"]
    assert "somebody else" in reply["problem"]
    assert reply["next"]["state"] == "empty"
    assert annotators.get(store, local.id).judged == 0


# ---- one commit, and errors around it


def test_saving_and_choosing_are_one_commit(store, service, local, waiting):
    view = service.next_for(local, EN, {})
    commits = []
    store.connection.conn.set_trace_callback(lambda sql: commits.append(sql) if sql.startswith(("COMMIT", "BEGIN IMMEDIATE")) else None)
    service.judge(local, EN, act(view, "a"))
    store.connection.conn.set_trace_callback(None)
    assert commits == ["BEGIN IMMEDIATE", "COMMIT"]


def test_an_error_in_the_queue_does_not_lose_the_judgment(store, service, local, waiting, monkeypatch):
    view = service.next_for(local, EN, {})

    def broken(*_, **__):
        raise StoreError("the queue is gone")

    monkeypatch.setattr(queue, "next_presentation", broken)
    reply = service.judge(local, EN, act(view, "a"))
    assert len(saved(store)) == 1
    assert (reply["next"]["state"], reply["next"]["count"]) == ("empty", "1 today")
    assert reply["next"]["note"].startswith("Saved.")


def test_a_store_that_cannot_write_leaves_the_page_as_it_is(store, service, local, waiting, monkeypatch):
    view = service.next_for(local, EN, {})

    def full(*_, **__):
        raise StoreError("the disk is full")

    monkeypatch.setattr(judgments, "save", full)
    reply = service.judge(local, EN, act(view, "a"))
    assert set(reply) == {"problem"}
    assert reply["problem"].startswith("Not saved. Nothing was saved: the store failed.") and "disk's free space" in reply["problem"]


# ---- nothing to judge


def test_an_empty_queue_shows_the_waiting_time(service, local, server):
    server.fill(20.0)
    view = service.next_for(local, EN, {})
    assert (view["state"], view["count"]) == ("empty", "0 today · 0 waiting")
    assert view["note"] == "The model is writing new answers: about 20 s. This page updates by itself."


def test_an_empty_queue_without_a_policy_server_shows_an_error(service, local, server):
    server.fall_over("no answer from the policy server at http://127.0.0.1:1/v1")
    assert service.next_for(local, EN, {})["note"].startswith("No answer from the policy server at http://127.0.0.1:1/v1. Until then")


def test_a_full_queue_does_not_need_the_server(service, local, server, waiting):
    server.fall_over("gone")
    assert service.next_for(local, EN, {})["state"] == "comparison"


def test_it_speaks_korean(service, local, waiting):
    view = service.next_for(local, KO, {})
    assert view["count"] == "오늘 0건 · 1건 대기 중"
    assert service.judge(local, KO, act(view, "c"))["problem"].startswith("저장하지 못했습니다.")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ((True, True, 20.0, ""), "The model is writing new answers: about 20 s. This page updates by itself."),
        ((True, True, None, ""), "The model is writing new answers. This page updates by itself."),
        ((False, False, None, ""), "The model is being loaded. This page updates by itself."),
        ((False, False, None, "Downloading the model."), "Downloading the model. This page updates by itself."),
        ((True, False, None, "Paused while a round trains."), "Paused while a round trains."),
    ],
)
def test_waiting_notes_of_the_compare_page(status, expected):
    given = dict(zip(("ready", "filling", "seconds_per_comparison", "note"), status, strict=True))
    assert judging_view.waiting_note(EN, **given) == expected


# ---- access


@pytest.fixture
def call(build, store, server):
    """Calls a server function as Gradio's /component_server does: one payload, and the request by its annotation."""

    def page():
        with gr.Blocks(analytics_enabled=False):
            return compare.build(store, server, Auth(store))

    component = build(page)

    def called(name, payload, request):
        function = getattr(component, name)
        assert function._is_server_fn
        arguments, *_ = special_args(function, [payload], request)
        return function(*arguments)

    return called


def test_server_functions_know_who_asks(call, store, local, waiting):
    request = SimpleNamespace(headers={"accept-language": "ko"}, cookies={})
    view = call("next_comparison", {}, request)
    assert call("renew", {"presentation_id": view["presentation_id"]}, request) == {"held": True}
    assert call("judge", act(view, "a"), request)["next"]["count"] == "오늘 1건 · 0건 대기 중"
    assert call("undo", None, request)["next"] == view


def test_a_visitor_who_is_not_signed_in_gets_a_refusal(call, store, waiting):
    accounts.create(store, "Ann", "correct horse", ["lead"])
    request = SimpleNamespace(headers={}, cookies={})
    for name in ("next_comparison", "judge", "undo", "renew"):
        reply = call(name, {}, request)
        assert set(reply) == {"refused", "signed_out"}
        assert reply["signed_out"]
    assert saved(store) == []


def test_a_lead_without_the_role_annotator_cannot_judge(call, store, waiting):
    account = accounts.create(store, "Lea", "correct horse", ["lead"])
    request = SimpleNamespace(headers={}, cookies={Auth(store).cookie: accounts.sign_in(store, "Lea", "correct horse")})
    reply = call("next_comparison", {}, request)
    assert (reply["signed_out"], "annotator" in reply["refused"]) == (False, True)
    assert store.value("SELECT count(*) FROM presentations WHERE annotator_id = ?", [account.annotator.id]) == 0


def test_a_store_that_cannot_answer_is_not_hidden(store, service, local):
    stranger = type(local)(id=999, name="nobody", kind="human", rule=None)
    with pytest.raises(StoreError):
        service.next_for(stranger, EN, {})


# ---- the component's files


def test_the_templates_hold_nothing_that_gradio_would_evaluate(assets):
    """Gradio reads both as Handlebars and then as JavaScript template strings."""
    pages = {name: render_template(name, module="m", load_failed="x") for name in ("compare.html", "history.html")}
    for name, text in (pages | {name: (assets / name).read_text(encoding="utf-8") for name in STYLES}).items():
        assert not any(mark in text for mark in ("${", "{{", "`", "\\", "@children")), name


def test_the_scripts_use_existing_translations(assets):
    """A key that is put together is looked for by its beginning."""
    known = browser_texts()["en"]
    sources = [source.decode() for name, source in modules().sources.items() if name != TRANSLATIONS]
    pages = [(assets / name).read_text(encoding="utf-8") for name in ("compare.html", "history.html", "judging_form.html")]
    asked = {key for text in sources for key in re.findall(r'"((?:compare|rank|history)\.[\w.]+)"', text)}
    asked |= {key for text in pages for key in re.findall(r'data-(?:text|label|placeholder)="([\w.]+)"', text)}
    assert len(asked) > 100
    assert [key for key in asked if key not in known and f"{key}.other" not in known] == []
    begun = {key for text in sources for key in re.findall(r"`((?:compare|rank|history)\.[\w.]+)\$\{", text)}
    assert [key for key in begun if not any(name.startswith(key) for name in known)] == []
