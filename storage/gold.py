"""Gold answers: comparisons whose right order is known. They look like any other and measure who judges them."""

from __future__ import annotations

import json

from storage import comparisons
from storage.database import Database, StoreError, now
from storage.records import Tiers


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
    return {row["comparison_id"]: _tiers(row["tiers"]) for row in rows}


def _tiers(said: str) -> Tiers:
    return tuple(tuple(tier) for tier in json.loads(said))
