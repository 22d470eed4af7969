import math
import time

import pytest

from storage.core.database import StoreError
from storage.core.records import Metric, RunSample
from storage.project import runs


@pytest.fixture
def run(store):
    return runs.create(store, "r1", config={"lr": 3e-4, "name": "quick"}, seed=7, versions={"torch": "2.13.0"}).id


def long_ago(store, run_id, column="heartbeat_at"):
    with store.atomic() as connection:
        connection.conn.execute(f"UPDATE runs SET {column} = '2020-01-01T00:00:00.000+00:00' WHERE id = ?", [run_id])


def test_a_new_run_is_queued(store, run):
    queued = runs.get(store, run)
    assert (queued.status, queued.config, queued.seed, queued.versions) == (
        "queued",
        {"lr": 3e-4, "name": "quick"},
        7,
        {"torch": "2.13.0"},
    )
    assert (queued.progress, queued.cancel_requested, queued.snapshot, queued.pid) == (0.0, False, None, None)
    with pytest.raises(StoreError, match="a run r1 already"):
        runs.create(store, "r1", config={}, seed=1, versions={})
    with pytest.raises(StoreError, match="no run r9"):
        runs.get(store, "r9")


def test_a_run_starts_reports_and_finishes(store, run):
    runs.mark_started(store, run, 4242)
    started = runs.get(store, run)
    assert (started.status, started.pid) == ("running", 4242)
    assert started.started_at == started.heartbeat_at is not None
    runs.set_snapshot(store, run, {"pairs": 40})
    runs.set_stage(store, run, "ppo", 0.5, 90.0)
    middle = runs.get(store, run)
    assert (middle.stage, middle.progress, middle.eta_s, middle.snapshot) == ("ppo", 0.5, 90.0, {"pairs": 40})
    runs.finish(store, run, "done", result={"win_rate": 0.6})
    ended = runs.get(store, run)
    assert (ended.status, ended.progress, ended.eta_s, ended.error) == ("done", 1.0, None, None)
    assert ended.result == {"win_rate": 0.6}
    assert ended.finished_at is not None


def test_the_validation_survives_a_resume(store, run):
    assert runs.get(store, run).validation is None
    runs.mark_started(store, run, 1)
    report = {"pairs": 40, "by_kind": [{"kind": "설명", "accuracy": None}]}
    runs.set_validation(store, run, report)
    runs.finish(store, run, "cancelled")
    runs.requeue(store, run)
    runs.mark_started(store, run, 2)
    assert runs.get(store, run).validation == report
    assert [other.validation for other in runs.all_runs(store)] == [report]


def test_a_failed_run_keeps_how_far_it_got(store, run):
    runs.set_stage(store, run, "ppo", 0.5, 90.0)
    runs.finish(store, run, "failed", error="out of memory")
    ended = runs.get(store, run)
    assert (ended.status, ended.progress, ended.error) == ("failed", 0.5, "out of memory")
    with pytest.raises(StoreError, match="cannot finish as running"):
        runs.finish(store, run, "running")


@pytest.mark.parametrize("act", [runs.beat, lambda store, run_id: runs.set_stage(store, run_id, "ppo", 0.1, None)])
def test_heartbeats_are_stored(store, run, act):
    long_ago(store, run)
    act(store, run)
    assert runs.get(store, run).heartbeat_at > "2021"


def test_a_run_that_was_given_to_a_job_is_claimed_by_that_job_alone(store, run):
    runs.set_job(store, run, {"id": "j2"})
    assert not runs.claim(store, run, 1, "j1") and runs.get(store, run).status == "queued"
    assert runs.claim(store, run, 1, "j2") and runs.get(store, run).job == {"id": "j2"}
    runs.finish(store, run, "failed")
    assert runs.requeue(store, run).job is None
    assert not runs.claim(store, run, 1, "j2"), "the job of an earlier attempt"
    assert runs.claim(store, run, 1)


