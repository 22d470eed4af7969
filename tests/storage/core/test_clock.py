"""Clocks that are set while people judge and sign in, and programs that start again after one was. Times in seconds."""

from datetime import UTC, datetime, timedelta

import argon2
import pytest

from storage.core.clock import Clock, window
from storage.judging import judgments, queue
from storage.people import accounts, sign_in_throttle
from storage.people.sign_in_throttle import SignInOrigin, SignInRefused
from storage.project import runs

PASSWORD = "correct horse"
DAY = 24 * 3600.0
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Machine:
    """The two clocks of a machine. `set` moves the one on the wall; time passes on both."""

    def __init__(self):
        self.wall_s, self.steady_s = START.timestamp(), 1000.0

    def passes(self, seconds: float) -> None:
        self.wall_s += seconds
        self.steady_s += seconds

    def set(self, seconds: float) -> None:
        self.wall_s += seconds

    def boot(self) -> Clock:
        """What a program that starts now goes by."""
        return Clock(lambda: self.wall_s, lambda: self.steady_s)


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def lab(world, machine):
    world.store.clock = machine.boot()
    accounts.create(world.store, "Lea", PASSWORD, ["lead"])
    return world


def refused(store, password="wrong one", origin=SignInOrigin("192.0.2.1")):
    with pytest.raises(SignInRefused) as caught:
        accounts.sign_in(store, "Lea", password, origin)
    return caught.value.wait_s


def test_it_passes_as_time_does_whichever_way_the_clock_is_set(machine):
    clock = machine.boot()
    assert clock.now() == START
    for step in (-DAY, DAY, DAY, -365 * DAY):
        machine.set(step)
    machine.passes(90)
    assert clock.now() == START + timedelta(seconds=90)
    assert clock.text(timedelta(minutes=1)) == "2026-03-01T12:02:30.000+00:00"


def test_a_duration_is_never_negative(machine):
    clock = machine.boot()
    began = clock.text()
    machine.set(-DAY)
    machine.passes(1.5)
    assert clock.ms_since(began) == 1500
    assert clock.ms_since("2026-03-02T12:00:00.000+00:00") is None


def test_the_window_reaches_both_sides_of_the_machines_clock():
    since, until = window(seconds=60)
    assert since < datetime.now(UTC).isoformat() < until


# ---- while the program runs


@pytest.mark.parametrize("step", [-DAY, DAY])
def test_the_wait_after_wrong_passwords_is_as_long_as_it_says(lab, machine, step):
    """It was 86,402 s once the clock had been set back a day."""
    assert [refused(lab.store) for _ in range(4)] == [0, 0, 0, 2]
    machine.set(step)
    assert refused(lab.store, PASSWORD) == 2
    machine.passes(2)
    assert accounts.sign_in(lab.store, "Lea", PASSWORD, SignInOrigin("192.0.2.1"))


@pytest.mark.parametrize("step", [-DAY, DAY])
def test_a_session_and_a_lease_go_on(lab, machine, step):
    lab.comparison()
    token = accounts.sign_in(lab.store, "Lea", PASSWORD)
    shown = queue.next_presentation(lab.store, lab.ann.id)[1]
    machine.set(step)
    machine.passes(60)
    assert accounts.of_token(lab.store, token).name == "Lea"
    assert queue.renew(lab.store, shown.id, lab.ann.id) and lab.next(lab.bob) is None
    saved = judgments.save(lab.store, shown.id, lab.ann.id, verdict="rank", tiers=(shown.order,))
    assert lab.store.value("SELECT server_ms FROM judgments WHERE id = ?", [saved.id]) == 60_000


@pytest.mark.parametrize("step", [-DAY, DAY])
def test_a_lease_that_nobody_renews_ends_in_time(lab, machine, step):
    one = lab.comparison()
    lab.next(lab.ann)
    machine.set(step)
    machine.passes(14 * 60)
    assert lab.next(lab.bob) is None
    machine.passes(61)
    assert lab.next(lab.bob) == one


@pytest.mark.parametrize("step", [-DAY, DAY])
def test_a_session_that_nobody_uses_ends_in_time(lab, machine, step):
    token = accounts.sign_in(lab.store, "Lea", PASSWORD)
    machine.set(step)
    machine.passes(12 * 3600 - 1)
    assert accounts.of_token(lab.store, token)
    machine.passes(2)
    assert accounts.of_token(lab.store, token) is None


# ---- when it starts again after the clock was set back


