"""The queue of rounds: rows in the order in which they begin, each of which leaves the queue once."""

import pytest

from storage.core.database import StoreError
from storage.people import annotators
from storage.project import queued_rounds, runs

CONFIG = {"model": "tiny", "method": "ppo"}


def ask(store, trigger="hand", **options):
    return queued_rounds.add(store, CONFIG, trigger=trigger, **options)


def run(store, name):
    return runs.create(store, name, config={}, seed=0, versions={}).id


def old(store, queued_id):
    with store.atomic() as connection:
        connection.conn.execute("DROP TRIGGER queued_rounds_end_once")
        connection.conn.execute("UPDATE queued_rounds SET ended_at = '2020-01-01T00:00:00.000+00:00' WHERE id = ?", [queued_id])


def test_what_was_asked_for_waits_in_order_with_who_asked(store):
    ann = annotators.ensure(store, "Ann")
    first, second = ask(store, by=ann.id, judges="simulated"), ask(store, "schedule")
    assert [one.id for one in queued_rounds.waiting(store)] == [first.id, second.id]
    assert (first.by_id, first.judges, first.trigger, first.config, first.state) == (ann.id, "simulated", "hand", CONFIG, "waiting")
    assert (second.by_id, second.judges, second.trigger, second.run_id, second.ended_at) == (None, "people", "schedule", None, None)


def test_a_round_leaves_the_queue_once(store):
    began, refused, taken = (ask(store).id for _ in range(3))
    assert queued_rounds.begin(store, began, run(store, "r1")) and queued_rounds.refuse(store, refused, "too few pairs")
    queued_rounds.take_out(store, taken)
    assert queued_rounds.waiting(store) == []
    for queued_id in (began, refused, taken):
        assert not queued_rounds.begin(store, queued_id, run(store, f"again-{queued_id}"))
        assert not queued_rounds.refuse(store, queued_id, "why")
    states = [(one.state, one.run_id, one.reason) for one in (queued_rounds.get(store, n) for n in (began, refused, taken))]
    assert states == [("started", "r1", None), ("not started", None, "too few pairs"), ("taken out", None, None)]
    with pytest.raises(StoreError, match="became run r1: cancel that"):
        queued_rounds.take_out(store, began)
    with pytest.raises(StoreError, match=f"Queued round {taken} waits no more, it is taken out"):
        queued_rounds.take_out(store, taken)
    with pytest.raises(StoreError, match="no queued round 99: `rankloop rounds` lists"):
        queued_rounds.take_out(store, 99)


def test_the_newest_refusals_are_shown_until_a_round_begins(store):
    from storage.content import policies
    from storage.project import rounds

    for n in range(5):
        queued_rounds.refuse(store, ask(store).id, f"reason {n}")
    assert [one.reason for one in queued_rounds.not_started(store)] == ["reason 4", "reason 3", "reason 2"]
    rounds.create(store, run(store, "r1"), trigger="hand", judges="people", baseline=policies.ensure_base(store, "tiny"))
    assert queued_rounds.not_started(store) == []


def test_the_newest_of_some_triggers(store):
    assert queued_rounds.newest(store, ("judgments", "schedule")) is None
    by_schedule = ask(store, "schedule")
    ask(store)
    assert queued_rounds.newest(store, ("judgments", "schedule")) == by_schedule
    assert queued_rounds.newest(store, ("judgments",)) is None


def test_a_run_without_a_worker_is_found_while_it_has_never_been_under_way(store):
    asked = ask(store)
    queued_rounds.begin(store, asked.id, run(store, "r1"))
    assert queued_rounds.without_worker(store, 10) is None, "its process may be about to start it"
    old(store, asked.id)
    assert queued_rounds.without_worker(store, 10) == "r1"
    runs.finish(store, "r1", "lost")
    assert queued_rounds.without_worker(store, 10) == "r1"
    runs.mark_started(store, "r1", 1)
    assert queued_rounds.without_worker(store, 10) is None
    runs.finish(store, "r1", "lost")
    assert queued_rounds.without_worker(store, 10) is None, "resuming it is for a person to do"


def test_a_run_whose_worker_was_started_is_not_given_another_one(store):
    asked = ask(store)
    queued_rounds.begin(store, asked.id, run(store, "r1"))
    queued_rounds.record_worker(store, "r1")
    queued_rounds.record_worker(store, "r1")
    old(store, asked.id)
    assert queued_rounds.without_worker(store, 10) is None


def test_the_revision_follows_each_act(store):
    seen = [queued_rounds.revision(store)]
    first, second = ask(store), ask(store)
    seen.append(queued_rounds.revision(store))
    queued_rounds.take_out(store, first.id)
    seen.append(queued_rounds.revision(store))
    queued_rounds.refuse(store, second.id, "why")
    seen.append(queued_rounds.revision(store))
    assert len(set(seen)) == 4 and queued_rounds.revision(store) == seen[-1]


def test_a_configuration_that_rankloop_did_not_write_is_a_problem_of_its_row(store):
    asked = ask(store)
    with store.atomic() as connection:
        connection.conn.execute("DROP TRIGGER queued_rounds_are_not_changed")
        connection.conn.execute("UPDATE queued_rounds SET config = '[1'")
    (found,) = queued_rounds.waiting(store)
    assert (found.id, dict(found.config)) == (asked.id, {}) and "configuration of queued round 1 cannot be read" in found.problem
