"""What a round would do if it began now, and that asking starts nothing."""

from dataclasses import replace

import pytest
from round_play import BASE, Rounds

from rlhf.cli import rounds_report
from rlhf.config import PRESETS, RoundConfig, with_options
from rlhf.runs import dry_run
from rlhf.runs.dry_run import DryRun
from rlhf.runs.jobs import Jobs, RoundError
from rlhf.runs.results import RoundResult
from storage.core.data_folder import DataFolder
from storage.project import rounds, runs


def config(**chosen) -> RoundConfig:
    return with_options(PRESETS["laptop"], {"model": BASE} | {name.replace("_", "-"): value for name, value in chosen.items()})


@pytest.fixture
def play(store):
    """Three judgments of Ann on held-out prompts."""
    play = Rounds(store)
    for _ in range(3):
        play.rank(play.ann, play.comparison(play.base, play.base, purpose="collect"), play.base)
    return play


def test_too_few_pairs_are_named_and_nothing_is_written(play):
    would = dry_run.of(play.store, config(min_pairs=7))
    assert (would.hindrance or "").startswith("0 teach · 0 measure: a round needs 7 preference pairs that teach"), "ties give no pair"
    assert (would.new_judgments, would.last_round, would.compared, would.minutes) == (3, None, None, None)
    assert runs.all_runs(play.store) == [] and rounds.all_rounds(play.store) == []


def test_judgments_since_the_newest_round_are_new_and_deciding_ones_are_not(play):
    found = play.round("r1")
    play.deciding(found, "wwl")
    assert dry_run.of(play.store, config()).new_judgments == 0
    play.rank(play.bob, play.comparison(play.base, play.base, purpose="collect"), None)
    would = dry_run.of(play.store, config())
    assert (would.new_judgments, would.last_round, would.compared) == (1, found.id, "v-r1")


def test_simulated_judgments_count_where_the_round_would_learn_from_them(play):
    play.rule_ranks(play.comparison(play.base, play.base, purpose="collect"), play.base)
    assert [dry_run.of(play.store, config(include_simulated=on)).new_judgments for on in (False, True)] == [3, 4]


def test_the_time_is_estimated_from_the_newest_run_of_the_same_model_and_method(play):
    def ended(name, minutes, **chosen):
        runs.create(play.store, name, config=config(**chosen).to_dict(), seed=0, versions={})
        runs.finish(play.store, name, "done", result=RoundResult(minutes=minutes).to_json())

    ended("r1", 6.0)
    ended("r2", 1.0, method="rloo")
    assert dry_run.of(play.store, config()).minutes == pytest.approx(6.0, rel=0.01)
    twice = dry_run.of(play.store, config(ppo_steps=2 * config().ppo.steps)).minutes
    assert 10 < twice <= 12, "almost all the work is that of PPO"
    assert dry_run.of(play.store, config(method="dpo")).minutes is None and dry_run.of(play.store, config(method="sft")).minutes is None


def test_an_answer_is_as_starting_would_be(judged):
    jobs = Jobs(judged.store, DataFolder(judged.store.path.parent))
    would = dry_run.of(judged.store, judged.config())
    assert (would.hindrance, would.train, would.heldout, would.new_judgments) == (None, 6, 3, 9)
    run = jobs.create(judged.config())
    would = dry_run.of(judged.store, judged.config())
    assert (would.hindrance, would.active, would.waiting) == (None, run.id, 0), "it would wait in the queue"
    jobs.start(judged.config())
    assert dry_run.of(judged.store, judged.config()).waiting == 1
    would = dry_run.of(judged.store, replace(judged.config(), reward_function="a:b"))
    assert would.hindrance == f"{run.id} is queued: wait for it, or cancel it first.", "no other process could begin it"
    with pytest.raises(RoundError, match=f"{run.id} is queued"):
        jobs.create(judged.config())


def test_in_words():
    would = DryRun(None, None, 0, 476, 89, 40, 3, "v3", 6.12)
    text = rounds_report.dry_run(would)
    for part in (
        "yes; nothing was started",
        "476 teach · 89 measure",
        "40 since round 3 began",
        "6.1 min",
        "v3 is compared now",
    ):
        assert part in text
    assert "interval of the held-out accuracy" not in text
    assert "7 measure: with fewer than 20" in rounds_report.dry_run(DryRun(None, None, 0, 476, 7, 40, 3, None, None))
    assert "no: Too few." in rounds_report.dry_run(DryRun("Too few.", None, 0, 0, 0, 0, None, None, None))
    behind = rounds_report.dry_run(DryRun(None, "r1", 2, 0, 0, 0, None, None, None))
    assert "yes, once the rounds before it have ended (r1, 2 in the queue); nothing was started" in behind
