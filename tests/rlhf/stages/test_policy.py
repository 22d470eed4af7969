"""The inputs of PPO beside the rewards, and how it ends."""

import logging

import httpx2
import pytest
from rollout_server import own_server
from rounds import done, metric, run

from rlhf.models.backbone import Backbone
from rlhf.ppo import ptx
from rlhf.ppo.trainer import PPO
from rlhf.runs.progress import Cancelled
from rlhf.serving import rollout_client, supervisor
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


# ---- rollouts by a server

KEY = "k" * 24


def adapters(url, key=""):
    """What the server has beside its base."""
    listed = httpx2.get(f"{url}/models", headers={"authorization": f"Bearer {key}"} if key else {}).json()["data"]
    return [model["id"] for model in listed if model["id"] not in ("current", "tiny")]


def test_a_round_samples_its_rollouts_at_a_server_and_leaves_nothing_there(judged, jobs, tiny_folder):
    alone = done(jobs, judged.config(seed=4))
    with own_server(judged.store, tiny_folder, judged.folder.root, api_key=KEY) as url:
        run_id = jobs.create(judged.config(seed=4, rollouts=url)).id
        work(jobs.store, jobs.folder, run_id, rollouts_key=lambda: KEY)
        assert adapters(url, KEY) == [alone.result["policy_version"], f"tiny-{run_id}"], "the store's versions, and nothing else"
    served = runs.get(jobs.store, run_id)
    assert served.status == "done" and not (judged.folder.run(run_id) / "rollouts").exists()
    # The server samples the same tokens from the same seeds.
    for name in ("objective/scores", "objective/kl", "loss/policy_avg", "loss/value_avg"):
        assert metric(jobs, served, name) == pytest.approx(metric(jobs, alone, name), rel=1e-3, abs=1e-5)
    assert metric(jobs, served, "sampling/importance_sampling_ratio/mean") == pytest.approx([1.0, 1.0], abs=1e-4)
    assert metric(jobs, served, "sampling/importance_sampling_truncated") == [0.0, 0.0]
    assert metric(jobs, served, "sampling/base_logp_difference/max") == pytest.approx([0.0], abs=1e-4)
    assert not [m for m in runs.metrics(jobs.store, alone.id) if m.name.startswith("sampling/")]


@pytest.mark.slow
def test_a_server_that_dies_fails_the_run_and_resume_ends_as_without_it(judged, jobs, tiny_folder, monkeypatch):
    monkeypatch.setattr(rollout_client, "FIRST_PAUSE_S", 0.01)
    port = supervisor.free_port()
    config = judged.config(seed=4, rollouts=f"http://127.0.0.1:{port}/v1", ppo_steps=3)
    real = PPO.save
    held = own_server(judged.store, tiny_folder, judged.folder.root, port=port)
    held.__enter__()

    def dies(ppo, folder):
        real(ppo, folder)
        held.__exit__(None, None, None)

    run_id = jobs.create(config).id
    monkeypatch.setattr(PPO, "save", dies)
    with pytest.raises(rollout_client.RolloutServerError):
        work(jobs.store, jobs.folder, run_id)
    failed = runs.get(jobs.store, run_id)
    assert failed.status == "failed" and failed.stage == "ppo"
    assert failed.error.startswith(
        f"RolloutServerError: the rollout server http://127.0.0.1:{port}: no answer (ConnectError), after 6 attempts"
    )
    assert "the run can be resumed then" in failed.error
    monkeypatch.setattr(PPO, "save", real)
    jobs.requeue(run_id)
    with own_server(judged.store, tiny_folder, judged.folder.root, port=port) as url:
        resumed = run(jobs, run_id)
        unbroken = done(jobs, config)
        assert resumed.status == unbroken.status == "done" and len(adapters(url)) == 2
    for name in ("objective/scores", "objective/kl", "loss/policy_avg", "sampling/sampling_logp_difference/max"):
        assert metric(jobs, resumed, name) == pytest.approx(metric(jobs, unbroken, name), rel=1e-3, abs=1e-5)
        assert len(metric(jobs, resumed, name)) == 3


def test_a_run_that_is_cancelled_leaves_no_adapter_at_the_server(judged, jobs, tiny_folder, monkeypatch):
    with own_server(judged.store, tiny_folder, judged.folder.root) as url:
        seen = []

        def cancel(ppo, folder):
            seen.extend(adapters(url))
            raise Cancelled

        monkeypatch.setattr(PPO, "save", cancel)
        run_id = jobs.create(judged.config(rollouts=url)).id
        with pytest.raises(Cancelled):
            work(jobs.store, jobs.folder, run_id)
        assert len(seen) == 1 and seen[0].startswith(f"rankloop-{run_id}-") and adapters(url) == []
    assert runs.get(jobs.store, run_id).status == "cancelled"


def test_a_server_that_takes_no_adapters_fails_the_run_before_its_first_step(judged, jobs, tiny_folder):
    with own_server(judged.store, tiny_folder, None) as url:
        run_id = jobs.create(judged.config(rollouts=url)).id
        with pytest.raises(rollout_client.RolloutServerError, match="it loads no adapters while it runs.*--lora-folder"):
            work(jobs.store, jobs.folder, run_id)
    assert runs.get(jobs.store, run_id).status == "failed"
