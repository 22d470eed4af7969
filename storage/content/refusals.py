"""Prompts that a model cannot or will not answer: set aside for that model, with the reason, until a lead has them tried again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from storage.content import prompts
from storage.core.database import Database, now, to_json
from storage.core.records import PolicyVersion

LONGEST_REASON = 500
"""Characters of a reason that are stored: it may be a server's own message."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One prompt that one model refused."""

    prompt_id: int
    base_model: str
    """The refusing model: a base model, which refuses for its tuned versions too, or the name of an outside model."""
    reason: str
    created_at: str


def add(store: Database, prompt_id: int, version: PolicyVersion, reason: str) -> None:
    """Sets a prompt aside for the version's model; a newer reason replaces the older one."""
    with store.atomic() as connection:
        connection.conn.execute(
            "INSERT INTO prompt_refusals (prompt_id, base_model, reason, created_at) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (prompt_id, base_model) DO UPDATE SET reason = excluded.reason, created_at = excluded.created_at",
            [prompt_id, version.base_model, reason[:LONGEST_REASON], now()],
        )


def by_model(store: Database) -> dict[str, set[int]]:
    """The ids of the prompts that each model refused."""
    found: dict[str, set[int]] = {}
    for base_model, prompt_id in store.rows("SELECT base_model, prompt_id FROM prompt_refusals"):
        found.setdefault(base_model, set()).add(prompt_id)
    return found


def all_refusals(store: Database) -> list[Refusal]:
    """Every refusal of a prompt in use, newest first."""
    rows = store.rows(
        "SELECT prompt_id, base_model, reason, created_at FROM prompt_refusals "
        f"WHERE prompt_id IN (SELECT id FROM prompts WHERE {prompts.IN_USE}) ORDER BY created_at DESC, prompt_id DESC"
    )
    return [Refusal(*row) for row in rows]


def clear(store: Database, prompt_ids: Collection[int] | None = None) -> int:
    """Lets every model be asked again for these prompts, or for all; returns how many refusals that were."""
    with store.atomic() as connection:
        return int(
            connection.conn.execute(
                "DELETE FROM prompt_refusals WHERE ?1 IS NULL OR prompt_id IN (SELECT value FROM json_each(?1))",
                [None if prompt_ids is None else to_json(sorted(prompt_ids))],
            ).rowcount
        )
