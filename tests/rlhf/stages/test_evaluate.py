"""The metrics of the evaluate stage."""

import pytest
from rounds import done

from rlhf.ppo.checkpoint_selection import best_of_n_kl
from rlhf.stages.evaluate import declared_rule
from rlhf.stages.snapshot import take_snapshot


def test_the_declared_rule_is_that_of_the_judgments_behind_the_snapshot(judged, jobs):
    run_id = jobs.create(judged.config()).id
    snapshot = take_snapshot(judged.store, run_id, judged.config(), judged.folder.run(run_id))
    assert declared_rule(judged.store, snapshot).name == "sentiment"
    judged.judge(judged.prompt("Later?", "train"), "yes", "no", rule="lexical", name="later")
    assert declared_rule(judged.store, snapshot).name == "sentiment"
    both = take_snapshot(judged.store, run_id, judged.config(), judged.folder.run("another"))
    assert declared_rule(judged.store, both) is None, "two rules are no one rule"
    assert declared_rule(judged.store, []) is None


@pytest.mark.slow
def test_best_of_n_is_compared_with_the_policy(judged, jobs):
    run = done(jobs, judged.config(evaluation_best_of=3, ppo_learning_rate=0.05))
    beside = run.result["best_of_n"]
    assert beside["policy_kl"] == run.result["kl"]
    assert beside["kl"] == pytest.approx(best_of_n_kl(beside["n"])) and beside["n"] <= beside["max_n"] == 3
    assert beside["beyond_max_n"] == (run.result["kl"] > best_of_n_kl(3))
    for name in ("win_rate", "win_rate_by_reward_model"):
        assert beside[name]["cases"] == 3 and 0 <= beside[name]["low"] <= beside[name]["high"] <= 1
