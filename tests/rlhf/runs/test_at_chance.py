"""A reward model that a coin could replace: who is asked, what stops, and that a person may go on."""

import subprocess

import pytest
from rounds import run

from rlhf.config import RewardConfig, RoundConfig
from rlhf.runs import at_chance
from rlhf.runs.at_chance import StoppedAtChance
from rlhf.runs.results import Estimate
from rlhf.worker import work
from storage.core.records import Round
from storage.project import rounds, runs

COIN = Estimate(0.52, 0.41, 0.63, 80)


def test_the_figure_is_named_with_its_interval():
    assert at_chance.in_words(COIN) == (
        "the reward model orders 52% (41 to 63%) of 80 held-out pairs as annotators did, which a coin would do too"
    )
    assert at_chance.in_words(Estimate(0.3, 0.2, 0.4, 80)).endswith("which is worse than a coin")


@pytest.mark.parametrize(
    ("accuracy", "expected"), [(None, False), (COIN, True), (Estimate(0.3, 0.2, 0.4, 80), True), (Estimate(0.7, 0.51, 0.8, 80), False)]
)
def test_only_a_known_accuracy_can_be_at_chance(accuracy, expected):
    assert at_chance.is_at_chance(accuracy) is expected


@pytest.mark.parametrize(
    ("method", "function", "expected"),
    [("ppo", None, True), ("grpo", None, True), ("dpo", None, False), ("sft", None, False), ("ppo", "m:f", False)],
)
def test_it_matters_where_a_policy_learns_from_the_scores(method, function, expected):
    assert at_chance.matters(RoundConfig(method=method, reward_function=function)) is expected
    assert not at_chance.matters(RoundConfig(reward=RewardConfig(model_path="outside"))), "scores from elsewhere are in it too"


def started(trigger, by):
    return Round(1, "r", trigger, "people", None, None, by, "2026-01-01", "running", None, None)


@pytest.mark.parametrize(
    ("option", "trigger", "by", "expected"),
    [
        ("auto", "hand", 3, "ask"),
        ("auto", "hand", None, "continue"),
        ("auto", "loop", None, "continue"),
        ("auto", "judgments", 3, "stop"),
        ("auto", "schedule", None, "stop"),
        ("continue", "schedule", None, "continue"),
        ("ask", "hand", None, "ask"),
        ("stop", "hand", 3, "stop"),
    ],
)
def test_who_started_the_round_says_what_it_does(option, trigger, by, expected):
    assert at_chance.act(option, started(trigger, by)) == expected


def test_a_round_of_a_person_stops_before_its_policy_and_goes_on_when_told_to(judged, jobs, monkeypatch):
    """The tiny model's interval over 3 held-out pairs holds 50%, whatever it answers."""
    run_id = jobs.create(judged.config(), by=1).id
    with pytest.raises(StoppedAtChance):
        run(jobs, run_id)
    stopped = runs.get(judged.store, run_id)
    assert stopped.status == "cancelled" and stopped.result["stopped_at_chance"] is True
    assert "of 3 held-out pairs as annotators did, which a coin would do too" in stopped.error
    assert not any(m.name.startswith("objective/") for m in runs.metrics(judged.store, run_id)), "no step was taken"

    commands = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: commands.append(command) or type("P", (), {})())
    jobs.resume(run_id, go_on=True)
    assert commands[0][-2:] == ["--at-chance", "continue"]
    work(jobs.store, jobs.folder, run_id, at_chance="continue")
    assert runs.get(judged.store, run_id).status == "done"


def test_a_trigger_stops_with_the_reason_and_the_command_line_warns_and_goes_on(judged, jobs, caplog):
    stopped = jobs.create(judged.config(), trigger="judgments").id
    with pytest.raises(StoppedAtChance):
        run(jobs, stopped)
    assert "which a coin would do too" in runs.get(judged.store, stopped).error
    assert rounds.of_run(judged.store, stopped).version is None
    by_hand = jobs.create(judged.config()).id
    assert run(jobs, by_hand).status == "done"
    assert "the policy is trained all the same, though the reward model orders" in caplog.text
