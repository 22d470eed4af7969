"""Rounds that begin by themselves: real rows, and a clock that the tests set."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from round_play import BASE, Rounds

from rlhf.cli import rounds_report
from rlhf.config import PRESETS, ConfigError, with_options
from rlhf.runs import triggers
from rlhf.runs.jobs import Jobs
from rlhf.runs.triggers import RoundStarter
from storage.core.data_folder import DataFolder
from storage.core.database import StoreError
from storage.core.records import ProjectSettings
from storage.project import queued_rounds, rounds, runs, settings

START = datetime.now(UTC).replace(second=0, microsecond=0)
"""The rows of votes have the machine's time, and the clock of these tests goes on from it."""


class Clock:
    def __init__(self):
        self.now = datetime.now(UTC)

    def passes(self, **time):
        self.now += timedelta(**time)

    def at(self, day, hour):
        """That hour of the day, so many days from now."""
        self.now = (START + timedelta(days=day)).replace(hour=hour, minute=0)


class Workerless(Jobs):
    """Starts no workers: the tests write what a worker would write."""

    def __init__(self, store):
        super().__init__(store, DataFolder(store.path.parent))
        self.workers = []

    def spawn(self, run_id, reward=None):
        self.workers.append(run_id)
        assert runs.claim(self.store, run_id, 0)


class Play(Rounds):
    """People who judge, triggers that fire, and rounds that end."""

    def __init__(self, store):
        super().__init__(store)
        self.clock = Clock()
        self.jobs = Workerless(store)
        self.starter = RoundStarter(self.jobs)

    def judge(self, count=1):
        for _ in range(count):
            self.rank(self.ann, self.comparison(self.base, self.base, purpose="collect"), self.base)

    def set(self, **chosen):
        triggers.choose(self.store, None, chosen={"preset": "tiny", "model": BASE, "min-pairs": 1} | chosen.pop("options", {}), **chosen)

    def look(self):
        self.starter.look(self.clock.now)

    def state(self):
        return triggers.state(self.store, self.clock.now)

    def queue(self):
        """What became of each round that was asked for, with who asked."""
        return [(row["trigger"], row["state"]) for row in self.store.rows("SELECT * FROM queued_rounds ORDER BY id")]

    def reasons(self):
        return [row["reason"] for row in self.store.rows("SELECT reason FROM queued_rounds ORDER BY id")]

    def end(self, status="failed"):
        runs.finish(self.store, self.jobs.workers[-1], status)


@pytest.fixture
def play(store, monkeypatch):
    # Votes of this play are ties or of held-out prompts, of which a round could not learn: what a round needs is tested in test_jobs.
    monkeypatch.setattr("rlhf.runs.jobs.require_material", lambda store, config: None)
    return Play(store)


# What is set.


def test_without_triggers_nothing_begins(play):
    play.judge(5)
    play.look()
    assert not play.state().on and play.queue() == []


def test_options_are_kept_as_a_preset_and_what_differs_from_it():
    config = with_options(PRESETS["tiny"], {"model": BASE, "ppo-steps": 7, "seed": 0})
    chosen = triggers.options_of("tiny", config)
    assert chosen == {"preset": "tiny", "model": BASE, "ppo-steps": 7}
    assert triggers.config_of(chosen) == config and triggers.config_of({}) == PRESETS["laptop"]


@pytest.mark.parametrize(
    "chosen", [{"preset": "huge"}, {"banana": 1}, {"ppo-steps": 0}, {"ppo-steps": "many"}, {"reward-function": "os:system"}]
)
def test_options_that_no_round_has_are_refused_and_nothing_changes(play, chosen):
    with pytest.raises(ConfigError):
        triggers.choose(play.store, None, after=5, chosen=chosen)
    assert settings.current(play.store) == ProjectSettings()


@pytest.mark.parametrize("change, why", [({"after": -1}, "0 to 1000000, not -1"), ({"expression": "0 25 * * *"}, "bad hour")])
def test_values_out_of_range_are_refused_and_nothing_changes(play, change, why):
    with pytest.raises(StoreError, match=why):
        triggers.choose(play.store, None, **change)
    assert settings.current(play.store) == ProjectSettings()


