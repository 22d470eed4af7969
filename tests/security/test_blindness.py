"""No id of the store reaches an annotator, whatever is sent: every judging and history payload, every error, over HTTP."""

from __future__ import annotations

import pytest

from feedback_ui.shared.i18n import LANGUAGES
from storage.content import policies
from storage.core.database import StoreError, StoreLocked
from storage.core.records import ProjectSettings
from storage.judging import exclusions, judgments, presentations, queue
from storage.project import guidelines, settings
from tests.security.blind_site import BASE, FIRST_IDS, SECRET_ID, TUNED, blind_site

EVERYTHING = ProjectSettings(
    overlap=2, aspects=("Helpful", "Honest"), rationale="optional", rationale_min_chars=5, ideal_answers=True, flags=True
)

HUGE = (2**63, 2**63 - 1, 2**64, -(2**63) - 1, 10**400, -1, 0, 1e308)
WRONG = (None, True, False, 1.5, "", "x", "161", "x" * 32, "A" * 100_000, "\ud83d", "a\x00b", [], [1], {}, {"a": 1}, [[[[1]]]], *HUGE)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with blind_site(tmp_path_factory.mktemp("blind") / "rankloop.db") as served:
        served.join("Ann")
        served.join("Bob")
        for n in range(60):
            served.put(f"Question {n}?", ("one", "two") if n % 3 else ("one", "two", "three", "four"))
        guidelines.publish(served.store, "Be **fair**.", None)
        settings.change(served.store, EVERYTHING, None)
        yield served


@pytest.fixture(autouse=True)
def told(site, monkeypatch):
    """Every reply of the test; at its end none of them may hold an id or the name of a policy version."""
    replies: list[tuple] = []
    send = site.send

    def sending(name, function, data, language="en"):
        reply = send(name, function, data, language)
        replies.append((function, str(data)[:200], reply.status_code, f"{reply.headers}{reply.text}"))
        return reply

    monkeypatch.setattr(site, "send", sending)
    yield
    for function, data, status, text in replies:
        # A body with half a character or a number beyond 2^63 is refused before any function is called.
        assert status in (200, 400, 413), (function, data, status, text[:300])
        assert not SECRET_ID.search(text), (function, data, SECRET_ID.findall(text), text[:600])
        assert BASE not in text and TUNED not in text, (function, data)
        assert str(site.store.path.parent) not in text, (function, data, text[:600])


def test_the_ids_of_the_store_are_conspicuous(site):
    for table, first in FIRST_IDS.items():
        if table not in ("exclusions", "imports"):
            assert SECRET_ID.fullmatch(str(site.store.value(f"SELECT max(id) FROM {table}"))), table
        assert SECRET_ID.fullmatch(str(first))


def shown(site, name="Ann"):
    view = site.call(name, "next_comparison")
    assert view["state"] == "comparison"
    return view


def act(view, choice="both_bad", **more):
    return {"presentation_id": view["presentation_id"], "choice": choice, "reason": None} | more


# ---- what goes well


@pytest.mark.parametrize("language", LANGUAGES)
def test_judging_and_history_speak_of_slots_and_opaque_names(site, language):
    said = {
        "aspects": {"0": {"Helpful": 4}, "1": {"Honest": 2}}, "rationale": "Because it is.", "ideal": {"text": "Mine", "slot": 0},
        "flags": [{"kind": "unsafe", "note": "n", "slot": 1}, {"kind": "broken_prompt", "note": "", "slot": None}],
        "timing": {"active_ms": 1, "idle_ms": 2, "client_ms": 3},
    }  # fmt: skip
    view = site.send("Ann", "next_comparison", {}, language).json()
    first = act(view, "rank", tiers=[[1], [0]], **said)
    assert "problem" not in site.send("Ann", "judge", first, language).json()
    site.send("Ann", "judge", first, language)
    assert site.send("Ann", "renew", first, language).json() == {"held": False}
    assert site.send("Ann", "undo", {}, language).json()["next"]["presentation_id"] == view["presentation_id"]
    assert site.send("Ann", "renew", first, language).json() == {"held": True}
    site.send("Ann", "judge", first, language)
    site.send("Ann", "judge", act(shown(site), "skip", reason="Broken prompt"), language)
    site.send("Ann", "judge", act(shown(site)), language)
    rows = site.send("Ann", "past_judgments", {}, language).json()["rows"]
    exclusions.exclude(site.store, [site.store.value("SELECT max(id) FROM judgments")], rule="too fast", reason="0.2 s", by=None)
    assert len({row["id"] for row in rows}) == len(rows) >= 3
    for filters in ({"flagged": True}, {"excluded": True}, {"verdict": "skip"}, {"text": "question"}, {"before": rows[0]["id"]}):
        site.send("Ann", "past_judgments", filters, language)
    for row in rows:
        opened = site.send("Ann", "past_judgment", {"judgment_id": row["id"]}, language).json()["view"]
        assert opened["judgment_id"] == row["id"]
        reply = site.send("Ann", "correct", {"judgment_id": row["id"], "choice": "tie"}, language).json()
        assert reply["replaces"] == row["id"] != reply["row"]["id"]
        # A second try after a lost reply.
        assert site.send("Ann", "correct", {"judgment_id": row["id"], "choice": "tie"}, language).json() == reply


