"""The inputs of PPO beside the rewards, and how it ends."""

import logging

import pytest
from rounds import done, metric

from rlhf.models.backbone import Backbone
from rlhf.ppo import ptx
from rlhf.worker import work
from storage.content import policies
from storage.core.records import Details, IdealAnswer
from storage.judging import judgments, queue
from storage.people import annotators
from storage.project import runs


@pytest.mark.slow
def test_a_round_learns_from_the_demonstrations_that_it_began_with(judged, jobs, monkeypatch):
    person = annotators.ensure(judged.store, "Ann")
    for ideal in ("The best answer.", "Too late."):
        _, ids = judged.comparison(judged.prompt("Question 0?", "train"), f"{ideal} a", f"{ideal} b")
        shown = queue.next_presentation(judged.store, person.id)
        if ideal == "Too late.":
            run_id = jobs.create(judged.config(ppo_ptx_coef=1.0)).id
            monkeypatch.setattr(Backbone, "load", None)
            with pytest.raises(TypeError):
                work(jobs.store, jobs.folder, run_id)
            monkeypatch.undo()
        judgments.save(
            judged.store,
            shown[1].id,
            person.id,
            verdict="rank",
            tiers=((shown[1].order[0],), (shown[1].order[1],)),
            details=Details(ideal=IdealAnswer(ideal)),
        )
        assert ids
    jobs.requeue(run_id)
    seen = []
    real = ptx.encode
    monkeypatch.setattr(ptx, "encode", lambda backbone, shown_how: seen.append(shown_how) or real(backbone, shown_how))
    work(jobs.store, jobs.folder, run_id)
    assert [d.text for d in seen[0]] == ["The best answer."]
    losses = metric(jobs, runs.get(jobs.store, run_id), "loss/ptx_avg")
    assert len(losses) == 2 and all(loss > 0 for loss in losses)


@pytest.mark.slow
def test_a_run_that_left_its_kl_budget_says_so(judged, jobs, caplog):
    # The first step's update leaves so small a budget, as the second step's batch shows.
    caplog.set_level(logging.INFO, logger="rankloop.round")
    run = done(jobs, judged.config(ppo_kl_budget=1e-3, ppo_steps=5, ppo_learning_rate=0.01))
    stopped = run.result["stopped_by_kl"]
    assert stopped["step"] == 2 and stopped["kl"] > stopped["budget"] == 1e-3
    assert len(metric(jobs, run, "objective/kl")) == 2
    assert "stopped_by_kl" in caplog.text


@pytest.mark.slow
def test_the_best_policy_is_what_is_measured_and_registered(judged, jobs):
    # Within so small a budget there is the reference alone.
    run = done(jobs, judged.config(ppo_kl_budget=1e-3, ppo_steps=3, ppo_learning_rate=0.01, ppo_keep="best"))
    assert run.result["best_checkpoint"]["step"] == 0 and run.result["best_checkpoint"]["steps"] == 1
    assert run.result["kl"] == pytest.approx(0, abs=1e-4)
    backbone = Backbone.load(judged.model, "cpu", "float32")
    backbone.load_adapter("v", policies.adapter_folder(judged.store, policies.latest_tuned(judged.store, str(judged.model))))
    assert all(p.abs().max() == 0 for n, p in backbone.parameters("v").items() if ".lora_B." in n)
