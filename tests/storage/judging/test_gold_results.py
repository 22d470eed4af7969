"""Annotators' results on gold comparisons."""

import pytest

from storage.core.records import ProjectSettings
from storage.judging import gold, judgments, queue
from storage.people import annotators
from storage.project import settings


@pytest.mark.parametrize(
    "ranking, known, right",
    [
        (((1,), (2,), (3,)), ((1,), (2,), (3,)), True),
        (((1,), (3,), (2,)), ((1,), (2,), (3,)), False),
        # Completions tied in the known answer may be ranked in any order; completions that it orders may not be tied.
        (((1,), (3,), (2,)), ((1,), (2, 3)), True),
        (((1, 2), (3,)), ((1,), (2, 3)), False),
        (((1,), (2,)), ((1,), (2, 3)), False),
    ],
)
def test_a_ranking_is_correct_if_it_keeps_the_gold_order(ranking, known, right):
    assert gold.is_right(ranking, known) is right


def test_results_count_the_latest_judgment_of_each_annotator(store, world):
    comparison_id = world.comparison()
    other = world.comparison()
    first, second = (
        row[0]
        for row in store.rows("SELECT completion_id FROM comparison_completions WHERE comparison_id = ? ORDER BY position", [comparison_id])
    )
    gold.set_answer(store, comparison_id, ((first,), (second,)), None)
    assert gold.results(store) == {} and gold.first_failure(store, world.ann.id) is None
    settings.change(store, ProjectSettings(gold_share=0.5), None)
    right = meets(store, world.ann, comparison_id, ((first,), (second,)))
    wrong = meets(store, world.bob, comparison_id, ((second,), (first,)))
    assert gold.results(store) == {comparison_id: (2, 1)} and other not in gold.results(store)
    assert gold.first_failure(store, world.ann.id) is None and gold.first_failure(store, world.bob.id) == wrong.created_at
    judgments.correct(store, right.id, world.ann.id, verdict="rank", tiers=((second,), (first,)))
    assert gold.results(store) == {comparison_id: (2, 0)}
    assert annotators.get(store, world.ann.id).judged == 1


def meets(store, annotator, comparison_id, tiers):
    """Judges the gold comparison once it comes; it comes by chance."""
    for _ in range(200):
        found = queue.next_presentation(store, annotator.id)
        if found and found[0].id == comparison_id:
            return judgments.save(store, found[1].id, annotator.id, verdict="rank", tiers=tiers)
        if found:
            store.connection.conn.execute("UPDATE leases SET expires_at = '2000-01-01' WHERE ended_at IS NULL")
    raise AssertionError("the gold comparison never came")
