"""Gold answers: comparisons whose right order is known. They look like any other and measure who judges them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from storage.content import comparisons
from storage.core import json_columns
from storage.core.database import Database, StoreError, now
from storage.core.records import Tiers


def set_answer(store: Database, comparison_id: int, tiers: Tiers, by: int | None, note: str = "") -> None:
    """Makes a comparison gold, or corrects its known answer. It leaves the queue: gold is shown by share, not by turn.

    Raises:
        StoreError: there is no such comparison, or the tiers do not rank each of its completions once.
    """
    with store.atomic():
        shown = [completion.id for completion in comparisons.get(store, comparison_id).completions]
        ranked = [completion_id for tier in tiers for completion_id in tier]
        if sorted(ranked) != sorted(shown):
            raise StoreError(f"The known answer of comparison {comparison_id} must rank each of its {len(shown)} completions once.")
        if not all(tiers):
            raise StoreError("A tier of the known answer is empty: leave it out.")
        if len(tiers) < 2:
            raise StoreError("A known answer that ties everything tells nobody apart: put one completion first.")
        store.insert(
            "gold_answers",
            {"comparison_id": comparison_id, "tiers": tiers, "note": note.strip(), "by_id": by, "created_at": now()},
        )


def answer(store: Database, comparison_id: int) -> Tiers | None:
    """The known answer of a comparison; None if it is not gold."""
    said = store.value("SELECT tiers FROM gold_answers WHERE comparison_id = ? ORDER BY id DESC LIMIT 1", [comparison_id])
    return None if said is None else _tiers(said)


def answers(store: Database) -> dict[int, Tiers]:
    """Every known answer by comparison id, the latest where one was corrected."""
    rows = store.rows("SELECT comparison_id, tiers FROM gold_answers ORDER BY id")
    return dict(json_columns.readable(rows, lambda row: (row["comparison_id"], _tiers(row["tiers"]))))


def results(store: Database) -> dict[int, tuple[int, int]]:
    """By gold comparison, how often it was judged, and how often rightly; those that nobody has judged are left out."""
    found: dict[int, tuple[int, int]] = {}
    known = answers(store)
    for comparison_id, _, tiers in _judged(store, None):
        if comparison_id in known:
            judged, right = found.get(comparison_id, (0, 0))
            found[comparison_id] = (judged + 1, right + is_right(tiers, known[comparison_id]))
    return found


def first_failure(store: Database, annotator_id: int) -> str | None:
    """When this annotator first judged a gold comparison wrongly, ISO 8601 in UTC; None if never."""
    known = answers(store)
    judged = _judged(store, annotator_id)
    return next((at for comparison_id, at, tiers in judged if comparison_id in known and not is_right(tiers, known[comparison_id])), None)


def _judged(store: Database, annotator_id: int | None) -> Iterator[tuple[int, str, Tiers]]:
    """Comparison, time and ranking of each judgment of gold, of one annotator or of all."""
    rows = store.rows(_JUDGED, {"annotator": annotator_id})
    return json_columns.readable(rows, lambda row: (row["comparison_id"], row["created_at"], _tiers(row["tiers"])))


def is_right(said: Tiers, known: Tiers) -> bool:
    """Whether every pair that the known answer orders was put in that order; what was left out is not."""
    tier = {completion_id: rank for rank, ids in enumerate(said) for completion_id in ids}
    if any(completion_id not in tier for ids in known for completion_id in ids):
        return False
    ranks = [[tier[completion_id] for completion_id in ids] for ids in known]
    return any(ranks) and all(max(better) < min(worse) for better, worse in pairwise(ranks))


_JUDGED = """
SELECT j.comparison_id, j.tiers, j.created_at FROM comparisons c JOIN judgments j ON j.comparison_id = c.id
WHERE c.gold = 1 AND j.purpose = 'gold' AND j.verdict = 'rank' AND (:annotator IS NULL OR j.annotator_id = :annotator)
    AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = j.id)
ORDER BY j.id
"""


def _tiers(said: str) -> Tiers:
    return json_columns.id_lists(said, "A gold answer")
