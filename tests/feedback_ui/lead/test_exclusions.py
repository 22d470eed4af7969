"""Votes are excluded and lifted."""

import pytest
from lead_page import HERE, pressed

from storage.judging import exclusions, history


def test_an_annotators_votes_are_excluded_and_lifted(store, part, people, waiting, judge):
    section = part.exclusions
    votes = [judge(people.ann), judge(people.ann)]
    assert "Nothing is excluded" in section.open(HERE)[section.list]
    assert ("Ann", people.ann.id) in section.open(HERE)[section.annotator].choices
    shown = section.exclude(people.ann.id, "", "", "too fast", "One second <each>", HERE)
    assert "2 judgments excluded" in shown[section.message] and "One second &lt;each&gt;" in shown[section.list]
    assert not any(history.get(store, vote.id).judgment.counts for vote in votes)
    chosen = section.choose(pressed("lift", 1), HERE)
    assert chosen[section.lifted] == 1 and "Lift exclusion 1: Too fast" in chosen[section.which]
    assert "needs a reason" in section.lift(1, " ", HERE)[section.message]
    shown = section.lift(1, "It was the other Ann", HERE)
    assert "count again" in shown[section.message] and "data-act" not in shown[section.list]
    assert all(history.get(store, vote.id).judgment.counts for vote in votes)
    assert "lifted before" in section.lift(1, "again", HERE)[section.message]
    assert "Press Lift" in section.lift(None, "x", HERE)[section.message]


def test_single_judgments_and_a_day_narrow_an_exclusion(store, part, people, waiting, judge):
    section = part.exclusions
    first, second = judge(people.ann), judge(people.ann)
    section.exclude(None, "", f"#{first.id}", "my own rule", "why", HERE)
    assert not history.get(store, first.id).judgment.counts and history.get(store, second.id).judgment.counts
    assert exclusions.all_exclusions(store)[0].rule == "my own rule"
    assert "excluded" in section.exclude(people.ann.id, second.created_at[:10], "", "other", "why", HERE)[section.message]
    assert "no judgment to exclude" in section.exclude(people.ann.id, "2999-01-01", "", "other", "why", HERE)[section.message]


@pytest.mark.parametrize(
    "given, problem",
    [
        ((None, "", "", "other", "why"), "Choose an annotator"), ((None, "", "x", "other", "why"), "X is not a judgment&#39;s number"),
        ((1, "yesterday", "", "other", "why"), "Yesterday is not a date"), ((None, "", "77", "other", "why"), "not in the store"),
        ((None, "", "77", "other", ""), "needs a rule and a reason"),
    ],
)  # fmt: skip
def test_an_exclusion_of_nothing_is_refused(part, people, given, problem):
    section = part.exclusions
    assert problem in section.exclude(*given, HERE)[section.message]


def test_what_would_stop_counting_is_said_before_it_does(store, part, people, waiting, judge):
    section = part.exclusions
    vote = judge(people.ann)
    judge(people.tom)
    assert section.foresee(None, "", "", HERE) == "" == section.foresee(None, "", "x", HERE)
    said = section.foresee(people.ann.id, "", "", HERE)
    assert "1 vote of 2 would stop counting" in said and "1 comparison would go back to the queue" in said
    assert section.foresee(None, "", str(vote.id), HERE) == said
    assert "No vote that counts" in section.foresee(people.ann.id, "2999-01-01", "", HERE)
    assert store.value("SELECT sum(counts) FROM judgments") == 2, "nothing was excluded"
