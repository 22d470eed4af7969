"""The Leaderboard page: which roles are sent which parts."""

from datetime import UTC, datetime, timedelta

import argon2
import gradio as gr
import pytest
from starlette.requests import Request

from feedback_ui.leaderboard.page import LeaderboardPage
from feedback_ui.server.auth import AccessRefused, Auth
from storage.analytics import rankings
from storage.content import comparisons, completions, policies, prompts
from storage.core.database import now
from storage.core.records import Sampling
from storage.people import accounts, annotators


@pytest.fixture
def board_page(build, store):
    def made():
        with gr.Blocks():
            return LeaderboardPage(store, Auth(store))

    return build(made)


@pytest.fixture
def request_of(store, monkeypatch):
    """A request of an account with these roles; without roles, of nobody."""
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))

    def request(name="", *roles, language="en"):
        headers = [(b"accept-language", language.encode())]
        if name and not accounts.any_accounts(store):
            accounts.create(store, "the first", "correct horse", ["lead"])
        if name:
            accounts.create(store, name, "correct horse", roles)
            headers.append((b"cookie", f"{Auth(store).cookie}={accounts.sign_in(store, name, 'correct horse')}".encode()))
        return Request({"type": "http", "method": "POST", "path": "/", "headers": headers})

    return request


def judge(store, who, *, won="Zarquon-7B", lost="Vogsphere-9B", at=None, kind="human"):
    """One vote between two versions."""
    number = store.value("SELECT count(*) FROM prompts")
    prompts.add(store, [prompts.NewPrompt(({"role": "user", "content": f"Q{number}?"},), kind="k", split="train")], source="t")
    prompt_id = store.value("SELECT max(id) FROM prompts")
    ids = [
        completions.add(
            store, prompt_id=prompt_id, policy_version_id=policies.ensure_external(store, name).id, text=name, sampling=Sampling(),
            seed=0, finish_reason="stop", latency_s=0.1,
        )
        for name in (won, lost)
    ]  # fmt: skip
    comparison_id = comparisons.add(store, prompt_id, ids, purpose="versus")
    person = annotators.ensure(store, who, *(("simulated", "concise") if kind == "simulated" else ()))
    values = {"comparison_id": comparison_id, "annotator_id": person.id, "verdict": "rank", "tiers": [[ids[0]], [ids[1]]]}
    store.insert("judgments", values | {"created_at": at or now()})


def test_an_annotator_is_sent_nothing_about_policies(board_page, store, request_of):
    request = request_of("Ann", "annotator")
    judge(store, "Ann")
    judge(store, "rule", kind="simulated")
    shown = board_page.open(0, False, False, request)
    assert board_page.policies not in shown and board_page.simulated not in shown
    assert "Zarquon" not in str(shown) and "Vogsphere" not in str(shown)
    assert "Annotator 1 (you)" in shown[board_page.everyone]
    with pytest.raises(AccessRefused):
        board_page.include(True, False, request)


@pytest.mark.parametrize("role", ["lead", "researcher"])
def test_a_lead_and_a_researcher_see_the_standings(board_page, store, request_of, role):
    judge(store, "Bob")
    shown = board_page.open(0, False, False, request_of("Eve", role))
    assert "Zarquon-7B" in shown[board_page.policies]
    # Only annotators have the switch for their name.
    assert not shown[board_page.show_name].visible


def test_nobody_is_sent_anything(board_page, request_of):
    request_of("Ann", "annotator")
    for act in (
        lambda r: board_page.open(0, False, False, r),
        lambda r: board_page.include(False, False, r),
        lambda r: board_page.name(True, r),
    ):
        with pytest.raises(AccessRefused) as caught:
            act(request_of())
        assert caught.value.status == 401


def test_a_name_is_shown_once_its_owner_wants_that(board_page, store, request_of):
    ann, bob = request_of("Ann", "annotator"), request_of("Bob", "annotator")
    judge(store, "Ann")
    assert "Ann" not in board_page.open(0, False, False, bob)[board_page.everyone].replace("Annotator", "")
    board_page.name(True, ann)
    assert ">Ann<" in board_page.open(0, False, False, bob)[board_page.everyone]
    assert board_page.open(0, False, False, ann)[board_page.show_name].value is True
    board_page.name(False, ann)
    assert ">Ann<" not in board_page.open(0, False, False, bob)[board_page.everyone]


def test_only_an_annotator_may_show_their_name(board_page, store, request_of):
    lead = request_of("Lea", "lead")
    with pytest.raises(AccessRefused):
        board_page.name(True, lead)
    assert not annotators.ensure(store, "Lea").shows_name


def test_the_switch_is_there_where_a_rule_has_judged(board_page, store, request_of):
    judge(store, "Bob")
    assert not board_page.open(0, False, False, request_of())[board_page.simulated].visible
    judge(store, "rule", won="Vogsphere-9B", lost="Zarquon-7B", kind="simulated")
    assert board_page.open(0, False, False, request_of())[board_page.simulated].visible
    assert "<dd>1</dd>" in board_page.include(False, False, request_of()) and "<dd>2</dd>" in board_page.include(True, False, request_of())


def test_the_day_is_the_readers_own(board_page, store, request_of):
    """Judged a moment ago: today, or not, depends on whose clock counts; both of the farthest ones show it in their last two days."""
    judge(store, "local")
    for minutes in (14 * 60, -14 * 60, 10**9):
        assert ">1 day<" in board_page.open(minutes, False, False, request_of())[board_page.own]


def test_days_begin_at_the_midnight_of_the_clock(store, local):
    judge(store, "local", at="2026-11-22T16:30:00.000+00:00")
    judge(store, "local", at="2026-11-22T01:00:00.000+00:00")
    assert rankings.by_day(store, local.id) == {"2026-11-22": 2}
    # Seoul is nine hours ahead, New York five behind.
    assert rankings.by_day(store, local.id, minutes_east=540) == {"2026-11-23": 1, "2026-11-22": 1}
    assert rankings.by_day(store, local.id, minutes_east=-300) == {"2026-11-22": 1, "2026-11-21": 1}


def test_the_page_speaks_korean(board_page, store, request_of):
    judge(store, "local")
    shown = board_page.open(0, False, False, request_of(language="ko-KR"))
    assert "정책 버전" in shown[board_page.policies]
    assert "나의 진행 상황" in shown[board_page.own] and "평가자 1(나)" in shown[board_page.everyone]


def test_the_chart_includes_today(board_page, store, request_of):
    judge(store, "local", at=(datetime.now(UTC) - timedelta(days=200)).isoformat(timespec="milliseconds"))
    shown = board_page.open(0, False, False, request_of())[board_page.own]
    assert "<dd>0 days</dd>" in shown and "<dd>1</dd>" in shown and "height:" not in shown


def test_the_scores_are_shown_without_length_and_markup_where_a_lead_asks_for_it(board_page, store, request_of):
    judge(store, "Bob", won="Zarquon-7B-which-answers-at-length")
    assert "prefer in style" not in board_page.include(False, False, request_of())
    shown = board_page.include(False, True, request_of())
    assert "prefer in style" in shown and "An answer twice as long is preferred in" in shown
    assert "No two compared answers differ in headers." in shown
    assert board_page.open(0, False, True, request_of())[board_page.policies] == shown
