"""Completion labels: single completions judged good or bad, without a comparison.

They come from imports (KTO rows, thumbs up and down). Exports write them; training does not use them, and counts say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from storage.core.database import Database
from storage.core.records import AnnotatorKind


class ImportedLabel(NamedTuple):
    """A label from a file."""

    completion_id: int
    annotator_id: int
    good: bool
    rationale: str
    created_at: str


class CompletionLabel(NamedTuple):
    """An active label with its completion, prompt and annotator."""

    messages: str
    """The prompt, as JSON text."""
    kind: str
    split: str
    completion: str
    model: str
    good: bool
    annotator: str
    annotator_kind: AnnotatorKind
    rule: str | None
    rationale: str
    created_at: str


def add_imported(store: Database, labels: Sequence[ImportedLabel], *, import_id: int) -> range:
    """Adds labels from a file and returns their ids. The caller has checked them, and calls this inside `atomic`."""
    columns = ("completion_id", "annotator_id", "good", "rationale", "created_at", "import_id")
    return store.insert_many("completion_labels", columns, [(*label, import_id) for label in labels])


def counts(store: Database) -> dict[str, int]:
    """Numbers of active labels, `good` and `bad`."""
    row = store.row("SELECT count(*) AS labels, coalesce(sum(good), 0) AS good FROM active_completion_labels")
    assert row is not None, "an aggregate has one row"
    return {"good": row["good"], "bad": row["labels"] - row["good"]}


def active(store: Database, *, simulated: bool = False, names: bool = False) -> Iterator[CompletionLabel]:
    """The active labels, oldest first, by people, or with `simulated` by all annotators.

    Annotators are named by pseudonym, or with `names` by their names. Call it inside `store.snapshot()`.
    """
    name = "a.name" if names else "a.pseudonym"
    for row in store.rows(
        f"""
        SELECT p.messages, p.kind, p.split, k.text, v.name, l.good, {name}, a.kind, a.rule, l.rationale, l.created_at
        FROM active_completion_labels l
        JOIN completions k ON k.id = l.completion_id
        JOIN prompts p ON p.id = k.prompt_id
        JOIN policy_versions v ON v.id = k.policy_version_id
        JOIN annotators a ON a.id = l.annotator_id
        WHERE a.kind = 'human' OR :simulated
        ORDER BY l.id
        """,
        {"simulated": simulated},
    ):
        messages, kind, split, text, model, good, *others = row
        yield CompletionLabel(messages, kind, split, text, model, bool(good), *others)
