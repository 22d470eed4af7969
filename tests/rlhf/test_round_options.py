"""A whole round with options of PPO beyond the paper: which reach the result, and which are refused before it starts."""

from dataclasses import replace

import pytest
from rounds import done, metric

from rlhf.cli.report import table
from rlhf.data.demonstrations import NoDemonstrations
from rlhf.models.backbone import Backbone
from rlhf.runs.jobs import RoundError
from rlhf.runs.reward_function import RewardFunctionError
from rlhf.worker import work
from storage.project import runs

BYTES = "rewards_of_a_test:share_of_vowels"


@pytest.fixture
def function(tmp_path, monkeypatch):
    (tmp_path / "rewards_of_a_test.py").write_text(
        "def share_of_vowels(prompts, completions):\n"
        "    assert all(p[0]['role'] == 'user' and p[0]['content'].startswith('Question') for p in prompts)\n"
        "    return [5 + sum(c.count(v) for v in 'aeiou') / max(1, len(c)) for c in completions]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return BYTES


# Any Python function.


def test_a_round_is_scored_by_the_function_that_the_command_line_names(judged, jobs, function):
    run = done(jobs, replace(judged.config(), reward_function=function), function)
    assert run.status == "done" and run.config["reward_function"] == function
    scores = metric(jobs, run, "objective/scores")
    assert len(scores) == 2 and all(5 <= s <= 6 for s in scores), "5 and more is the function's, not the reward model's"
    assert run.result["win_rate_by_reward_function"]["cases"] == 3
    assert {"win_rate", "win_rate_by_reward_model"} <= run.result.keys()


@pytest.mark.parametrize("named", [None, "json:loads"])
def test_a_worker_refuses_a_reward_function_that_its_command_line_does_not_name(judged, jobs, function, monkeypatch, named):
    monkeypatch.setattr(Backbone, "load", None)
    run_id = jobs.create(replace(judged.config(), reward_function=function)).id
    with pytest.raises(RewardFunctionError):
        work(jobs.store, jobs.folder, run_id, reward=named)
    failed = runs.get(jobs.store, run_id)
    assert failed.status == "failed" and f"add --reward {function}" in failed.error


def test_the_verbs_of_the_pages_refuse_code_and_those_of_the_command_line_pass_it_on(judged, jobs, function, monkeypatch):
    started = []
    monkeypatch.setattr("rlhf.runs.scheduler.subprocess.Popen", lambda argv, **_: started.append(argv) or type("P", (), {})())
    config = replace(judged.config(), reward_function=function)
    with pytest.raises(RoundError, match=f"rankloop train --reward {function}"):
        jobs.start(config)
    assert runs.all_runs(judged.store) == []
    run_id = jobs.create(config).id
    runs.finish(judged.store, run_id, "cancelled")
    with pytest.raises(RoundError, match=f"rankloop train --resume {run_id} --reward {function}"):
        jobs.resume(run_id)
    assert runs.get(judged.store, run_id).status == "cancelled" and started == []
    jobs.spawn(run_id, function)
    jobs.spawn(run_id)
    assert [argv[-2:] for argv in started] == [["--reward", function], [str(judged.folder.root), run_id]]


# Demonstrations.


def test_a_round_that_would_learn_from_demonstrations_needs_one(judged, jobs):
    with pytest.raises(NoDemonstrations, match="--ppo-ptx-coef: 0 ideal answers"):
        jobs.create(judged.config(ppo_ptx_coef=1.0))
    assert runs.all_runs(judged.store) == []


# Over-optimisation.


def test_the_terminals_table_has_checkpoint_selection_and_best_of_n(judged, jobs):
    figure = {"value": 0.6, "low": 0.5, "high": 0.7, "cases": 3}
    beside = {
        "n": 4,
        "kl": 0.636,
        "policy_kl": 2.5,
        "max_n": 4,
        "beyond_max_n": True,
        "win_rate": figure,
        "win_rate_by_reward_model": figure,
    }
    run = jobs.create(judged.config())
    result = {
        "rule": "sentiment",
        "kl": 2.5,
        "stopped_by_kl": {"step": 7, "kl": 2.51, "budget": 2.5},
        "best_of_n": beside,
        "best_checkpoint": {"step": 5, "steps": 6, "conservative_score": 0.75, "kl": 2.25},
    }
    said = " ".join(table(replace(run, result=result), []).split())
    for line in (
        "PPO ended early step 7: KL 2.51 nats, budget 2.5",
        "best checkpoint after step 5 of 6: conservative score 0.75, KL 2.25",
        "best of 4 over the base, KL 0.64 nats; the policy's KL is 2.50, more than best of 4 reaches",
        "best of 4 over the base, win rate under the rule 'sentiment' 60.0% (50.0 to 70.0; 3 held-out prompts)",
    ):
        assert line in said
    plain = table(replace(run, result={"best_of_n": beside | {"beyond_max_n": False}}), [])
    assert "best of 4 reaches" not in plain and "ended early" not in plain and "best checkpoint" not in plain
