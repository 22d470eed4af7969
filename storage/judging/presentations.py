"""Presentations: the order in which one annotator sees the completions of a comparison, stored before the page shows them."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from storage.core import json_columns
from storage.core.database import Database, StoreError, now, to_json
from storage.core.records import Comparison, Guidelines, Presentation, Purpose


def record(
    store: Database,
    comparison: Comparison,
    annotator_id: int,
    rng: random.Random | None = None,
    *,
    purpose: Purpose = "vote",
    guidelines: Guidelines | None = None,
) -> Presentation:
    """Shuffles the comparison's completions into slots for this annotator and stores the order."""
    order = [completion.id for completion in comparison.completions]
    (rng or random.SystemRandom()).shuffle(order)
    return _insert(store, comparison.id, annotator_id, order, purpose, guidelines)


def record_order(store: Database, comparison: Comparison, annotator_id: int, order: Sequence[int]) -> Presentation:
    """Stores an order of the comparison's completions, by id, that this annotator has been shown already."""
    return _insert(store, comparison.id, annotator_id, order, "vote", None)


def repeat(store: Database, earlier: Presentation, *, guidelines: Guidelines | None = None) -> Presentation:
    """Stores a second presentation of the same comparison to the same annotator, in reverse order."""
    return _insert(store, earlier.comparison_id, earlier.annotator_id, earlier.order[::-1], "repeat", guidelines)


@dataclass(frozen=True, slots=True)
class ImportedPresentation:
    """How a file says that completions were shown, or that it does not say."""

    comparison_id: int
    annotator_id: int
    slots: Sequence[int]
    """Completion ids in the order shown; in any order if the sides are not known."""
    sides_known: bool
    """Whether the file recorded the order. Otherwise no statistics of sides count it."""
    created_at: str


def add_imported(store: Database, new: Sequence[ImportedPresentation]) -> range:
    """Adds the presentations of imported votes and returns their ids. The caller has checked them, and calls this inside `atomic`."""
    columns = ("comparison_id", "annotator_id", "slots", "sides_known", "created_at")
    rows = [(item.comparison_id, item.annotator_id, to_json(item.slots), int(item.sides_known), item.created_at) for item in new]
    return store.insert_many("presentations", columns, rows)


def get(store: Database, presentation_id: int) -> Presentation | None:
    """One presentation; None if there is none with this id."""
    row = store.row("SELECT * FROM presentations WHERE id = ?", [presentation_id])
    return None if row is None else from_row(row)


def many(store: Database, presentation_ids: Iterable[int]) -> dict[int, Presentation]:
    """Presentations by id. Ids without a row have no entry."""
    ids = to_json(sorted(set(presentation_ids)))
    rows = store.rows("SELECT * FROM presentations WHERE id IN (SELECT value FROM json_each(?))", [ids])
    return {row["id"]: from_row(row) for row in rows}


def existing(store: Database, presentation_id: int) -> Presentation:
    """One presentation.

    Raises:
        StoreError: there is none with this id.
    """
    presentation = get(store, presentation_id)
    if presentation is None:
        raise StoreError(f"There is no presentation {presentation_id} in {store.path}: reload the page.")
    return presentation


def from_row(row: sqlite3.Row) -> Presentation:
    return Presentation(
        row["id"],
        row["comparison_id"],
        row["annotator_id"],
        json_columns.ids(row["slots"], f"The order of presentation {row['id']}"),
        row["created_at"],
        row["purpose"],
        row["guidelines_id"],
    )


def _insert(
    store: Database, comparison_id: int, annotator_id: int, order: Sequence[int], purpose: Purpose, guidelines: Guidelines | None
) -> Presentation:
    created_at = now()
    guidelines_id = None if guidelines is None else guidelines.id
    presentation_id = store.insert(
        "presentations",
        {
            "comparison_id": comparison_id,
            "annotator_id": annotator_id,
            "slots": order,
            "purpose": purpose,
            "guidelines_id": guidelines_id,
            "created_at": created_at,
        },
    )
    return Presentation(presentation_id, comparison_id, annotator_id, tuple(order), created_at, purpose, guidelines_id)
