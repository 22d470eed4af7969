"""Work reports the total that it announced, whether its parts do less, more, or nothing."""

import pytest

from rlhf.runs.work import NO_PROGRESS, Work


@pytest.fixture
def reported():
    return []


def sampled(on_progress, positions, ended_after):
    on_progress.total(positions)
    for _ in range(ended_after):
        on_progress()


def test_a_function_reports_in_units_of_its_own(reported):
    sampled(Work(reported.append, 10.0), positions=4, ended_after=4)
    assert reported == [2.5, 2.5, 2.5, 2.5]


def test_parts_share_the_total_of_the_work_they_are_in(reported):
    step = Work(reported.append, 100.0)
    step.total(5)
    sampled(step.part(4), positions=2, ended_after=2)
    step(1)
    assert [amount for amount in reported if amount] == [40.0, 40.0, 20.0]


def test_what_ends_early_is_complete_when_the_next_begins(reported):
    step = Work(reported.append)
    step.total(2)
    sampled(step.part(1), positions=48, ended_after=12)
    assert sum(reported) == pytest.approx(0.125)
    sampled(step.part(1), positions=48, ended_after=0)
    assert sum(reported) == pytest.approx(0.5)
    step.done()
    assert sum(reported) == pytest.approx(1)


def test_nothing_is_reported_beyond_the_total(reported):
    step = Work(reported.append)
    step.total(2)
    sampled(step.part(1), positions=2, ended_after=5)
    step(7)
    sampled(step.part(1), positions=2, ended_after=2)
    assert sum(reported) == 1 and min(reported) == 0


def test_a_total_that_is_announced_again_is_of_what_is_left(reported):
    best_of_n = Work(reported.append)
    best_of_n.total(16)
    best_of_n(16 - 4)
    best_of_n.total(2)
    best_of_n()
    assert reported == [0.75, 0.125]


def test_without_a_total_the_listener_is_called_too(reported):
    uncounted = Work(reported.append, 0.0)
    sampled(uncounted.part(3), positions=2, ended_after=2)
    uncounted()
    assert set(reported) == {0.0} and len(reported) >= 3


def test_work_without_a_listener_reports_nothing():
    NO_PROGRESS.total(3)
    sampled(NO_PROGRESS.part(1), positions=2, ended_after=1)
    NO_PROGRESS.done()


def test_a_part_with_a_name_tells_how_many_things_are_done_of_its_own_count():
    told = []
    stage = Work(on_activity=told.append)
    stage.total(10)
    writing = stage.part(8, "answers", count=4)
    assert told == [("answers", 0, 4)]
    # Four answers in batches of three and one, of two tokens each; the first batch ends early.
    writing.total(4)
    sampled(writing.part(3), positions=2, ended_after=1)
    assert told[-1] == ("answers", 1, 4), "a token of six, in a batch of three of four answers"
    sampled(writing.part(1), positions=2, ended_after=2)
    assert told[-1] == ("answers", 4, 4)
    stage.part(1, "scores")
    assert told[-2:] == [None, ("scores", 0, 0)]
    stage.part(1)
    assert told[-1] is None, "a part without a name is not called by the last one's"


def test_work_inside_a_part_with_a_name_has_none():
    told = []
    stage = Work(on_activity=told.append)
    stage.total(1)
    outer = stage.part(1, "fit")
    outer.total(2)
    outer.part(1, "inner", count=3)()
    assert {activity.name for activity in told} == {"fit"}
