from datetime import date, timedelta

from storage.analytics.stats import DayOfJudging, Pace, judgments_by_day, pace, stats
from storage.exchange import imports
from storage.judging import judgments
from storage.project import runs


def test_an_empty_store_counts_nothing(store):
    assert stats(store) == {
        "prompts": 0,
        "prompts_in_use": 0,
        "unused_starter_votes": 0,
        "completions": 0,
        "comparisons": 0,
        "judgments": {"human": 0, "simulated": 0},
        "demo_votes": 0,
        "labels_not_used_in_training": {"good": 0, "bad": 0},
        "annotators": {"human": 0, "simulated": 0},
        "runs": {},
        "policy_versions": 0,
        "queue_depth": 0,
    }


def test_counts_active_rows(world):
    one, *_ = world.comparisons(4)
    world.rank(world.ann)
    world.skip(world.ann)
    world.rank(world.ann)
    judgments.undo(world.store, world.ann.id)
    world.rule_ranks(one)
    for run_id in ("a", "b", "c"):
        runs.create(world.store, run_id, config={}, seed=1, versions={})
    runs.finish(world.store, "a", "done")
    assert stats(world.store) == {
        "prompts": 1,
        "prompts_in_use": 1,
        "unused_starter_votes": 0,
        "completions": 8,
        "comparisons": 4,
        "judgments": {"human": 2, "simulated": 1},
        "demo_votes": 0,
        "labels_not_used_in_training": {"good": 0, "bad": 0},
        "annotators": {"human": 2, "simulated": 1},
        "runs": {"done": 1, "queued": 2},
        "policy_versions": 1,
        "queue_depth": 2,
    }


def test_judgments_are_counted_by_day_and_kind(world):
    one, *_ = world.comparisons(4)
    world.rank(world.ann)
    world.skip(world.ann)
    world.rank(world.ann)
    judgments.undo(world.store, world.ann.id)
    world.rule_ranks(one)
    today = date.fromisoformat(world.store.value("SELECT max(created_at) FROM judgments")[:10])
    days = judgments_by_day(world.store, last=today, days=3)
    assert days[-1] == DayOfJudging(today.isoformat(), 2, 1)
    assert [(day.people, day.simulated) for day in days[:-1]] == [(0, 0), (0, 0)]
    assert [day.date for day in judgments_by_day(world.store, last=date(2026, 3, 1), days=3)] == ["2026-02-27", "2026-02-28", "2026-03-01"]
    assert judgments_by_day(world.store, last=date(2026, 3, 1), days=1) == [DayOfJudging("2026-03-01", 0, 0)]


def test_the_pace_counts_what_people_voted_here(world):
    assert pace(world.store, since=date(2026, 1, 1)) == Pace(0, 0, 0, None)
    one, *_ = world.comparisons(5)
    world.rank(world.ann)
    world.rank(world.ann)
    world.skip(world.ann)
    world.rank(world.bob)
    world.rule_ranks(one)
    today = date.fromisoformat(world.store.value("SELECT max(created_at) FROM judgments")[:10])
    assert pace(world.store, since=today) == Pace(3, 3, 2, today)
    assert pace(world.store, since=today + timedelta(days=1)) == Pace(3, 0, 0, today)
    rows = [{"prompt": "Q", "chosen": "a", "rejected": "b"}]
    imports.import_rows(world.store, rows, "trl")
    assert pace(world.store, since=today).votes == 3 < world.store.value("SELECT count(*) FROM votes WHERE annotator_kind = 'human'")
