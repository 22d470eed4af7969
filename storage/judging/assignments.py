"""Who gets the comparisons of a batch, on a lead's decision. The queue asks for it; who has a comparison open keeps it."""

from __future__ import annotations

from collections.abc import Sequence

from storage.content import batches
from storage.core.database import Database
from storage.core.records import Batch
from storage.judging import queue


def assign(store: Database, batch_id: int, annotator_ids: Sequence[int], by: int | None) -> Batch:
    """Gives the batch to these annotators alone, or to everybody if there is none among them.

    Its waiting comparisons go to the end of the queue, because the cursors of those who get them now are past them.

    Raises:
        StoreError: there is no such batch, or one of the annotators is no person of this store.
    """
    with store.atomic():
        before = batches.get(store, batch_id)
        if sorted(set(annotator_ids)) == sorted(before.annotator_ids):
            return before
        batches.add_assignment(store, batch_id, annotator_ids, by)
        queue.requeue_batch(store, batch_id)
        return batches.get(store, batch_id)