def test_one_trigger_is_changed_without_the_other(play):
    triggers.choose(play.store, play.ann.id, after=5, expression=" 0  3 * * * ")
    triggers.choose(play.store, play.bob.id, after=0)
    triggers.choose(play.store, play.bob.id, after=0)
    saved = settings.current(play.store)
    assert (saved.retrain_after_judgments, saved.retrain_schedule) == (0, "0 3 * * *")
    assert [row["by_id"] for row in play.store.rows("SELECT by_id FROM settings ORDER BY id")] == [play.ann.id, play.bob.id]


# After new judgments.


def test_a_round_begins_once_enough_judgments_are_new(play):
    play.set(after=3)
    play.judge(2)
    play.look()
    assert (play.state().counted, play.state().due, play.queue()) == (2, (), [])
    play.judge()
    play.look()
    assert play.queue() == [("judgments", "started")]
    (found,) = rounds.all_rounds(play.store)
    assert (found.trigger, found.judges, found.by_id) == ("judgments", "people", None)
    config = runs.get(play.store, found.run_id).config
    assert (config["model"], config["ppo"]["steps"]) == (BASE, PRESETS["tiny"].ppo.steps)


def test_the_next_round_begins_when_as_many_are_new_again(play):
    play.set(after=2)
    play.judge(2)
    play.look()
    play.judge(2)
    assert play.state().hold.reason == "training"
    play.look()
    assert len(play.queue()) == 1
    play.end()
    play.look()
    assert play.queue() == [("judgments", "started")] * 2
    play.end()
    play.look()
    assert len(play.queue()) == 2, "none is new since"


def test_votes_that_decide_about_a_version_are_not_new(play):
    play.set(after=2)
    play.deciding(play.round("r1"), "wwwl")
    assert play.state().new == 0


def test_a_trigger_that_cannot_begin_a_round_says_so_once_and_tries_again_after_as_many_judgments(play, monkeypatch):
    from rlhf.data.pairs import NotEnoughPairs

    def too_few(store, config):
        raise NotEnoughPairs("3 preference pairs, need 20", found=3, needed=20)

    with monkeypatch.context() as patch:
        patch.setattr("rlhf.runs.jobs.require_material", too_few)
        play.set(after=3)
        play.judge(3)
        for _ in range(3):
            play.look()
            play.clock.passes(hours=1)
        assert play.reasons() == ["3 preference pairs, need 20"]
        play.judge(2)
        play.look()
        assert len(play.queue()) == 1 and (play.state().new, play.state().counted) == (5, 2)
    play.judge()
    play.look()
    assert play.queue() == [("judgments", "not started"), ("judgments", "started")]


def test_other_options_are_tried_at_once(play, monkeypatch):
    from rlhf.data.pairs import NotEnoughPairs

    def need(store, config):
        if config.reward.min_pairs > 3:
            raise NotEnoughPairs("too few", found=3, needed=config.reward.min_pairs)

    monkeypatch.setattr("rlhf.runs.jobs.require_material", need)
    play.set(after=3, options={"min-pairs": 20})
    play.judge(3)
    play.look()
    assert play.queue() == [("judgments", "not started")]
    play.set(after=3, options={"min-pairs": 3})
    play.look()
    assert play.queue()[1:] == [("judgments", "started")]


def test_a_round_that_is_taken_out_of_the_queue_does_not_come_back_at_once(play):
    play.set(after=2)
    play.judge(2)
    asked = queued_rounds.add(play.store, {}, trigger="judgments")
    queued_rounds.take_out(play.store, asked.id)
    play.look()
    assert play.queue() == [("judgments", "taken out")]
    play.judge(2)
    play.look()
    assert play.queue()[1:] == [("judgments", "started")]


def test_options_that_another_version_saved_are_a_reason(play):
    settings.change(play.store, replace(ProjectSettings(), retrain_after_judgments=1, retrain_options={"preset": "gone"}), by=None)
    play.judge()
    play.look()
    play.look()
    (reason,) = play.reasons()
    assert "name the preset 'gone', which there is not" in reason


# On a schedule.


def test_a_round_begins_when_a_time_of_the_schedule_comes(play):
    play.set(expression="0 3 * * *")
    play.judge()
    play.look()
    assert play.queue() == [] and play.state().next_due > play.clock.now
    play.clock.at(2, 2)
    play.clock.now = play.state().next_due - timedelta(seconds=1)
    play.look()
    assert play.queue() == []
    play.clock.passes(seconds=1)
    play.look()
    assert play.queue() == [("schedule", "started")] and rounds.all_rounds(play.store)[0].trigger == "schedule"
    assert play.state().next_due == play.clock.now + timedelta(days=1)


