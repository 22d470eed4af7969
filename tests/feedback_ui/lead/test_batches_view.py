"""Waiting times, and names of versions that are gone."""

from lead_page import EN

from feedback_ui.lead import batches_view
from rlhf.serving.batch_plan import Outlook
from storage.core.records import Batch, PolicyVersion, PromptFilter, Sampling


def test_waiting_times_follow_the_queue_and_leave_out_stuck_batches():
    def batch(number, made, priority=0, cancelled=None):
        return Batch(number, (1,), 2, Sampling(), 10, made, priority, None, "2026-01-01T00:00:00+00:00", cancelled)

    every = [batch(5, 10), batch(4, 0, cancelled="2026-01-02T00:00:00+00:00"), batch(3, 4, priority=1), batch(2, 0), batch(1, 5)]
    html = batches_view.batch_list(EN, every, {}, {}, notes={"2": "The adapter is <missing>."}, seconds_per_answer=10.0, acts=True)
    rows = html.split("<tr>")[2:]
    # Batch 3 is more urgent: 6 x 20 s; batch 1 waits for it and for its own 5. Batch 2 is stuck and says why.
    states = ("done", "cancelled", "about 2 min left", "The adapter is &lt;missing&gt;.", "about 4 min left")
    assert [[state in row for state in states] for row in rows] == [[i == j for j in range(5)] for i in range(5)]
    assert [row.count('data-act="cancel"') for row in rows] == [0, 0, 1, 1, 1]


def test_waiting_times_count_answers():
    def batch(number, answers):
        return Batch(number, (1,), answers, Sampling(), 10, 0, 0, None, "2026-01-01T00:00:00+00:00", None)

    html = batches_view.batch_list(EN, [batch(2, 9), batch(1, 2)], {}, {}, notes={}, seconds_per_answer=6.0, acts=True)
    # 10 x 2 x 6 s; then 10 x 9 x 6 s more.
    rows = html.split("<tr>")[2:]
    assert "about 11 min left" in rows[0] and "about 2 min left" in rows[1]


def test_the_outlook_says_what_would_be_done_and_how_long_it_takes_where_that_is_known():
    found = Outlook(prompts=30, set_aside=0, teaching=26, measuring=4)
    html = batches_view.outlook(EN, found, count=30, answers=4, wanted=2, seconds_per_answer=1.0)
    assert "30 comparisons × 4 answers = 120 answers ≈ 2 min" in html
    assert "On 30 prompts" in html and "26 comparisons teach (training prompts), 4 measure" in html and "60 judgments in all" in html
    unknown = batches_view.outlook(EN, found, count=30, answers=4, wanted=2, seconds_per_answer=None)
    assert "≈" not in unknown and "How long it takes is known once" in unknown
    nothing = batches_view.outlook(EN, Outlook(0, 3, 0, 0), count=30, answers=4, wanted=2, seconds_per_answer=1.0)
    assert "No prompt in use is chosen" in nothing and "3 prompts are left out because a model refused them" in nothing


def test_a_batch_says_its_prompts_its_judgments_and_for_whom_it_is():
    chosen = PromptFilter("<bell>", "own_bikes", "heldout", 3)
    one = Batch(1, (7,), 2, Sampling(), 1, 1, 0, None, "2026-01-01T00:00:00+00:00", None, chosen, 2, (5, 9))
    html = batches_view.batch_list(EN, [one], {}, {5: "Ann"}, notes={}, seconds_per_answer=None, acts=True, assigns=True)
    assert "kind own bikes · Held out · import 3 · with “&lt;bell&gt;”" in html
    assert "2 judgments each · only for #9, Ann" in html and 'data-act="assign"' in html
    plain = Batch(1, (7,), 2, Sampling(), 1, 1, 0, None, "2026-01-01T00:00:00+00:00", None)
    html = batches_view.batch_list(EN, [plain], {}, {}, notes={}, seconds_per_answer=None, acts=False, assigns=True)
    assert "every prompt in use" in html and "data-act" not in html


def test_versions_that_are_gone_leave_a_number():
    one = Batch(1, (7, 8), 2, Sampling(), 1, 1, 0, None, "2026-01-01T00:00:00+00:00", None)
    known = {7: PolicyVersion(7, "<v7>", "base", "m", None, None, "2026-01-01")}
    assert "&lt;v7&gt;, #8" in batches_view.batch_list(EN, [one], known, {}, notes={}, seconds_per_answer=None, acts=True)
