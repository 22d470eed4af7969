"""Every prompt of a store as a lead sees it: searchable, with its state and the number of its comparisons. Only reads."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

from storage.content import prompts
from storage.core import json_columns
from storage.core.database import Database
from storage.core.records import Prompt, PromptFilter

PromptState = Literal["in_use", "retired", "unused_starter"]

EVERY = PromptFilter()

_CONTAINS_TEXT = """
EXISTS (
    SELECT 1 FROM json_each(CASE WHEN json_valid(p.messages) THEN p.messages ELSE '[]' END) turn
    WHERE instr(casefold(turn.value ->> 'content'), :text))"""

_STATE = f"""
CASE WHEN p.retired THEN 'retired' WHEN p.starter AND NOT {prompts.STARTERS_IN_USE} THEN 'unused_starter' ELSE 'in_use' END"""

_MATCHES = f"""
(:text = '' OR {_CONTAINS_TEXT}) AND (:kind IS NULL OR p.kind = :kind) AND (:split IS NULL OR p.split = :split)
    AND (:import IS NULL OR p.import_id = :import)"""

_LISTED = f"""
SELECT p.id, p.messages, p.kind, p.split, p.source, p.starter, {_STATE} AS state,
    (SELECT count(*) FROM comparisons c WHERE c.prompt_id = p.id) AS comparisons,
    (SELECT from_id FROM prompt_edits WHERE prompt_id = p.id) AS replaces,
    (SELECT max(prompt_id) FROM prompt_edits WHERE from_id = p.id) AS replaced_by
FROM prompts p WHERE {_MATCHES} AND (:state IS NULL OR {_STATE} = :state) AND (:id IS NULL OR p.id = :id)
"""


@dataclass(frozen=True, slots=True)
class ListedPrompt:
    """A prompt with what a lead decides by."""

    prompt: Prompt
    source: str
    """The file that it came from, `typed`, or `starter`."""
    state: PromptState
    """In use, retired by a lead or with its import, or a starter prompt that is not in use."""
    comparisons: int
    """Number of its comparisons, judged or not."""

    is_starter: bool
    """Whether it is a packaged starter prompt that was not imported too."""
    replaces: int | None = None
    """The prompt of which it is an edit."""
    replaced_by: int | None = None
    """The newest edit of it."""


def search(
    store: Database, chosen: PromptFilter = EVERY, *, state: PromptState | None = None, limit: int | None = None
) -> list[ListedPrompt]:
    """The chosen prompts, oldest first and those in use first; what cannot be read is left out.

    Args:
        state: only prompts of this state.
        limit: the maximum number of results; `count` returns how many there are.
    """
    order = "ORDER BY state != 'in_use', p.id LIMIT :limit"
    rows = store.rows(_LISTED + order, {**_parameters(chosen, state), "limit": -1 if limit is None else limit})
    return list(json_columns.readable(rows, _from_row))


def get(store: Database, prompt_id: int) -> ListedPrompt:
    """One prompt.

    Raises:
        StoreError: there is none with this id, or it cannot be read.
    """
    prompts.get(store, prompt_id)
    return _from_row(store.rows(_LISTED, _parameters(EVERY, None) | {"id": prompt_id}).fetchone())


def count_judgments(store: Database, prompt_id: int) -> int:
    """How many judgments there are of a prompt's comparisons, skips included."""
    judged = "SELECT count(*) FROM active_judgments WHERE comparison_id IN (SELECT id FROM comparisons WHERE prompt_id = ?)"
    return int(store.value(judged, [prompt_id]))


def _from_row(row: sqlite3.Row) -> ListedPrompt:
    return ListedPrompt(
        prompts.from_row(row),
        row["source"],
        row["state"],
        row["comparisons"],
        bool(row["starter"]),
        row["replaces"],
        row["replaced_by"],
    )


def count(store: Database, chosen: PromptFilter = EVERY, *, state: PromptState | None = None) -> int:
    """How many prompts these are."""
    return int(store.value(f"SELECT count(*) FROM ({_LISTED})", _parameters(chosen, state)))


def kinds(store: Database) -> list[str]:
    """Every kind that a prompt of the store has."""
    return [row[0] for row in store.rows("SELECT DISTINCT kind FROM prompts ORDER BY kind")]


def ids_in_use(store: Database, chosen: PromptFilter) -> set[int]:
    """The ids of those of the chosen prompts that are in use."""
    in_use = f"SELECT p.id FROM prompts p WHERE p.id IN (SELECT id FROM prompts WHERE {prompts.IN_USE}) AND {_MATCHES}"
    return {row[0] for row in store.rows(in_use, _parameters(chosen, None))}


def _parameters(chosen: PromptFilter, state: PromptState | None) -> dict[str, str | int | None]:
    text = chosen.text.strip().casefold()
    return {"text": text, "kind": chosen.kind, "split": chosen.split, "import": chosen.import_id, "state": state, "id": None}