def test_a_machine_that_slept_catches_up_once(play):
    play.set(expression="0 * * * *")
    play.judge()
    play.look()
    play.clock.at(9, 12)
    play.clock.passes(minutes=20)
    play.look()
    assert play.queue() == [("schedule", "started")]
    play.end()
    play.judge()
    play.look()
    assert len(play.queue()) == 1 and play.state().next_due == play.clock.now + timedelta(minutes=40)
    play.clock.passes(minutes=40)
    play.look()
    assert play.queue() == [("schedule", "started")] * 2


def test_a_time_without_new_judgments_passes_with_its_reason_once(play):
    play.set(expression="0 3 * * *")
    play.look()
    play.clock.at(2, 4)
    for _ in range(3):
        play.look()
    assert play.queue() == [("schedule", "not started")] and play.reasons() == ["no judgment is new"]
    play.judge()
    play.look()
    assert len(play.queue()) == 1, "the next time is tomorrow's"
    play.clock.at(3, 4)
    play.look()
    play.end()
    play.clock.at(4, 4)
    play.look()
    assert play.queue()[1:] == [("schedule", "started"), ("schedule", "not started")]
    assert play.reasons()[2] == "no judgment is new since the newest round began"


def test_times_before_the_schedule_was_set_do_not_count_and_other_settings_leave_it_alone(play):
    play.set(expression="0 3 * * *")
    first = play.state().next_due
    settings.change(play.store, replace(settings.current(play.store), overlap=2), by=None)
    assert play.state().next_due == first > datetime.now(UTC)


def test_both_triggers_at_once_begin_one_round(play):
    play.set(after=1, expression="0 3 * * *")
    play.clock.at(2, 4)
    play.judge()
    play.look()
    play.end()
    play.look()
    assert play.queue() == [("judgments", "started")]


# What holds a trigger.


def test_a_trigger_is_held_while_a_version_is_not_decided_about_and_then_fires_once(play):
    play.set(expression="0 3 * * *")
    found = play.round("r1")
    play.judge()
    for day in (2, 3):
        play.clock.at(day, 4)
        play.look()
    state = play.state()
    assert (play.queue(), state.due, state.hold.reason, state.hold.subject) == ([], ("schedule",), "undecided", str(found.id))
    assert f"no: round {found.id} is not decided" in rounds_report.triggers(state, {})
    rounds.decide(play.store, found.version, "rejected", decided_by="person", reason="It rambles.")
    play.look()
    assert play.queue() == [("schedule", "started")]


def test_a_trigger_is_held_while_a_round_waits_in_the_queue(play):
    play.set(after=1)
    play.judge()
    first, second = (play.jobs.start(with_options(PRESETS["tiny"], {"model": BASE})) for _ in range(2))
    assert play.state().hold == triggers.Hold("training", first.id)
    play.end()
    assert play.state().hold == triggers.Hold("queued", str(second.id))
    play.look()
    assert [trigger for trigger, _ in play.queue()] == ["hand", "hand"]


# What a look costs.


def test_while_nothing_changes_the_triggers_are_not_looked_at(play, monkeypatch):
    play.set(after=5, expression="0 3 * * *")
    play.judge()
    looks, state = [], triggers.state
    monkeypatch.setattr(triggers, "state", lambda store, now: (looks.append(now), state(store, now))[1])
    for _ in range(4):
        play.look()
    assert len(looks) == 1
    play.judge()
    play.look()
    assert len(looks) == 2
    play.clock.at(2, 4)
    play.look()
    assert len(looks) > 2


def test_in_words(play):
    play.set(after=50, expression="0 3 * * *")
    play.judge(2)
    text = rounds_report.triggers(play.state(), {"preset": "tiny", "min-pairs": 4})
    for part in ("2 of 50", "0 3 * * * (UTC), next 20", "preset tiny, min-pairs 4", "not now: nothing is due"):
        assert part in text
    assert "by hand alone" in rounds_report.triggers(triggers.Triggers(0, "", 0, 0, None, (), None, None), {})
    play.clock.at(2, 4)
    assert "now, by schedule" in rounds_report.triggers(play.state(), {})
    play.look()
    assert f"by schedule, run {play.jobs.workers[0]}" in rounds_report.triggers(play.state(), {})
