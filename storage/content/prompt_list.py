"""Every prompt of a store as a lead sees it: searchable, with its state and the number of its comparisons. Only reads."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

from storage.content import prompts
from storage.core import json_columns
from storage.core.database import Database
from storage.core.records import Prompt

PromptState = Literal["in_use", "retired", "unused_starter"]

_CONTAINS_TEXT = """
EXISTS (
    SELECT 1 FROM json_each(CASE WHEN json_valid(p.messages) THEN p.messages ELSE '[]' END) turn
    WHERE instr(casefold(turn.value ->> 'content'), :text))"""

_LISTED = f"""
SELECT p.id, p.messages, p.kind, p.split, p.source, p.starter,
    CASE WHEN p.retired THEN 'retired' WHEN p.starter AND NOT {prompts.STARTERS_IN_USE} THEN 'unused_starter' ELSE 'in_use' END AS state,
    (SELECT count(*) FROM comparisons c WHERE c.prompt_id = p.id) AS comparisons
FROM prompts p WHERE (:text = '' OR {_CONTAINS_TEXT})
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


def search(store: Database, text: str = "", *, limit: int | None = None) -> list[ListedPrompt]:
    """Prompts whose turns contain this text, ignoring case, oldest first and those in use first; what cannot be read is left out.

    Args:
        limit: the maximum number of results; `count` returns how many there are.
    """
    order = "ORDER BY state != 'in_use', p.id LIMIT :limit"
    rows = store.rows(_LISTED + order, {"text": text.strip().casefold(), "limit": -1 if limit is None else limit})
    return list(json_columns.readable(rows, _from_row))


def _from_row(row: sqlite3.Row) -> ListedPrompt:
    return ListedPrompt(prompts.from_row(row), row["source"], row["state"], row["comparisons"], bool(row["starter"]))


def count(store: Database, text: str = "") -> int:
    """How many prompts contain this text."""
    return int(store.value(f"SELECT count(*) FROM ({_LISTED})", {"text": text.strip().casefold()}))