def test_a_run_is_named_and_each_change_is_a_row(world):
    store = world.store
    runs.create(store, "r1", config={}, seed=7, versions={})
    runs.create(store, "r2", config={}, seed=7, versions={})
    named = runs.describe(store, "r1", name="  Lower\n KL ", note=" Half the coefficient.\nOne epoch. ", by=world.ann.id)
    assert (named.name, named.note) == ("Lower KL", "Half the coefficient.\nOne epoch.")
    assert runs.get(store, "r1") == named and [run.name for run in runs.all_runs(store)] == ["", "Lower KL"]
    revision = runs.newest_name(store)
    assert runs.describe(store, "r1", name="Lower KL") == named and runs.newest_name(store) == revision, "nothing changed: no row"
    runs.describe(store, "r1", note="")
    runs.describe(store, "r1", name="Lowest KL", by=world.bob.id)
    assert (runs.active(store).name, runs.active(store).note) == ("Lowest KL", "")
    rows = store.rows("SELECT run_id, name, note, by_id FROM run_names ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("r1", "Lower KL", "Half the coefficient.\nOne epoch.", world.ann.id),
        ("r1", "Lower KL", "", None),
        ("r1", "Lowest KL", "", world.bob.id),
    ]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"name": "n" * 81}, "The name has 81 characters: write at most 80"),
        ({"note": "n" * 4001}, "The note has 4,001 characters: write at most 4,000"),
    ],
)
def test_a_name_and_a_note_are_short(store, run, texts, message):
    with pytest.raises(StoreError, match=message):
        runs.describe(store, run, **texts)
    with pytest.raises(StoreError, match="no run r9"):
        runs.describe(store, "r9", name="x")
    assert runs.newest_name(store) == 0
    runs.describe(store, run, name="n" * 80, note="n" * 4000)


def test_updates_of_an_unknown_run_are_refused(store):
    for act in (
        lambda: runs.beat(store, "r9"),
        lambda: runs.mark_started(store, "r9", 1),
        lambda: runs.finish(store, "r9", "done"),
        lambda: runs.request_cancel(store, "r9"),
        lambda: runs.requeue(store, "r9"),
        lambda: runs.set_validation(store, "r9", {}),
        lambda: runs.set_job(store, "r9", {}),
    ):
        with pytest.raises(StoreError, match="no run r9"):
            act()


def test_newest_first_and_the_running_one_is_active(store):
    assert runs.active(store) is None
    for run_id in ("b", "a", "c"):
        runs.create(store, run_id, config={}, seed=1, versions={})
    assert [run.id for run in runs.all_runs(store)] == ["c", "a", "b"]
    assert runs.active(store).id == "b"
    runs.mark_started(store, "a", 1)
    assert runs.active(store).id == "a"
    for run_id in ("a", "b", "c"):
        runs.finish(store, run_id, "cancelled")
    assert runs.active(store) is None


def test_a_cancel_is_requested_and_read(store, run):
    runs.mark_started(store, run, 1)
    assert not runs.cancel_requested(store, run)
    runs.request_cancel(store, run)
    assert runs.cancel_requested(store, run)
    assert runs.get(store, run).cancel_requested


def test_a_cancel_before_the_worker_starts_is_kept(store, run):
    runs.request_cancel(store, run)
    runs.mark_started(store, run, 1)
    assert runs.cancel_requested(store, run)


def test_a_cancel_that_comes_too_late_changes_nothing(store, run):
    runs.finish(store, run, "done")
    runs.request_cancel(store, run)
    assert not runs.cancel_requested(store, run)


@pytest.mark.parametrize("status", ["failed", "cancelled", "lost"])
def test_an_ended_run_is_queued_again_with_a_clean_slate(store, run, status):
    runs.mark_started(store, run, 1)
    runs.request_cancel(store, run)
    runs.finish(store, run, status, error="why")
    long_ago(store, run)
    queued = runs.requeue(store, run)
    assert (queued.status, queued.error, queued.finished_at, queued.cancel_requested) == ("queued", None, None, False)
    assert runs.mark_stale_lost(store, 60) == []


def test_starting_an_ended_run_directly_clears_it_too(store, run):
    runs.mark_started(store, run, 1)
    runs.request_cancel(store, run)
    runs.finish(store, run, "cancelled", error="why")
    runs.mark_started(store, run, 2)
    again = runs.get(store, run)
    assert (again.status, again.pid, again.error, again.finished_at) == ("running", 2, None, None)
    assert not again.cancel_requested