def test_a_page_goes_back_by_an_opaque_name(site):
    for _ in range(25):
        site.call("Bob", "judge", act(shown(site, "Bob")))
    first = site.call("Bob", "past_judgments")
    second = site.call("Bob", "past_judgments", {"before": first["older"]})
    ids = [row["id"] for row in first["rows"] + second["rows"]]
    assert len(first["rows"]) == 20 and len(ids) == len(set(ids)) == 25 and second["older"] is None


def test_a_token_is_valid_for_one_annotator_and_one_kind_of_row(site):
    view = shown(site)
    assert site.call("Ann", "renew", act(view)) == {"held": True}
    assert site.call("Bob", "renew", act(view)) == {"held": False}
    nowhere = site.call("Bob", "judge", act(view) | {"presentation_id": "x"})
    assert site.call("Bob", "judge", act(view))["problem"] == nowhere["problem"]
    site.call("Ann", "judge", act(view))
    mine = site.call("Ann", "past_judgments")["rows"][0]["id"]
    for name, wrong in (("Bob", mine), ("Ann", view["presentation_id"])):
        assert set(site.call(name, "past_judgment", {"judgment_id": wrong})) == {"problem"}
        assert set(site.call(name, "correct", {"judgment_id": wrong, "choice": "tie"})) == {"problem"}
    assert site.call("Ann", "renew", {"presentation_id": mine}) == {"held": False}


def test_an_id_of_the_store_is_not_a_valid_token(site):
    view = shown(site)
    presentation_id = site.store.value("SELECT max(presentation_id) FROM leases WHERE ended_at IS NULL")
    assert site.call("Ann", "renew", {"presentation_id": presentation_id}) == {"held": False}
    reply = site.call("Ann", "judge", act(view) | {"presentation_id": presentation_id})
    # What a page sends that was open during an upgrade: nothing is saved, and it goes on with what the new server shows.
    assert reply["next"] == view and reply["problem"].startswith("Not saved.")
    judgment_id = site.store.value("SELECT max(id) FROM judgments")
    assert set(site.call("Ann", "past_judgment", {"judgment_id": judgment_id})) == {"problem"}


# ---- what goes wrong

