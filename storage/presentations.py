"""Presentations: in which order one annotator saw a comparison, written down before the page shows it."""

from __future__ import annotations

import json
import random
import sqlite3

from storage.database import Database, now
from storage.records import Comparison, Presentation


def record(
    store: Database, comparison: Comparison, annotator_id: int, rng: random.Random | None = None
) -> Presentation:
    """Shuffles the comparison's completions into slots for this annotator and keeps the order."""
    order = [completion.id for completion in comparison.completions]
    (rng or random.SystemRandom()).shuffle(order)
    created_at = now()
    presentation_id = store.insert(
        "presentations",
        {"comparison_id": comparison.id, "annotator_id": annotator_id, "slots": order, "created_at": created_at},
    )
    return Presentation(presentation_id, comparison.id, annotator_id, tuple(order), created_at)


def get(store: Database, presentation_id: int) -> Presentation | None:
    """One presentation; None if there is none with this id."""
    row = store.row("SELECT * FROM presentations WHERE id = ?", [presentation_id])
    return None if row is None else from_row(row)


def from_row(row: sqlite3.Row) -> Presentation:
    return Presentation(
        row["id"], row["comparison_id"], row["annotator_id"], tuple(json.loads(row["slots"])), row["created_at"]
    )