def test_only_an_ended_run_is_queued_again(store, run):
    with pytest.raises(StoreError, match="r1 is queued; only"):
        runs.requeue(store, run)
    runs.mark_started(store, run, 1)
    with pytest.raises(StoreError, match="r1 is running; only"):
        runs.requeue(store, run)
    runs.finish(store, run, "done")
    with pytest.raises(StoreError, match="r1 is done; only a run that is failed or cancelled or lost"):
        runs.requeue(store, run)


def test_runs_without_heartbeats_are_lost(store):
    for run_id in ("beating", "silent", "never up", "new", "done"):
        runs.create(store, run_id, config={}, seed=1, versions={})
    for run_id in ("beating", "silent", "done"):
        runs.mark_started(store, run_id, 1)
    runs.finish(store, "done", "done")
    long_ago(store, "silent")
    long_ago(store, "done")
    long_ago(store, "never up", "created_at")
    assert runs.mark_stale_lost(store, 60) == ["never up", "silent"]
    assert {run.id: run.status for run in runs.all_runs(store)} == {
        "beating": "running",
        "silent": "lost",
        "never up": "lost",
        "new": "queued",
        "done": "done",
    }
    assert "Resume the run" in runs.get(store, "silent").error
    assert runs.mark_stale_lost(store, 60) == []


def test_older_than_is_in_seconds(store, run):
    runs.mark_started(store, run, 1)
    time.sleep(0.05)
    assert runs.mark_stale_lost(store, 30) == []
    assert runs.mark_stale_lost(store, 0.02) == [run]


def test_figures_are_replaced_and_only_finite_ones_kept(store, run):
    runs.log_metrics(store, run, 1, {"ppo/kl": 0.5, "reward/loss": math.nan, "ppo/score": math.inf})
    runs.log_metrics(store, run, 2, {"ppo/kl": 0.7})
    runs.log_metrics(store, run, 1, {"ppo/kl": 0.25, "eval/accuracy": 1})
    assert runs.metrics(store, run) == [
        Metric("eval/accuracy", 1, 1.0),
        Metric("ppo/kl", 1, 0.25),
        Metric("ppo/kl", 2, 0.7),
    ]


def test_a_resumed_run_drops_only_what_it_will_write_again(store, run):
    runs.create(store, "r2", config={}, seed=1, versions={})
    for step in (1, 2, 3):
        runs.log_metrics(store, run, step, {"ppo/kl": step, "ppo_x": step, "reward/loss": step})
    runs.log_metrics(store, "r2", 3, {"ppo/kl": 9})
    runs.drop_metrics_from(store, run, "ppo/", 2)
    assert [(metric.name, metric.step) for metric in runs.metrics(store, run)] == [
        ("ppo/kl", 1),
        ("ppo_x", 1),
        ("ppo_x", 2),
        ("ppo_x", 3),
        ("reward/loss", 1),
        ("reward/loss", 2),
        ("reward/loss", 3),
    ]
    # "_" and "%" are letters here, not wildcards.
    runs.drop_metrics_from(store, run, "ppo_", 1)
    assert ("ppo/kl", 1) in [(metric.name, metric.step) for metric in runs.metrics(store, run)]
    assert len(runs.metrics(store, run)) == 4
    assert len(runs.metrics(store, "r2")) == 1


def test_samples_before_and_after(world):
    runs.create(world.store, "r1", config={}, seed=1, versions={})
    first, second = world.prompt("One?", split="heldout"), world.prompt("Two?", split="heldout")
    runs.save_sample(world.store, "r1", second, before="b2")
    runs.save_sample(world.store, "r1", first, before="old", score_before=0.1)
    runs.save_sample(world.store, "r1", first, before="b1", score_before=0.5)
    runs.set_sample_after(world.store, "r1", first, after="a1", score_after=0.75)
    assert runs.samples(world.store, "r1") == [
        RunSample("One?", "b1", "a1", 0.5, 0.75),
        RunSample("Two?", "b2", None, None, None),
    ]
    with pytest.raises(StoreError, match="no sample of prompt 99"):
        runs.set_sample_after(world.store, "r1", 99, after="x")
