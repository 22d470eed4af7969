"""Gold comparisons: comparisons with a known ranking, shown like any other, which measure an annotator's accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from storage.content import comparisons
from storage.core import json_columns
from storage.core.database import Database, StoreError, now, to_json
from storage.core.records import Tiers


def set_answer(store: Database, comparison_id: int, tiers: Tiers, by: int | None, note: str = "") -> None:
    """Makes a comparison gold, or corrects its gold answer. A gold comparison leaves the queue: the
    project's `gold_share` decides how often one is shown.

    Raises:
        StoreError: there is no such comparison, or the tiers do not rank each of its completions once.
    """
    with store.atomic():
        members = [completion.id for completion in comparisons.get(store, comparison_id).completions]
        ranked = [completion_id for tier in tiers for completion_id in tier]
        if sorted(ranked) != sorted(members):
            raise StoreError(f"The gold answer of comparison {comparison_id} must rank each of its {len(members)} completions once.")
        if not all(tiers):
            raise StoreError("A tier of the gold answer is empty: leave it out.")
        if len(tiers) < 2:
            raise StoreError("A gold answer that ties all completions measures nothing: put one completion first.")
        store.insert(
            "gold_answers",
            {"comparison_id": comparison_id, "tiers": tiers, "note": note.strip(), "by_id": by, "created_at": now()},
        )


def add_imported(store: Database, answers: Sequence[tuple[int, Tiers]], *, note: str, by: int | None, created_at: str) -> None:
    """Adds gold answers from a file, each as (comparison id, tiers). The caller has checked them, and calls this inside `atomic`."""
    rows = [(comparison_id, to_json(tiers), note, by, created_at) for comparison_id, tiers in answers]
    store.insert_many("gold_answers", ("comparison_id", "tiers", "note", "by_id", "created_at"), rows)


def answer(store: Database, comparison_id: int) -> Tiers | None:
    """The gold answer of a comparison; None if it is not gold."""
    encoded = store.value("SELECT tiers FROM gold_answers WHERE comparison_id = ? ORDER BY id DESC LIMIT 1", [comparison_id])
    return None if encoded is None else _tiers(encoded)


def answers(store: Database) -> dict[int, Tiers]:
    """The gold answer of each gold comparison, by comparison id; the latest one where it was corrected."""
    rows = store.rows(
        "SELECT g.comparison_id, g.tiers FROM gold_answers g JOIN comparisons c ON c.id = g.comparison_id "
        "WHERE coalesce(c.import_id, 0) NOT IN unfinished_imports ORDER BY g.id"
    )
    return dict(json_columns.readable(rows, lambda row: (row["comparison_id"], _tiers(row["tiers"]))))


def results(store: Database) -> dict[int, tuple[int, int]]:
    """(judgments, correct judgments) of each gold comparison, by comparison id. Comparisons without a judgment have no entry."""
    counts: dict[int, tuple[int, int]] = {}
    answer_of = answers(store)
    for comparison_id, _, tiers in _judgments(store, None):
        if comparison_id in answer_of:
            judged, correct = counts.get(comparison_id, (0, 0))
            counts[comparison_id] = (judged + 1, correct + is_right(tiers, answer_of[comparison_id]))
    return counts


def first_failure(store: Database, annotator_id: int) -> str | None:
    """When this annotator first judged a gold comparison incorrectly, ISO 8601 in UTC; None if never."""
    answer_of = answers(store)
    for comparison_id, created_at, tiers in _judgments(store, annotator_id):
        if comparison_id in answer_of and not is_right(tiers, answer_of[comparison_id]):
            return created_at
    return None


def _judgments(store: Database, annotator_id: int | None) -> Iterator[tuple[int, str, Tiers]]:
    """(comparison id, time, tiers) of each judgment of a gold comparison, by one annotator or by all."""
    rows = store.rows(_JUDGMENTS, {"annotator": annotator_id})
    return json_columns.readable(rows, lambda row: (row["comparison_id"], row["created_at"], _tiers(row["tiers"])))


def is_right(tiers: Tiers, known: Tiers) -> bool:
    """Whether a ranking orders every pair as the gold answer does. A ranking that omits a completion is not right."""
    rank_of = {completion_id: rank for rank, ids in enumerate(tiers) for completion_id in ids}
    if any(completion_id not in rank_of for ids in known for completion_id in ids):
        return False
    ranks = [[rank_of[completion_id] for completion_id in ids] for ids in known]
    return any(ranks) and all(max(better) < min(worse) for better, worse in pairwise(ranks))


_JUDGMENTS = """
SELECT j.comparison_id, j.tiers, j.created_at FROM comparisons c JOIN judgments j ON j.comparison_id = c.id
WHERE c.gold = 1 AND j.purpose = 'gold' AND j.verdict = 'rank' AND (:annotator IS NULL OR j.annotator_id = :annotator)
    AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = j.id)
ORDER BY j.id
"""


def _tiers(encoded: str) -> Tiers:
    return json_columns.id_lists(encoded, "A gold answer")
