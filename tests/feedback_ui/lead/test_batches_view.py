"""Waiting times, and names of versions that are gone."""

from lead_page import EN

from feedback_ui.lead import batches_view
from storage.core.records import Batch, PolicyVersion, Sampling


def test_waiting_times_follow_the_queue_and_leave_out_stuck_batches():
    def batch(number, made, priority=0, cancelled=None):
        return Batch(number, (1,), 2, Sampling(), 10, made, priority, None, "2026-01-01T00:00:00+00:00", cancelled)

    every = [batch(5, 10), batch(4, 0, cancelled="2026-01-02T00:00:00+00:00"), batch(3, 4, priority=1), batch(2, 0), batch(1, 5)]
    html = batches_view.batch_list(EN, every, {}, {}, notes={"2": "The adapter is <missing>."}, seconds_per_comparison=20.0, acts=True)
    rows = html.split("<tr>")[2:]
    # Batch 3 is more urgent: 6 x 20 s; batch 1 waits for it and for its own 5. Batch 2 is stuck and says why.
    states = ("done", "cancelled", "about 2 min left", "The adapter is &lt;missing&gt;.", "about 4 min left")
    assert [[state in row for state in states] for row in rows] == [[i == j for j in range(5)] for i in range(5)]
    assert [row.count('data-act="cancel"') for row in rows] == [0, 0, 1, 1, 1]


def test_versions_that_are_gone_leave_a_number():
    one = Batch(1, (7, 8), 2, Sampling(), 1, 1, 0, None, "2026-01-01T00:00:00+00:00", None)
    known = {7: PolicyVersion(7, "<v7>", "base", "m", None, None, "2026-01-01")}
    assert "&lt;v7&gt;, #8" in batches_view.batch_list(EN, [one], known, {}, notes={}, seconds_per_comparison=None, acts=True)
