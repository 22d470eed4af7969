"""Which comparison an annotator sees next, and how many still wait for a person.

Both answers come from partial indexes over what is still open, so they do not slow down as judged comparisons pile up.
"""

from __future__ import annotations

import random

from storage import annotators, comparisons, presentations
from storage.database import Database
from storage.records import Comparison, Presentation

_NOT_MINE_ALREADY = """NOT EXISTS (
    SELECT 1 FROM standing_judgments s WHERE s.comparison_id = c.id AND s.annotator_id = :annotator
)"""

UNANSWERED = f"""
SELECT p.* FROM presentations p JOIN comparisons c ON c.id = p.comparison_id
WHERE p.annotator_id = :annotator AND p.answered = 0
    AND (c.human_ranks = 0 OR p.undone_by IS NOT NULL) AND {_NOT_MINE_ALREADY}
ORDER BY p.undone_by DESC, p.id DESC LIMIT 1
"""
"""What this annotator was shown and has not answered: first what was undone last, then what was shown last."""

OLDEST_OPEN = f"""
SELECT c.id FROM comparisons c WHERE c.human_ranks = 0 AND {_NOT_MINE_ALREADY}
ORDER BY c.human_skips > 0, c.id LIMIT 1
"""
"""What nobody has ranked: first what nobody skipped, then the oldest."""

DEPTH = "SELECT count(*) FROM comparisons WHERE human_ranks = 0 AND (human_skips > 0) = 0"


def next_presentation(
    store: Database, annotator_id: int, rng: random.Random | None = None
) -> tuple[Comparison, Presentation] | None:
    """The comparison to show to this annotator, in an order drawn for them; None when nothing is left for them.

    Asked again before an answer (the page was reloaded), or after an undo, it is the same one in the same order.

    Raises:
        StoreError: there is no such annotator.
    """
    with store.atomic():
        annotators.get(store, annotator_id)
        row = store.row(UNANSWERED, {"annotator": annotator_id})
        if row is not None:
            return comparisons.get(store, row["comparison_id"]), presentations.from_row(row)
        comparison_id = store.value(OLDEST_OPEN, {"annotator": annotator_id})
        if comparison_id is None:
            return None
        comparison = comparisons.get(store, comparison_id)
        return comparison, presentations.record(store, comparison, annotator_id, rng)


def depth(store: Database) -> int:
    """Comparisons on which no person's judgment stands, neither a ranking nor a skip."""
    return store.value(DEPTH)
