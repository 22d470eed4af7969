"""Batches: requests of a lead for comparisons, which the policy server generates. The versions in `policy_ids` take turns.

`storage.judging.assignments` changes who gets the comparisons of a batch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict

from storage.content import comparisons
from storage.core import json_columns
from storage.core.database import Database, StoreError, now, to_json
from storage.core.records import Batch, PromptFilter, Sampling
from storage.project.settings import MAX_OVERLAP

MAX_COMPARISONS = 100_000
MAX_ANSWER_TOKENS = 1024
"""In tokens."""

EVERY_PROMPT = PromptFilter()


_SELECT = """
SELECT b.*, (SELECT annotator_ids FROM batch_assignments a WHERE a.batch_id = b.id ORDER BY a.id DESC LIMIT 1) AS annotator_ids
FROM batches b
"""


def request(
    store: Database,
    policy_ids: Sequence[int],
    *,
    completions: int,
    sampling: Sampling,
    count: int,
    priority: int = 0,
    prompts: PromptFilter = EVERY_PROMPT,
    wanted: int | None = None,
    annotator_ids: Sequence[int] = (),
    by: int | None,
) -> Batch:
    """Adds a request for `count` comparisons of `completions` completions each.

    Args:
        prompts: which prompts it takes, of those in use.
        wanted: judgments that each comparison needs; None takes the number from the settings.
        annotator_ids: who gets the comparisons; nobody means everybody.

    Raises:
        StoreError: a number is out of its range, or a policy version or an annotator is not there.
    """
    ids = list(dict.fromkeys(policy_ids))
    if not ids:
        raise StoreError("Choose at least one policy version to answer.")
    if not comparisons.MIN_COMPLETIONS <= completions <= comparisons.MAX_COMPLETIONS:
        raise StoreError(f"A comparison holds {comparisons.MIN_COMPLETIONS} to {comparisons.MAX_COMPLETIONS} answers, not {completions}.")
    if len(ids) > completions:
        raise StoreError(f"{len(ids)} policy versions cannot share {completions} answers: ask for more answers, or fewer versions.")
    if not 1 <= count <= MAX_COMPARISONS:
        raise StoreError(f"Ask for 1 to {MAX_COMPARISONS:,} comparisons, not {count}.")
    if wanted is not None and not 1 <= wanted <= MAX_OVERLAP:
        raise StoreError(f"A comparison needs 1 to {MAX_OVERLAP} judgments, not {wanted}.")
    if reason := problem(sampling):
        raise StoreError(f"Batch not requested: {reason}.")
    with store.atomic():
        stored = store.value("SELECT count(*) FROM policy_versions WHERE id IN (SELECT value FROM json_each(?))", [to_json(ids)])
        if stored != len(ids):
            raise StoreError("One of the policy versions is not in the store: reload the page.")
        batch_id = store.insert(
            "batches",
            {
                "policy_ids": ids,
                "completions": completions,
                "sampling": asdict(sampling),
                "requested": count,
                "priority": priority,
                "by_id": by,
                "created_at": now(),
                "prompts": {name: value for name, value in asdict(prompts).items() if value},
                "wanted": wanted,
            },
        )
        if annotator_ids:
            add_assignment(store, batch_id, annotator_ids, by)
        return get(store, batch_id)


def add_assignment(store: Database, batch_id: int, annotator_ids: Sequence[int], by: int | None) -> None:
    """Says who gets the comparisons of a batch from now on; nobody means everybody. Call it inside `atomic`.

    Raises:
        StoreError: one of them is no person of this store.
    """
    ids = sorted(set(annotator_ids))
    there = store.value("SELECT count(*) FROM annotators WHERE kind = 'human' AND id IN (SELECT value FROM json_each(?))", [to_json(ids)])
    if there != len(ids):
        raise StoreError("One of the annotators is not in the store, or is no person: reload the page.")
    store.insert("batch_assignments", {"batch_id": batch_id, "annotator_ids": ids, "by_id": by, "created_at": now()})


def problem(sampling: Sampling) -> str | None:
    """Why these sampling parameters are not allowed, as part of a sentence; None if they are."""
    if not 0 <= sampling.temperature <= 2:
        return f"the temperature must be 0 to 2, not {sampling.temperature}"
    if not 0 < sampling.top_p <= 1:
        return f"top-p must be above 0 and at most 1, not {sampling.top_p}"
    if sampling.top_k < 0:
        return f"top-k must be 0 or more, not {sampling.top_k}"
    if not 1 <= sampling.max_new_tokens <= MAX_ANSWER_TOKENS:
        return f"the longest answer must be 1 to {MAX_ANSWER_TOKENS:,} tokens, not {sampling.max_new_tokens}"
    return None


def get(store: Database, batch_id: int) -> Batch:
    """One batch.

    Raises:
        StoreError: there is none with this id.
    """
    row = store.row(f"{_SELECT} WHERE b.id = ?", [batch_id])
    if row is None:
        raise StoreError(f"There is no batch {batch_id}: reload the page.")
    return _from_row(row)


def unfinished(store: Database) -> list[Batch]:
    """The batches with comparisons still to be generated: highest priority first, then oldest."""
    rows = store.rows(f"{_SELECT} WHERE generated < requested AND cancelled_at IS NULL ORDER BY priority DESC, id")
    return list(json_columns.readable(rows, _from_row))


def add_generated(store: Database, batch_id: int, number: int) -> None:
    """Adds `number` to the generated comparisons of a batch. Call it in the transaction that adds the comparisons."""
    with store.atomic() as connection:
        connection.conn.execute("UPDATE batches SET generated = generated + ? WHERE id = ?", [number, batch_id])


def count_heldout(store: Database, batch_id: int) -> int:
    """How many of the comparisons of a batch are on held-out prompts."""
    held_out = "SELECT count(*) FROM comparisons c JOIN prompts p ON p.id = c.prompt_id WHERE c.batch_id = ? AND p.split = 'heldout'"
    return int(store.value(held_out, [batch_id]))


def cancel(store: Database, batch_id: int, by: int | None = None) -> None:
    """Cancels what is left of a batch; generated comparisons stay. A batch that is finished or cancelled stays as it is."""
    with store.atomic() as connection:
        connection.conn.execute(
            "UPDATE batches SET cancelled_at = ?, cancelled_by_id = ? WHERE id = ? AND generated < requested AND cancelled_at IS NULL",
            [now(), by, batch_id],
        )


def all_batches(store: Database) -> list[Batch]:
    """Every batch, newest first."""
    return list(json_columns.readable(store.rows(f"{_SELECT} ORDER BY id DESC"), _from_row))


def _from_row(row: sqlite3.Row) -> Batch:
    return Batch(
        row["id"],
        json_columns.ids(row["policy_ids"], f"The versions of batch {row['id']}"),
        row["completions"],
        json_columns.sampling(row["sampling"], f"The sampling of batch {row['id']}"),
        row["requested"],
        row["generated"],
        row["priority"],
        row["by_id"],
        row["created_at"],
        row["cancelled_at"],
        _filter(row["prompts"], f"The prompts of batch {row['id']}"),
        row["wanted"],
        json_columns.ids(row["annotator_ids"] or "[]", f"The annotators of batch {row['id']}"),
    )


def _filter(encoded: str, what: str) -> PromptFilter:
    values = json_columns.from_json(encoded, dict, what)
    types = {"text": str, "kind": str, "split": str, "import_id": int}
    if not all(name in types and type(value) is types[name] for name, value in values.items()):
        raise json_columns.Unreadable(f"{what} cannot be read: it is not what rankloop writes there. Restore a backup.")
    return PromptFilter(**values)
