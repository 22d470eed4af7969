from storage import judgments, runs
from storage.stats import stats


def test_an_empty_store_counts_nothing(store):
    assert stats(store) == {
        "prompts": 0,
        "completions": 0,
        "comparisons": 0,
        "judgments": {"human": 0, "simulated": 0},
        "annotators": {"human": 0, "simulated": 0},
        "runs": {},
        "policy_versions": 0,
        "queue_depth": 0,
    }


def test_counts_what_stands(world):
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
        "completions": 8,
        "comparisons": 4,
        "judgments": {"human": 2, "simulated": 1},
        "annotators": {"human": 2, "simulated": 1},
        "runs": {"done": 1, "queued": 2},
        "policy_versions": 1,
        "queue_depth": 2,
    }
