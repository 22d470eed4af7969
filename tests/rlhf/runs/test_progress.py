"""The progress of a round, with a clock that the test sets."""

import pytest

from rlhf.runs import progress as module
from rlhf.runs.progress import Cancelled, RunProgress
from storage.project import runs


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def go(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def progress(store, clock):
    runs.create(store, "r1", config={}, seed=0, versions={})
    runs.mark_started(store, "r1", 1)
    made = RunProgress(store, "r1")
    made.plan({"first": 30, "second": 10, "third": 60})
    return made


def begin(progress, name, total, *, done=0):
    """A stage of so many units of work, of which an earlier attempt did some."""
    work = progress.stage(name)
    if done:
        work = progress.resume_at(done / total)
    work.total(total - done)
    return work


def row(progress):
    return runs.get(progress.store, "r1")


def test_a_resumed_run_never_falls_behind_what_it_had_reached(progress, store, clock):
    work = begin(progress, "third", 10)
    for _ in range(4):
        work()
    clock.go(1)
    work()
    assert row(progress).progress == pytest.approx(0.7)
    runs.finish(store, "r1", "cancelled")
    runs.requeue(store, "r1")
    runs.mark_started(store, "r1", 2)
    # The last checkpoint was at 2 of 10: what came after it is done again.
    again = RunProgress(store, "r1")
    again.plan({"first": 30, "second": 10, "third": 60})
    shown = [row(again).progress]
    begin(again, "first", 1, done=1)
    work = begin(again, "third", 10, done=2)
    for _ in range(4):
        shown.append(row(again).progress)
        clock.go(1)
        work()
    assert shown == [pytest.approx(0.7)] * len(shown)
    clock.go(1)
    work()
    assert row(again).progress == pytest.approx(0.4 + 0.6 * 0.7)


def test_fractions_follow_the_plan(progress, clock):
    work = begin(progress, "first", 10)
    assert (row(progress).stage, row(progress).progress) == ("first", 0.0)
    for _ in range(5):
        work()
    clock.go(1)
    work()
    assert row(progress).progress == pytest.approx(0.3 * 0.6)
    work = begin(progress, "third", 4)
    assert row(progress).progress == pytest.approx(0.4)
    for _ in range(9):
        clock.go(1)
        work()
    assert row(progress).progress == pytest.approx(1.0), "more ticks than were reckoned with do not go beyond the stage"


def test_a_piece_may_be_worth_several_ticks(progress, clock):
    work = begin(progress, "first", 10)
    work(4)
    clock.go(1)
    work()
    assert row(progress).progress == pytest.approx(0.3 * 0.5)


def test_a_row_is_written_once_a_second(progress, clock):
    written = []
    progress.on_change = lambda *what: written.append(what)
    work = begin(progress, "first", 1000)
    for _ in range(100):
        clock.go(0.05)
        work()
    assert 4 <= len(written) - 1 <= 5


def test_time_left_comes_from_the_pace(progress, clock):
    work = begin(progress, "first", 10)
    assert progress.eta_s() is None
    for _ in range(5):
        clock.go(4)
        work()
    # 15% took 20 s; 85% are left.
    assert progress.eta_s() == pytest.approx(20 / 0.15 * 0.85)
    assert row(progress).eta_s == pytest.approx(20 / 0.15 * 0.85)


def test_work_of_an_earlier_attempt_does_not_count_for_the_time_left(progress, clock):
    progress.skip("first")
    work = begin(progress, "second", 10, done=5)
    assert progress.fraction() == pytest.approx(0.35)
    clock.go(10)
    work()
    # 1% in 10 s, 64% left
    assert progress.eta_s() == pytest.approx(640)


def test_a_check_does_no_work(progress, clock):
    begin(progress, "first", 10)
    clock.go(5)
    for _ in range(50):
        progress.check()
    assert progress.fraction() == 0.0
    runs.request_cancel(progress.store, "r1")
    clock.go(1)
    with pytest.raises(Cancelled):
        progress.check()


def test_a_cancel_arrives_within_a_second_of_ticks(progress, clock):
    work = begin(progress, "first", 10)
    runs.request_cancel(progress.store, "r1")
    work()
    clock.go(1)
    with pytest.raises(Cancelled):
        work()


def test_a_cancel_arrives_between_stages(progress):
    runs.request_cancel(progress.store, "r1")
    with pytest.raises(Cancelled):
        begin(progress, "first", 10)


def test_seconds_add_up_over_attempts(progress, clock):
    begin(progress, "first", 10)
    clock.go(3)
    begin(progress, "second", 10)
    clock.go(4)
    progress.close_stage()
    assert progress.seconds() == {"time/first": 3, "time/second": 4}
    again = RunProgress(progress.store, "r1")
    again.skip("first")
    begin(again, "second", 10, done=5)
    clock.go(2)
    again.close_stage()
    again.close_stage()
    assert again.seconds() == {"time/first": 3, "time/second": 6}


def test_a_beat_comes_with_every_written_tick(progress, clock):
    work = begin(progress, "first", 10)
    before = row(progress).heartbeat_at
    clock.go(2)
    work()
    assert row(progress).heartbeat_at >= before


def test_figures_are_kept_by_step(progress):
    progress.log(3, {"objective/kl": 0.5, "val/ratio": float("nan")})
    assert [(m.name, m.step, m.value) for m in runs.metrics(progress.store, "r1")] == [("objective/kl", 3, 0.5)]


def test_the_row_says_what_is_done_within_the_stage_and_how_much_of_it(progress, clock):
    stage = progress.stage("first")
    stage.total(3)
    writing = stage.part(2, "base_answers", count=4)
    writing.total(4)
    writing()
    clock.go(1)
    writing()
    assert (row(progress).activity, row(progress).activity_done, row(progress).activity_count) == ("base_answers", 2, 4)
    stage.part(1, "scores")
    clock.go(1)
    progress.check()
    assert (row(progress).activity, row(progress).activity_done, row(progress).activity_count) == ("scores", 0, 0)
    progress.stage("second")
    assert row(progress).activity is None
