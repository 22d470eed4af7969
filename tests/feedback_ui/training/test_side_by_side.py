"""The view of runs side by side, called as Gradio calls it."""

import json

import pytest
from called_pages import ENGLISH, asking

from rlhf.config import PPOConfig, RoundConfig
from storage.project import runs


@pytest.fixture
def view(training):
    return training.side_by_side


@pytest.fixture
def three(store):
    for number, run_id in enumerate(("r1", "r2", "r3")):
        runs.create(store, run_id, config=RoundConfig(seed=number, ppo=PPOConfig(steps=10 + number)).to_dict(), seed=number, versions={})
        for step in range(3):
            runs.log_metrics(store, run_id, step, {"objective/kl": step + number, "objective/scores": 0.5 * step})
        runs.finish(store, run_id, "done", result={"kl": 1.0 + number})
    runs.describe(store, "r2", name="<b>Twice</b>")


def test_the_runs_of_the_address_are_laid_over_each_other(view, three):
    shown = view.open("r1~r3~r2", ENGLISH)
    assert shown[view.picker].value == ["r1", "r3", "r2"]
    kl = shown[view.plots["objective/kl"]]
    assert kl.visible and [trace["name"] for trace in lines(kl)] == ["r1", "r3", "&lt;b&gt;Twice&lt;/b&gt;"]
    assert lines(kl)[1]["y"] == [2, 3, 4] and layout(kl)["showlegend"] is True
    assert len({(trace["line"]["color"], trace["line"]["dash"], trace["marker"]["symbol"]) for trace in lines(kl)}) == 3
    # √KL over 0, 1, 2 and the score of each step.
    assert lines(shown[view.score_over_kl])[0]["x"] == pytest.approx([0, 1, 2**0.5])
    assert shown[view.plots["sft/loss"]].visible is False and shown[view.curves].visible
    assert "PPO steps" in shown[view.options] and "3.00 nats" in shown[view.figures]


def lines(update):
    return figure(update)["data"]


def layout(update):
    return figure(update)["layout"]


def figure(update):
    return json.loads(update.value["plot"])


def test_a_run_that_was_chosen_keeps_its_line_in_every_chart(view, three, store):
    runs.log_metrics(store, "r3", 1, {"reward/loss": 0.6})
    (line,) = lines(view.pick(["r1", "r3"], ENGLISH)[view.plots["reward/loss"]])
    assert (line["name"], line["line"]["color"]) == ("r3", "#d55e00")


def test_fewer_than_two_runs_say_what_to_do(view, store):
    assert "Fewer than 2 runs" in view.open("", ENGLISH)[view.figures]
    for run_id in ("r1", "r2"):
        runs.create(store, run_id, config={}, seed=0, versions={})
    shown = view.open("r1", ENGLISH)
    assert "Choose 2 to 4 runs" in shown[view.figures] and shown[view.curves].visible is False and shown[view.options] == ""
    assert shown[view.picker].value == ["r1"]
    assert "런을 2~4개" in view.pick(None, asking("ko"))[view.figures]


def test_what_is_not_shown_is_named(view, store, three):
    runs.create(store, "r4", config={}, seed=0, versions={})
    runs.create(store, "r5", config={}, seed=0, versions={})
    shown = view.open("r1~r2~none~r3~r4~r5", ENGLISH)
    assert shown[view.picker].value == ["r1", "r2", "r3", "r4"]
    assert "no such run here: none" in shown[view.message] and "r5" in shown[view.message]


def test_a_run_whose_row_cannot_be_read_is_named_and_the_others_are_shown(view, store, three):
    with store.atomic() as connection:
        connection.conn.execute("UPDATE runs SET config = '{', result = '[1' WHERE id = 'r1'")
    shown = view.open("r1~r2", ENGLISH)
    assert "options of r1 are left out" in shown[view.message] and "2.00 nats" in shown[view.figures]


def test_a_chosen_run_that_trains_is_followed_until_it_ends(view, three, store):
    runs.create(store, "r4", config=RoundConfig().to_dict(), seed=0, versions={})
    runs.mark_started(store, "r4", 1)
    shown = view.open("r1~r4", ENGLISH)
    assert shown[view.timer].active and not view.open("r1~r2", ENGLISH)[view.timer].active
    chosen, revision = ["r1", "r4"], shown[view.revision]
    assert [*view.follow(chosen, revision, ENGLISH)] == [view.timer], "nothing is drawn again"
    for step in range(2):
        runs.log_metrics(store, "r4", step, {"objective/kl": 7.0})
    again = view.follow(chosen, revision, ENGLISH)
    assert [trace["name"] for trace in lines(again[view.plots["objective/kl"]])] == ["r1", "r4"]
    runs.finish(store, "r4", "failed", error="x")
    assert view.follow(chosen, again[view.revision], ENGLISH)[view.timer].active is False
    assert view.follow(None, "", ENGLISH)[view.timer].active is False