BAD = [
    {"choice": "c"}, {"choice": None}, {"choice": ["a"]}, {"choice": {}}, {"choice": "skip"}, {"choice": "skip", "reason": "  "},
    {"choice": "skip", "reason": 3}, {"choice": "skip", "reason": "x" * 2000}, {"choice": "skip", "reason": "\ud83d"},
    {"choice": "rank"}, {"choice": "rank", "tiers": 3}, {"choice": "rank", "tiers": []}, {"choice": "rank", "tiers": [[0]]},
    {"choice": "rank", "tiers": [[0, 0]]}, {"choice": "rank", "tiers": [[0], [0]]}, {"choice": "rank", "tiers": [[1], [0, 1]]},
    {"choice": "rank", "tiers": [[0], [], [1]]}, {"choice": "rank", "tiers": [[0], [9]]}, {"choice": "rank", "tiers": [[0], [-1]]},
    {"choice": "rank", "tiers": [["0"], ["1"]]}, {"choice": "rank", "tiers": "01"}, {"choice": "rank", "tiers": [[True], [False]]},
    {"choice": "rank", "tiers": [[0.0], [1]]}, {"choice": "rank", "tiers": [[0] * 50_000]}, {"choice": "rank", "tiers": [[0]] * 50_000},
    {"choice": "rank", "tiers": [[]] * 50_000}, {"choice": "rank", "tiers": {"0": [1]}},
    {"flags": [{}]}, {"flags": 3}, {"flags": [{"kind": "ugly"}]}, {"flags": [{"kind": "unsafe", "slot": 17}]},
    {"flags": [{"kind": ["unsafe"]}]}, {"flags": [{"kind": "unsafe", "note": 3}]}, {"flags": [{"kind": "unsafe", "note": "x" * 2000}]},
    {"flags": [{"kind": "unsafe"}] * 5000},
    {"aspects": {"x": {}}}, {"aspects": {"0": 3}}, {"aspects": [1]}, {"aspects": {"0": {"Helpful": 11}}}, {"aspects": {"0": {"x": True}}},
    {"aspects": {"99": {"Helpful": 1}}}, {"aspects": {"9" * 5000: {"Helpful": 1}}}, {"aspects": {"0": {"x" * 2000: 1}}},
    {"aspects": {"0": {str(n): 1 for n in range(100)}}}, {"aspects": {"0": {"\ud83d": 1}}},
    {"ideal": "text"}, {"ideal": {"text": " "}}, {"ideal": {"text": "x", "slot": 19}}, {"ideal": {"text": "x" * 30_000}},
    {"ideal": {"text": "\ud83d"}}, {"ideal": {"text": 3}},
    {"timing": {"active_ms": 1}}, {"timing": 4}, {"timing": {"active_ms": -1, "idle_ms": 0, "client_ms": 0}},
    {"timing": {"active_ms": 2**63, "idle_ms": 0, "client_ms": 0}}, {"timing": {"active_ms": 1.5, "idle_ms": 0, "client_ms": 0}},
    {"strength": "hugely"}, {"strength": 3}, {"strength": ["better"]}, {"choice": "both_bad", "strength": "better"},
    {"rationale": 3}, {"rationale": "x" * 30_000}, {"rationale": "\ud83d"},
]  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_invalid_judgment_is_refused_without_ids(site, language):
    view = shown(site)
    before = site.store.value("SELECT count(*) FROM judgments")
    said = set()
    for bad in BAD:
        answer = site.send("Ann", "judge", act(view, "tie") | bad, language)
        reply = answer.json()
        if answer.status_code in (400, 413):
            assert (max(reply["error"]) >= "가") == (language == "ko"), reply
            continue
        assert reply["next"]["presentation_id"] == view["presentation_id"], (bad, reply)
        assert len(reply["problem"]) < 300, (str(bad)[:100], reply["problem"])
        assert (max(reply["problem"]) >= "가") == (language == "ko"), reply["problem"]
        said.add(reply["problem"])
    assert site.store.value("SELECT count(*) FROM judgments") == before
    assert len(said) > 15, "each kind of mistake says what it is"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_invalid_correction_is_refused_without_ids(site, language):
    site.call("Ann", "judge", act(shown(site)))
    row = site.call("Ann", "past_judgments")["rows"][0]
    for bad in BAD:
        answer = site.send("Ann", "correct", {"judgment_id": row["id"], "choice": "tie"} | bad, language)
        reply = answer.json()
        if answer.status_code in (400, 413):
            assert (max(reply["error"]) >= "가") == (language == "ko"), reply
            continue
        assert set(reply) == {"problem"} and len(reply["problem"]) < 300, (str(bad)[:100], reply)
        assert (max(reply["problem"]) >= "가") == (language == "ko"), reply["problem"]
    assert site.call("Ann", "past_judgments")["rows"][0] == row


def test_a_duplicate_in_a_ranking_is_named_as_on_the_page(site):
    seen = set()
    while seen != {2, 4}:
        view = shown(site)
        size = len(view["answers"])
        said = site.call("Ann", "judge", act(view, "rank", tiers=[[1, 1]]))["problem"]
        assert said == f"Not saved. Ranked twice: {'B' if size == 2 else '2'}. Put each answer in one place."
        seen.add(size)
        site.call("Ann", "judge", act(view))


OTHERS = ["next_comparison", "undo", "renew", "past_judgments", "past_judgment", "correct"]


