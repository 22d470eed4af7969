"""The Leaderboard page: which roles are sent which parts, and how numbers are shown."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import argon2
import gradio as gr
import pytest
from starlette.requests import Request

from feedback_ui.leaderboard import leaderboard_view
from feedback_ui.leaderboard.leaderboard_view import everyone, own, streak
from feedback_ui.leaderboard.page import LeaderboardPage
from feedback_ui.server.auth import Auth, Refused
from feedback_ui.shared.i18n import Translator
from rlhf.analysis.leaderboard import Figure, Leaderboard, Standing
from storage.analytics import rankings
from storage.content import comparisons, completions, policies, prompts
from storage.core.database import now
from storage.core.records import Annotator, Sampling
from storage.people import accounts, annotators

EN, KO = Translator("en"), Translator("ko")

TODAY = date(2026, 11, 23)


@pytest.fixture
def board_page(build, store):
    def made():
        with gr.Blocks():
            return LeaderboardPage(store, Auth(store))

    return build(made)


@pytest.fixture
def asked(store, monkeypatch):
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
    said = {"comparison_id": comparison_id, "annotator_id": person.id, "verdict": "rank", "tiers": [[ids[0]], [ids[1]]]}
    store.insert("judgments", said | {"created_at": at or now()})


# ---- access


def test_an_annotator_is_sent_nothing_about_policies(board_page, store, asked):
    request = asked("Ann", "annotator")
    judge(store, "Ann")
    judge(store, "rule", kind="simulated")
    shown = board_page.open(0, False, request)
    assert board_page.policies not in shown and board_page.simulated not in shown
    assert "Zarquon" not in str(shown) and "Vogsphere" not in str(shown)
    assert "Annotator 1 (you)" in shown[board_page.everyone]
    with pytest.raises(Refused):
        board_page.include(True, request)


@pytest.mark.parametrize("role", ["lead", "researcher"])
def test_a_lead_and_a_researcher_see_the_standings(board_page, store, asked, role):
    judge(store, "Bob")
    shown = board_page.open(0, False, asked("Eve", role))
    assert "Zarquon-7B" in shown[board_page.policies]
    # Only annotators have the switch for their name.
    assert not shown[board_page.show_name].visible


def test_nobody_is_sent_anything(board_page, asked):
    asked("Ann", "annotator")
    for act in (lambda r: board_page.open(0, False, r), lambda r: board_page.include(False, r), lambda r: board_page.name(True, r)):
        with pytest.raises(Refused) as caught:
            act(asked())
        assert caught.value.status == 401


def test_a_name_is_shown_once_its_owner_wants_that(board_page, store, asked):
    ann, bob = asked("Ann", "annotator"), asked("Bob", "annotator")
    judge(store, "Ann")
    assert "Ann" not in board_page.open(0, False, bob)[board_page.everyone].replace("Annotator", "")
    board_page.name(True, ann)
    assert ">Ann<" in board_page.open(0, False, bob)[board_page.everyone]
    assert board_page.open(0, False, ann)[board_page.show_name].value is True
    board_page.name(False, ann)
    assert ">Ann<" not in board_page.open(0, False, bob)[board_page.everyone]


def test_only_an_annotator_may_put_a_name_there(board_page, store, asked):
    lead = asked("Lea", "lead")
    with pytest.raises(Refused):
        board_page.name(True, lead)
    assert not annotators.ensure(store, "Lea").shows_name


def test_the_switch_is_there_where_a_rule_has_judged(board_page, store, asked):
    judge(store, "Bob")
    assert not board_page.open(0, False, asked())[board_page.simulated].visible
    judge(store, "rule", won="Vogsphere-9B", lost="Zarquon-7B", kind="simulated")
    assert board_page.open(0, False, asked())[board_page.simulated].visible
    assert "<dd>1</dd>" in board_page.include(False, asked()) and "<dd>2</dd>" in board_page.include(True, asked())


def test_the_day_is_the_readers_own(board_page, store, asked):
    """Judged a moment ago: today, or not, depends on whose clock counts; both of the farthest ones show it in their last two days."""
    judge(store, "local")
    for minutes in (14 * 60, -14 * 60, 10**9):
        assert ">1 day<" in board_page.open(minutes, False, asked())[board_page.own]


def test_days_begin_at_the_midnight_of_the_clock(store, local):
    judge(store, "local", at="2026-11-22T16:30:00.000+00:00")
    judge(store, "local", at="2026-11-22T01:00:00.000+00:00")
    assert rankings.by_day(store, local.id) == {"2026-11-22": 2}
    # Seoul is nine hours ahead, New York five behind.
    assert rankings.by_day(store, local.id, minutes_east=540) == {"2026-11-23": 1, "2026-11-22": 1}
    assert rankings.by_day(store, local.id, minutes_east=-300) == {"2026-11-22": 1, "2026-11-21": 1}


# ---- standings


def standing(name, score, low=None, high=None, *, group=0, rank=1, over=None, **figures):
    return Standing(1, name, "tuned", group, rank, Figure(score, low, high), over, figures.get("votes", 30), 20, 4, 6)


def board(*standings, references=("base",), **changes):
    shares = tuple(tuple(None if i == j else 0.5 for j in range(len(standings))) for i in range(len(standings)))
    met = tuple(tuple(0 if i == j else 30 for j in range(len(standings))) for i in range(len(standings)))
    made = Leaderboard(False, 30, 30, 25, "newman", references, False, standings, shares, met)
    return replace(made, **changes)


BASE = standing("base", 1000.0, 1000.0, 1000.0, rank=2)


def test_an_interval_is_coloured_where_it_lies_on_one_side():
    shown = [
        leaderboard_view.policies(EN, board(standing("x", value, low, high), BASE), with_switch=False)
        for value, low, high in ((1100.0, 1050.0, 1150.0), (1020.0, 980.0, 1060.0), (900.0, 850.0, 950.0), (1100.0, None, None))
    ]
    assert ["rl-above" in s for s in shown] == [True, False, False, False]
    assert ["rl-below" in s for s in shown] == [False, False, True, False]


def test_the_interval_is_said_in_words_too():
    shown = leaderboard_view.policies(
        EN, board(standing("x", 1100.0, 1050.0, 1150.0, over=Figure(0.64, 0.57, 0.70)), BASE), with_switch=False
    )
    assert "1,050 to 1,150" in shown and "64%" in shown and "57%–70%" in shown and "20 · 4 · 6" in shown


def test_a_score_stands_where_the_scale_has_it():
    scale = leaderboard_view.Scale(900.0, 1100.0)
    # 6% of 200 points to each side: 888 to 1112.
    assert (scale.at(888.0), scale.at(1000.0), scale.at(1112.0)) == (pytest.approx(0), pytest.approx(50), pytest.approx(100))
    assert 'class="rl-reference-line" style="left:50.0%"' in scale.picture(standing("x", 1050.0))
    assert ">900<" in scale.marks() and ">1,000<" in scale.marks()
    assert 2 <= scale.marks().count("<i") <= 5


def test_the_scale_reaches_every_interval():
    rows = [standing("x", 2400.0, 1900.0, 3300.0), standing("y", 400.0, 100.0, 700.0)]
    scale = leaderboard_view.Scale.around(rows)
    assert all(0 < scale.at(end) < 100 for end in (100.0, 1000.0, 3300.0))


def test_a_name_stays_text():
    shown = leaderboard_view.policies(EN, board(standing("<b>x</b>", 1100.0), BASE, standing("z", 900.0)), with_switch=False)
    assert "<b>x" not in shown and "&lt;b&gt;x" in shown


def test_groups_that_have_not_met_are_said_to_be_apart():
    shown = leaderboard_view.policies(
        EN, board(standing("x", 1100.0), BASE, standing("p", 1010.0, group=1), references=("base", None)), with_switch=False
    )
    assert "2 groups that have not met" in shown and "Group 2" in shown


def test_pairs_are_told_where_they_are_not_the_votes():
    assert "pairs</dt>" not in leaderboard_view.policies(EN, board(BASE), with_switch=False)
    assert "pairs</dt>" in leaderboard_view.policies(EN, board(BASE, pairs=90), with_switch=False)


@pytest.mark.parametrize(
    ("included", "with_switch", "said"),
    [(False, False, "on the Lead page"), (False, True, "count the simulated"), (True, True, "on the Lead page")],
)
def test_an_empty_board_says_what_to_do(included, with_switch, said):
    assert said in leaderboard_view.policies(EN, board(include_simulated=included, references=()), with_switch=with_switch)


def test_what_the_scores_rest_on_can_be_read():
    said = leaderboard_view.policies(EN, board(standing("x", 1100.0), BASE, smoothed=True, method="bradley_terry"), with_switch=False)
    assert "half a win each way" in said and "fewer than 10 prompts" not in said
    assert "fewer than 10 prompts" in leaderboard_view.policies(EN, board(standing("x", 1100.0)), with_switch=False)


# ---- the visitor and the annotators


def test_a_streak_by_hand():
    days = {(TODAY - timedelta(days=ago)).isoformat(): 1 for ago in (0, 1, 2, 4)}
    assert streak(days, TODAY) == 3
    # A day that has just begun does not break the streak; a whole day without a judgment does.
    assert streak(days, TODAY + timedelta(days=1)) == 3
    assert streak(days, TODAY + timedelta(days=2)) == 0
    assert streak({}, TODAY) == 0


def test_own_progress_counts_today_and_draws_thirty_days():
    shown = own(EN, {"2026-11-23": 4, "2026-11-22": 8, "2026-10-25": 2, "2026-10-24": 50}, 64, TODAY)
    assert all(part in shown for part in ("<dd>4</dd>", "<dd>64</dd>", "<dd>2 days</dd>"))
    assert shown.count("<li") == 30 and "25 Oct: 2" in shown and "24 Oct" not in shown
    assert 'style="height:100%"' in shown and 'style="height:50%"' in shown


def test_before_the_first_judgment_the_page_says_where_to_begin():
    assert "Compare page" in own(EN, {}, 0, TODAY) and "‘비교’ 페이지" in own(KO, {}, 0, TODAY)


def test_everybody_is_listed_most_judgments_first_and_rules_are_not():
    people = [
        Annotator(1, "Ann", "human", None, "p1", False, 5), Annotator(2, "Bob <i>", "human", None, "p2", True, 10),
        Annotator(3, "idle", "human", None, "p3", True, 0), Annotator(4, "rule", "simulated", "length", "p4", True, 99),
    ]  # fmt: skip
    shown = everyone(EN, people, 1)
    assert shown.index("Bob &lt;i&gt;") < shown.index("Annotator 2 (you)")
    assert "idle" not in shown and "rule" not in shown and "width:50.0%" in shown
    assert "Nobody has judged" in everyone(EN, people[2:], 1)


def test_the_page_speaks_korean(board_page, store, asked):
    judge(store, "local")
    shown = board_page.open(0, False, asked(language="ko-KR"))
    assert "정책 버전" in shown[board_page.policies]
    assert "나의 진행 상황" in shown[board_page.own] and "평가자 1(나)" in shown[board_page.everyone]


def test_now_is_a_day_that_the_picture_reaches(board_page, store, asked):
    judge(store, "local", at=(datetime.now(UTC) - timedelta(days=200)).isoformat(timespec="milliseconds"))
    shown = board_page.open(0, False, asked())[board_page.own]
    assert "<dd>0 days</dd>" in shown and "<dd>1</dd>" in shown and "height:" not in shown