def test_what_is_left_of_a_wait_is_at_most_the_wait(lab, machine):
    for _ in range(4):
        refused(lab.store)
    machine.set(-DAY)
    lab.store.clock = machine.boot()
    assert refused(lab.store, PASSWORD) == 2
    machine.passes(2)
    assert accounts.sign_in(lab.store, "Lea", PASSWORD, SignInOrigin("192.0.2.1"))


def test_a_lease_is_at_most_as_long_as_a_lease(lab, machine):
    one = lab.comparison()
    lab.next(lab.ann)
    machine.set(-DAY)
    lab.store.clock = machine.boot()
    assert lab.next(lab.bob) is None
    machine.passes(15 * 60 + 1)
    assert lab.next(lab.bob) == one


def test_how_long_a_judgment_took_is_not_known_then(lab, machine):
    lab.comparison()
    shown = queue.next_presentation(lab.store, lab.ann.id)[1]
    machine.set(-DAY)
    lab.store.clock = machine.boot()
    saved = judgments.save(lab.store, shown.id, lab.ann.id, verdict="rank", tiers=(shown.order,))
    assert lab.store.value("SELECT server_ms FROM judgments WHERE id = ?", [saved.id]) is None


def test_a_session_lasts_no_longer_for_it(lab, machine):
    token = accounts.sign_in(lab.store, "Lea", PASSWORD)
    machine.set(-DAY)
    lab.store.clock = machine.boot()
    assert accounts.session(lab.store, token).due
    accounts.renew(lab.store, token)
    machine.passes(12 * 3600 + 1)
    assert accounts.of_token(lab.store, token) is None


def test_a_session_that_nobody_uses_is_cut_when_somebody_signs_in(lab, machine):
    token = accounts.sign_in(lab.store, "Lea", PASSWORD)
    machine.set(-DAY)
    lab.store.clock = machine.boot()
    accounts.sign_in(lab.store, "Lea", PASSWORD)
    machine.passes(12 * 3600 + 1)
    assert accounts.of_token(lab.store, token) is None


# ---- signs of life, which other processes read


def put(store, run_id, column, **ahead):
    at = (datetime.now(UTC) + timedelta(**ahead)).isoformat(timespec="milliseconds")
    with store.atomic() as connection:
        connection.conn.execute(f"UPDATE runs SET {column} = ? WHERE id = ?", [at, run_id])


@pytest.mark.parametrize("step", [{"days": 1}, {"days": -1}])
def test_a_run_that_never_started_is_lost_whatever_the_clock_does(store, step):
    runs.create(store, "r1", config={}, seed=1, versions={})
    put(store, "r1", "created_at", **step)
    assert runs.mark_stale_lost(store, 60) == ["r1"]


@pytest.mark.parametrize("step", [{"days": 1}, {"days": -1}])
def test_a_live_run_is_not_lost_when_the_clock_is_set(store, step):
    runs.create(store, "r1", config={}, seed=1, versions={})
    runs.mark_started(store, "r1", 1)
    put(store, "r1", "heartbeat_at", **step)
    assert runs.mark_stale_lost(store, 60, alive=["r1"]) == []
    assert runs.mark_stale_lost(store, 60) == ["r1"]


def test_the_newest_run_is_the_one_that_was_made_last(store):
    for run_id in ("first", "second"):
        runs.create(store, run_id, config={}, seed=1, versions={})
    put(store, "first", "created_at", days=1)
    assert [run.id for run in runs.all_runs(store)] == ["second", "first"]


@pytest.mark.parametrize(("ahead", "waiting"), [({"days": 1}, 2), ({"minutes": -5}, 1)])
def test_an_annotator_is_not_active_for_a_day_when_the_clock_is_set(world, ahead, waiting):
    """Ann has one of two left. Whether she counts as present is by when she asked."""
    world.comparisons(2)
    world.rank(world.ann)
    world.store.connection.conn.execute("UPDATE comparisons SET wanted = 2")
    at = (datetime.now(UTC) + timedelta(**ahead)).isoformat(timespec="milliseconds")
    world.store.connection.conn.execute("UPDATE queue_cursors SET requested_at = ?", [at])
    assert queue.least_waiting(world.store, 10) == waiting


def test_the_longest_waits_are_what_the_documents_say():
    assert (sign_in_throttle.MAX_WAIT_S, sign_in_throttle.ALL_ADDRESSES_MAX_WAIT_S) == (300, 10)