@pytest.mark.parametrize("function", ["judge", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_whatever_is_sent_is_answered(site, function):
    """2^63, wrong types, half characters, in every place of every payload."""
    view = shown(site)
    for value in WRONG:
        site.send("Ann", function, value)
        for name in (
            "presentation_id", "judgment_id", "before", "guidelines", "text", "verdict", "flagged", "excluded", "choice", "tiers", "reason",
            "strength", "aspects", "rationale", "ideal", "flags", "timing", "minutes_east",
        ):  # fmt: skip
            site.send("Ann", function, act(view, "rank", tiers=[[0, 0]]) | {name: value})
        site.send("Ann", function, act(view, "a", ideal={"text": "x", "slot": value}, flags=[{"kind": "unsafe", "slot": value}]))
    shown(site)


def test_errors_of_the_store_are_reported_without_ids(site, monkeypatch):
    """Such as a foreign key: the message names the table, and the values of the whole row."""
    said = act(shown(site))
    site.call("Ann", "judge", said)
    view, row = shown(site), site.call("Ann", "past_judgments")["rows"][0]
    again = {name: value for name, value in said.items() if name != "presentation_id"} | {"judgment_id": row["id"]}
    secret = f"{site.store.path}: judgments: FOREIGN KEY: check the ids of {{'completion_id': {FIRST_IDS['completions']}}}, {TUNED}"
    for kind in (StoreError, StoreLocked):

        def broken(*_, error=kind(secret), **__):
            raise error

        with monkeypatch.context() as patched:
            for module, name in ((judgments, "save"), (judgments, "correct"), (judgments, "undo"), (queue, "next_presentation")):
                patched.setattr(module, name, broken)
            told = [
                site.call("Ann", "judge", act(view)), site.call("Ann", "next_comparison"), site.call("Ann", "undo"),
                site.call("Ann", "correct", again),
            ]  # fmt: skip
        assert all("try again" in reply["problem"] for reply in told), told


def test_expired_leases_and_withdrawn_comparisons_are_reported_without_ids(site):
    settings.change(site.store, ProjectSettings(), None)
    for name in ("Ann", "Bob"):
        site.call(name, "judge", act(shown(site, name)))
    view = shown(site)
    held = site.store.value(
        "SELECT comparison_id FROM leases WHERE ended_at IS NULL AND annotator_id = ? ORDER BY id DESC", [site.ids["Ann"]]
    )
    with site.store.atomic() as connection:
        connection.conn.execute("UPDATE comparisons SET retired = 1 WHERE id = ?", [held])
    reply = site.call("Ann", "judge", act(view))
    assert reply["lease_over"] and reply["next"]["presentation_id"] != view["presentation_id"]
    site.call("Ann", "judge", act(shown(site), "skip", reason="x"))
    skipped = site.call("Ann", "past_judgments")["rows"][0]
    for _ in range(60):
        last = site.call("Bob", "next_comparison")
        if last["state"] == "empty":
            break
        site.call("Bob", "judge", act(last))
    said = site.call("Ann", "correct", {"judgment_id": skipped["id"], "choice": "tie"})["problem"]
    assert "others have judged it" in said
    settings.change(site.store, EVERYTHING, None)


# ---- everything else that an annotator can open


@pytest.mark.slow
def test_no_other_page_tells_an_id_or_links_an_answer_to_a_version(site):
    """The Demo names versions, that is what it is for; no page names a comparison, a presentation or a judgment."""
    client = site.client("Ann")
    for path in ("/", "/config", "/gradio_api/info", "/theme.css", "/manifest.json", "/robots.txt", "/favicon.ico"):
        reply = client.get(path)
        assert not SECRET_ID.search(f"{reply.headers}{reply.text}"), path
        assert BASE not in reply.text and TUNED not in reply.text, path
    for name in ("LeaderboardPage.open", "DataPage.show", "visitor_line.<locals>.show_visitor", "DemoPage.enter", "TryingSection.open"):
        event = site.events[name]
        data = [None for _ in event.inputs]
        reply = client.post("/gradio_api/run/predict", json={"fn_index": event._id, "data": data, "session_hash": "s"})
        assert reply.status_code == 200, (name, reply.text[:300])
        assert not SECRET_ID.search(f"{reply.headers}{reply.text}"), name
        assert TUNED not in reply.text and BASE not in reply.text, name


def test_an_annotators_data_page_does_not_change_with_the_queue(site):
    """Gold and repeats take no place in the line: whoever sees its length change knows that this one was a vote."""

    def overview(name):
        event = site.events["DataPage.show"]
        asked = {"fn_index": event._id, "data": [], "session_hash": "s"}
        return site.client(name).post("/gradio_api/run/predict", json=asked).json()["data"][0]

    site.put("A question that is asked twice?")
    before, of_leads = overview("Ann"), overview("Lea")
    site.put("A question that is asked twice?")
    assert overview("Ann") == before
    assert overview("Lea") != of_leads and "waiting" in of_leads.lower()


def test_the_policies_of_the_test_are_there(site):
    assert {BASE, TUNED} <= {version.name for version in policies.all_versions(site.store)}
    assert presentations.get(site.store, FIRST_IDS["presentations"]) is not None
